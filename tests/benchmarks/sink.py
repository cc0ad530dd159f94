"""A small, fast HTTP/1.1 backend in a process of its own, which counts the events it is sent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .sample import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sink", "counted_events", "running_sink"]

RULES = b'{"rule_id":"bench","version":1}'
ACCEPTED = b'{"success":true}'


class Sink:
    """Answer every request the way the asking peer needs, and count the marks in its body."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self._events = 0
        # Guards _events, and makes a question for the count wait for bodies already answered.
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Accept connections until the process is ended."""
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb", buffering=1 << 16) as stream:
            while (line := stream.readline()).strip():
                headers = dict(_headers(stream))
                if headers.get(b"expect", b"").lower() == b"100-continue":
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = _body(stream, headers)
                self._settle(connection, line.split()[1], headers, body)

    def _settle(
        self, connection: socket.socket, path: bytes, headers: dict[bytes, bytes], body: bytes
    ) -> None:
        # Answered before it is counted: the sink's own work is no latency of the peer's.
        with self._lock:
            connection.sendall(_response(_answer(path, self._events)))
            if headers.get(b"content-encoding") in (b"gzip", b"deflate"):
                body = zlib.decompress(body, zlib.MAX_WBITS | 32)
            self._events += body.count(MARK)


def _headers(stream: Any) -> Iterator[tuple[bytes, bytes]]:
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()


def _body(stream: Any, headers: dict[bytes, bytes]) -> bytes:
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        return bytes(stream.read(int(headers.get(b"content-length", 0))))
    chunks = []
    while size := int(stream.readline().split(b";")[0], 16):
        chunks.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(chunks)


def _answer(path: bytes, events: int) -> bytes:
    if path == b"/count":
        return json.dumps(events).encode()
    if path.endswith(b"/rules"):
        return RULES
    if path.endswith(b"/v1/logs"):
        return b""  # an empty ExportLogsServiceResponse of OTLP
    if path.startswith(b"/1/batch/"):
        return b'[{"status":202}]'
    return ACCEPTED


def _response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def counted_events(port: int) -> int:
    """Ask the sink at ``port`` how many events it has received since it started."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /count HTTP/1.1\r\nHost: sink\r\n\r\n")
        return int(connection.recv(4096).rpartition(b"\r\n")[2])


@contextmanager
def running_sink() -> Iterator[int]:
    """Run a sink in its own process and give its port."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    sink = Sink()
    print(sink.port, flush=True)
    sink.serve()
