"""The client of the served applications: a few kept-open connections, each asking all the time."""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["running_load"]

CONNECTIONS = 8
PATIENCE = 30.0
REQUEST = "GET /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {}\r\n\r\n"
GOOD = b"HTTP/1.1 200 "


class _Caller:
    """One connection, which asks again as soon as it has its answer."""

    def __init__(self, port: int, sender: str) -> None:
        self._request = REQUEST.format(sender).encode()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._began = 0
        self._answer = b""

    def ask(self) -> None:
        self._answer = b""
        self._began = time.perf_counter_ns()
        self.socket.sendall(self._request)

    def hear(self) -> int | None:
        """Read what is there; give the nanoseconds since the question once the answer is whole."""
        piece = self.socket.recv(1 << 16)
        now = time.perf_counter_ns()
        self._answer += piece
        if not (piece and self._answer.startswith(GOOD[: len(self._answer)])):
            raise ConnectionError(f"no answer but {self._answer[:200]!r}")
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        return now - self._began if blank and len(body) == _length(head) else None


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])


def _drive(callers: list[_Caller], count: int) -> list[int]:
    """Ask ``count`` times, and give the nanoseconds of each answer."""
    times: list[int] = []
    with selectors.DefaultSelector() as waiting:
        for caller in callers:
            waiting.register(caller.socket, selectors.EVENT_READ, caller)
        asked = len(callers)
        for caller in callers:
            caller.ask()
        while len(times) < count:
            ready = waiting.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{len(times)} of {count} answers came")
            for key, _ in ready:
                taken = key.data.hear()
                if taken is not None:
                    times.append(taken)
                    if asked < count:
                        asked += 1
                        key.data.ask()
    return times


@contextmanager
def running_load(port: int, sender: str) -> Iterator[Callable[[int], list[int]]]:
    """Run the client in its own process, and give what has it ask so many times, as ``sender``."""
    command = [sys.executable, "-m", __name__, str(port), sender]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers = process.stdin, process.stdout

        def ask(count: int) -> list[int]:
            print(count, file=orders, flush=True)
            times: list[int] = json.loads(answers.readline())
            return times

        yield ask


def _main(port: int, sender: str) -> None:
    """Carry out the orders on standard input."""
    callers = [_Caller(port, sender) for _ in range(CONNECTIONS)]
    for line in sys.stdin:
        print(json.dumps(_drive(callers, int(line))), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
