"""Fixtures for tests of durable spools: places to keep one, and processes that share and die."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import attrs
import pytest

from tests.conftest import quick_settings
from tests.faults.scripts import PROGRAMS
from tests.support.backend import Backend
from tests.support.programs import Program
from tests.support.redis_server import RedisServer

__all__ = [
    "Brood",
    "Line",
    "Nurseries",
    "Place",
    "Start",
    "eventually",
    "nurseries",
    "place",
    "shared_redis",
]

T = TypeVar("T")
Result = TypeVar("Result")

#: A hang detector: longer than any process may need to empty its spool on a busy machine.
PATIENCE = 40.0


@attrs.frozen
class Place:
    """Where spools are kept; each name is a spool of its own.

    Args:
        kind: "sqlite" or "redis".
        folder: for the files.
        url: of the Redis server.
    """

    kind: str
    folder: Path
    url: str

    def settings(self, name: str = "spool") -> dict[str, Any]:
        """Return the settings of an agent that uses the spool of that name."""
        where = f"sqlite:///{self.folder / name}.db" if self.kind == "sqlite" else self.url
        return {"spool": where, "project_id": name, "spool_lease": 0.5}


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """Share one server; a test that hurts it starts its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Run the test on each kind of durable spool."""
    url = request.getfixturevalue("shared_redis").url if request.param == "redis" else ""
    return Place(request.param, tmp_path, url)


@attrs.frozen
class Line:
    """A captured event: its key, when `capture` had returned, and whether it was taken."""

    key: str
    at: float
    taken: bool


def eventually(met: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Look again and again; False when it did not come true in time."""
    deadline = time.monotonic() + patience
    while not met():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True


class Brood:
    """Processes that one order has started.

    Args:
        nursery: whose lines of JSON tell of them.
        order: as it was given.
    """

    def __init__(self, nursery: Program, order: Mapping[str, Any]) -> None:
        self._nursery = nursery
        self._ledgers = [Path(ledger) for ledger in order["ledgers"]]
        nursery.tell(json.dumps(order))
        self._told: list[dict[str, Any]] = []
        self.pids: list[int] = self.hear("pids")["pids"]

    def hear(self, name: str) -> dict[str, Any]:
        """Wait for a report that has such a value; keep the others."""
        while True:
            for report in self._told:
                if name in report:
                    self._told.remove(report)
                    return report
            self._told.append(self._nursery.read_report())

    def wait_begun(self) -> None:
        """Wait until each has captured something."""
        for _ in self.pids:
            self.hear("begun")

    def kill(self, number: int = 0) -> None:
        """Kill one of them, without a warning."""
        os.kill(self.pids[number], signal.SIGKILL)

    def wait(self) -> list[dict[str, Any]]:
        """Wait until all have ended by themselves; return their reports."""
        ends = self.hear("ends")["ends"]

        assert ends == [0] * len(self.pids), self._nursery.wait(1.0).stderr
        return [report for report in self._told if "stopped" in report]

    def freeze(self, number: int = 0) -> None:
        """Let one of them stand still, as a host that is swapping or a paused container does."""
        os.kill(self.pids[number], signal.SIGSTOP)

    def thaw(self, number: int = 0) -> None:
        """Let it go on."""
        os.kill(self.pids[number], signal.SIGCONT)

    def wait_killed(self) -> None:
        """Wait until all are gone."""
        ends = self.hear("ends")["ends"]

        assert ends == [-signal.SIGKILL] * len(self.pids)

    @property
    def troubles(self) -> list[str]:
        """What they have told of their spool so far."""
        return [report["trouble"] for report in self._told if "trouble" in report]

    def lines(self, number: int = 0) -> list[Line]:
        """Return what one of them has captured."""
        return [line for line in self._read(number) if line.key != "tick"]

    def ticks(self, number: int = 0) -> list[float]:
        """Return when a thread of one of them had its turn, which it wants every 5 ms."""
        return [line.at for line in self._read(number) if line.key == "tick"]

    def keys(self) -> set[str]:
        """Return the keys of everything they have captured."""
        return {line.key for number in range(len(self.pids)) for line in self.lines(number)}

    def _read(self, number: int) -> list[Line]:
        rows = self._ledgers[number].read_text().splitlines()
        fields = [row.split() for row in rows]
        return [Line(key, float(at), taken == "1") for key, at, taken in fields]


class Start(Protocol):
    """Starts processes that do `work` with an agent, against the test's backend."""

    def __call__(
        self, work: str, settings: Mapping[str, Any], *, count: int = 1, **more: Any
    ) -> Brood: ...


class Nurseries:
    """Rounds of a test, some at a time, each with a nursery at its disposal.

    Args:
        url: of the backend.
        folder: for ledgers.
        programs: the nurseries.
    """

    def __init__(self, url: str, folder: Path, programs: list[Program]) -> None:
        self._settings = quick_settings(url)
        self._folder = folder
        self._lanes = len(programs)
        self._idle: SimpleQueue[Program] = SimpleQueue()
        for program in programs:
            self._idle.put(program)
        self._serial = 0
        self._lock = threading.Lock()  # guards _serial

    def each(
        self, work: Callable[[Start, T], Result], over: Iterable[T], *, lanes: int = 0
    ) -> list[Result]:
        """Do the work for each, `lanes` at a time, 0 for all; return the results in order."""

        def one(item: T) -> Result:
            nursery = self._idle.get()
            try:
                return work(self._starter(nursery), item)
            finally:
                self._idle.put(nursery)

        with ThreadPoolExecutor(lanes or self._lanes) as pool:
            return list(pool.map(one, over))

    def starts(self) -> list[Start]:
        """Return one for each nursery, for a test that needs several at the same time."""
        return [self._starter(self._idle.get()) for _ in range(self._lanes)]

    def _starter(self, nursery: Program) -> Start:
        def start(work: str, settings: Mapping[str, Any], *, count: int = 1, **more: Any) -> Brood:
            order = {
                "work": work,
                "settings": {**self._settings, **settings},
                "ledgers": [self._ledger() for _ in range(count)],
                "patience": PATIENCE,
                "bursts": 1,
                "events": 0,
                "least": 0,
                "pause": 0.002,
                **more,
            }
            return Brood(nursery, order)

        return start

    def _ledger(self) -> str:
        with self._lock:
            self._serial += 1
            return str(self._folder / f"ledger-{self._serial}")


@pytest.fixture
def nurseries(
    backend: Backend, place: Place, tmp_path: Path
) -> Iterator[Callable[[int], Nurseries]]:
    """Start nurseries; they end with the test."""
    # What agents import when they are made.
    modules = "_pipeline", "transport.http", "spool.durable", f"spool.{place.kind}"
    imports = [f"guardagent.{module}" for module in modules]
    arguments = {"imports": [*imports, *(["redis"] if place.kind == "redis" else [])]}
    with ExitStack() as stack:

        def start(lanes: int) -> Nurseries:
            programs = []
            for _ in range(lanes):
                program = Program(PROGRAMS / "nursery.py", arguments, measured=False)
                stack.callback(_end, program)
                programs.append(program)
            return Nurseries(backend.url, tmp_path, programs)

        yield start


def _end(nursery: Program) -> None:
    outcome = nursery.wait()  # its standard input ends, and so does it
    assert outcome.stderr == ""
