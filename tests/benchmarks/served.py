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

# For the CPU: so short that whatever else the machine does falls on both workers alike.
SHORT_TURNS, FEW = 40, 100
# For the answers' time: so long that the agent's own threads work as they do all the time, and
# with a pause in seconds behind, in which what a turn left over falls into no other.
LONG_TURNS, MANY = 4, 800
PAUSE = 0.4
# Longer than any subject takes to deliver what it has.
PATIENCE = 90.0


def served(subject: Subject, port: int, scale: float, *, framework: str) -> dict[str, float]:
    """Measure what capturing an event a request adds to a worker's CPU and to its answers' time.

    Two workers take turns, one with the subject and one with none. The CPU is that of all threads
    of the worker, delivery included.
    """
    if not (is_installed("gunicorn") and is_installed(framework)):
        raise NotApplicableError(f"no gunicorn or {framework}")
    if not subject.threaded:
        raise NotApplicableError("belongs to one thread")
    few, many = (max(CONNECTIONS, int(count * scale)) for count in (FEW, MANY))
    with _shop(framework, Nothing(), port) as plain, _shop(framework, subject, port) as captured:
        pair = plain, captured
        for shop in pair:
            shop.ask(many)
            shop.begin()
        arrived = counted_events(port)
        _take_turns(pair, SHORT_TURNS, lambda shop: shop.ask(few))
        for shop in pair:
            shop.end()
        _take_turns(pair, LONG_TURNS, lambda shop: shop.time(many))
        captured.settle()
        arrived = counted_events(port) - arrived
    requests = SHORT_TURNS * few
    return {
        "cpu_us": captured.cpu / requests * 1e6,
        "plain_us": plain.cpu / requests * 1e6,
        "added": captured.cpu / plain.cpu * 100 - 100,
        "p50": captured.milliseconds(0.5),
        "p99": captured.milliseconds(0.99),
        "plain_p99": plain.milliseconds(0.99),
        "p99_added": captured.milliseconds(0.99) / plain.milliseconds(0.99) * 100 - 100,
        "missing": requests + LONG_TURNS * many - arrived if subject.delivers else 0,
    }


def _take_turns(
    pair: tuple[_Shop, _Shop], turns: int, take_turn: Callable[[_Shop], object]
) -> None:
    for turn in range(turns):
        for shop in pair if turn % 2 else pair[::-1]:
            take_turn(shop)


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

    def end(self) -> None:
        """Have delivered what was captured."""
        self.cpu += self.settle()

    def time(self, count: int) -> None:
        """Ask so many times, keep how long it took, and leave the worker alone for a moment."""
        self._times += self.ask(count)
        time.sleep(PAUSE)

    def settle(self) -> float:
        """Have everything delivered, and give the CPU seconds of the worker."""
        return self._told("/settle")

    def milliseconds(self, share: float) -> float:
        """Give a quantile of the answers' times."""
        return sorted(self._times)[int((len(self._times) - 1) * share)] / 1e6

    def _told(self, path: str) -> float:
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
