"""What an event a request costs an application behind gunicorn, in CPU and in its answers' time."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .load import CONNECTIONS, running_load
from .registry import is_installed
from .sample import MARK
from .shop.staff import environment
from .sink import counted_events
from .subjects.subject import NotApplicableError
from .subjects.yardstick import Nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .subjects.subject import Subject

__all__ = ["served"]

TURNS = 5
REQUESTS = 800
# Between two turns, in seconds, so that what one has left over falls into no other.
PAUSE = 0.4
# Longer than any subject takes to deliver what it has.
PATIENCE = 90.0


def served(subject: Subject, port: int, scale: float, *, framework: str) -> dict[str, float]:
    """Measure what capturing an event a request adds to a worker's CPU and to its answers' time.

    Two workers take turns, one with the subject and one with none: whatever else the machine does
    falls on both alike. The CPU is that of all threads of the worker, delivery included.
    """
    if not (is_installed("gunicorn") and is_installed(framework)):
        raise NotApplicableError(f"no gunicorn or {framework}")
    if not subject.threaded:
        raise NotApplicableError("belongs to one thread")
    count = max(CONNECTIONS, int(REQUESTS * scale))
    with _shop(framework, Nothing(), port) as plain, _shop(framework, subject, port) as captured:
        for shop in (plain, captured):
            shop.ask(count)
            shop.begin()
        arrived = counted_events(port)
        for turn in range(TURNS):
            for shop in (plain, captured) if turn % 2 else (captured, plain):
                shop.take_turn(count)
        for shop in (plain, captured):
            shop.end()
        arrived = counted_events(port) - arrived
    return {
        "cpu_us": captured.cpu / count / TURNS * 1e6,
        "plain_us": plain.cpu / count / TURNS * 1e6,
        "added": captured.cpu / plain.cpu * 100 - 100,
        "p50": captured.milliseconds(0.5),
        "p99": captured.milliseconds(0.99),
        "plain_p99": plain.milliseconds(0.99),
        "p99_added": captured.milliseconds(0.99) / plain.milliseconds(0.99) * 100 - 100,
        "missing": count * TURNS - arrived if subject.delivers else 0,
    }


class _Shop:
    """A worker that serves, and the client that keeps it busy."""

    def __init__(self, port: int, ask: Callable[[int], list[int]]) -> None:
        self.ask = ask
        #: Seconds that the worker spent from ``begin`` to ``end``, those of delivery included.
        self.cpu = 0.0
        self._port = port
        self._times: list[int] = []

    def begin(self) -> None:
        """Leave out what came before."""
        self.cpu -= self._told("/begin")

    def take_turn(self, count: int) -> None:
        """Ask so many times, and then leave the worker alone for a moment."""
        self._times += self.ask(count)
        time.sleep(PAUSE)

    def end(self) -> None:
        """Have delivered what was captured."""
        self.cpu += self._told("/settle")

    def milliseconds(self, share: float) -> float:
        """Give a quantile of the answers' times."""
        return sorted(self._times)[int((len(self._times) - 1) * share)] / 1e6

    def _told(self, path: str) -> float:
        """Have everything delivered, and give the CPU seconds of the worker."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        connection.request("GET", path)
        seconds = float(connection.getresponse().read())
        connection.close()
        return seconds


def _sender(subject: Subject) -> str:
    """Name the client; with the mark, where that is what gets into the event."""
    return f"bench client {MARK.decode() if subject.reads_requests else 'of no mark'}"


@contextmanager
def _shop(framework: str, subject: Subject, port: int) -> Iterator[_Shop]:
    with _gunicorn(framework, subject, port) as shop, running_load(shop, _sender(subject)) as ask:
        yield _Shop(shop, ask)


@contextmanager
def _gunicorn(framework: str, subject: Subject, port: int) -> Iterator[int]:
    """Run one worker with four threads, and give the port that it serves."""
    listener = socket.create_server(("127.0.0.1", 0))
    # As gunicorn sets it where it binds by itself: a head and a body are two packets.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    shop: int = listener.getsockname()[1]
    command = [
        *(sys.executable, "-m", "gunicorn", "--config", f"python:{__package__}.shop.server"),
        *("--bind", f"fd://{listener.fileno()}", f"{__package__}.shop.{framework}:application"),
    ]
    with subprocess.Popen(
        command, env=environment(subject, port), pass_fds=[listener.fileno()]
    ) as process:
        listener.close()  # or it would be asked in vain where gunicorn has not come up
        try:
            yield shop
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
