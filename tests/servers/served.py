"""A server in processes of its own: asked, told to end, and held to its journal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from tests.support.ports import free_port

__all__ = ["APPLICATIONS", "Ended", "Line", "Served", "script"]

APPLICATIONS = Path(__file__).parent / "applications"

#: Longer than any server may take to start, to answer or to end on a busy machine.
_PATIENCE = 60.0
_TICK = 0.02


@attrs.frozen
class Line:
    """A line of the journal: what one call captured, where and when."""

    pid: int
    when: str
    keys: Sequence[str]


@attrs.frozen
class Ended:
    """How a server ended.

    Args:
        status: of its first process.
        log: its standard output and error.
        seconds: for which its end was waited for.
    """

    status: int
    log: str
    seconds: float


class Served:
    """A server that runs while it is entered.

    Args:
        command: its words; "{port}" stands for the port it listens on.
        given: what the application is told, in the variable SERVED.
        folder: for the journal, the gate and the log; nothing else is in it.
        environ: further variables.
    """

    def __init__(
        self,
        command: Sequence[str],
        given: Mapping[str, Any],
        folder: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self._command = [word.format(port=self.port) for word in command]
        self._journal, self._gate, self._log = (
            folder / "journal", folder / "gate", folder / "log"
        )  # fmt: skip
        given = {"journal": str(self._journal), "gate": str(self._gate), **given}
        self._environ = {
            **{name: value for name, value in os.environ.items() if "COVERAGE" not in name},
            "PYTHONPATH": os.pathsep.join([str(APPLICATIONS), os.environ.get("PYTHONPATH", "")]),
            "SERVED": json.dumps(given),
            **(environ or {}),
        }
        self._late: list[threading.Thread] = []

    def __enter__(self) -> Served:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._journal.parent,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gate.touch()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: workers too
        self._process.wait(_PATIENCE)
        for thread in self._late:
            thread.join(_PATIENCE)

    # -- what is asked of it -----------------------------------------------------------------------

    def visit(self, workers: int = 1, path: str = "/", count: int = 10) -> None:
        """Ask for pages, at least `count` and until so many processes have answered."""
        self._wait(self._is_listening, "it listens")
        answers: Counter[int] = Counter()
        deadline = time.monotonic() + _PATIENCE
        while len(answers) < workers or answers.total() < count:
            assert time.monotonic() < deadline, f"only {answers} answered: {self.log}"
            batch = [
                threading.Thread(target=self._ask_into, args=(path, answers)) for _ in range(4)
            ]
            for thread in batch:
                thread.start()
            for thread in batch:
                thread.join()

    def visit_late(self) -> None:
        """Begin a request that is answered only after the server was told to end."""
        thread = threading.Thread(target=self._ask, args=("/slow",))
        thread.start()
        self._late.append(thread)
        self.wait_for("waiting")

    def wait_for(self, when: str, count: int = 1) -> None:
        """Wait until the journal has so many lines of this kind."""
        self._wait(lambda: [one.when for one in self.journal].count(when) >= count, when)

    def end(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Tell the server to end, and wait until it has."""
        self._process.send_signal(number)
        self._gate.touch()
        return self.wait()

    def wait(self) -> Ended:
        """Wait for its end."""
        began = time.monotonic()
        try:
            status = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.log}") from None
        return Ended(status, self.log, time.monotonic() - began)

    # -- what there is to see ----------------------------------------------------------------------

    @property
    def journal(self) -> list[Line]:
        """Everything that was captured, by the processes' own account."""
        if not self._journal.exists():
            return []
        lines = self._journal.read_text("utf-8").splitlines()
        return [Line(**json.loads(line)) for line in lines]

    @property
    def captured(self) -> list[str]:
        """The keys of all that was captured."""
        return [key for line in self.journal for key in line.keys]

    @property
    def log(self) -> str:
        """What the server has printed."""
        return self._log.read_text("utf-8", "replace")

    # -- how ---------------------------------------------------------------------------------------

    def _wait(self, met: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not met():
            assert self._process.poll() is None, f"it ended before: {what}: {self.log}"
            assert time.monotonic() < deadline, f"it never came to this: {what}: {self.log}"
            time.sleep(_TICK)

    def _is_listening(self) -> bool:
        try:
            self._ask("/idle")
        except OSError:
            return False
        return True

    def _ask_into(self, path: str, answers: Counter[int]) -> None:
        answers[self._ask(path)] += 1

    def _ask(self, path: str) -> int:
        """Ask for a page; return the process that answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request("GET", path)
            pid: int = json.loads(connection.getresponse().read())["pid"]
            return pid
        finally:
            connection.close()


def script(name: str) -> str:
    """Return the path of a program that a package has installed beside the interpreter."""
    return str(Path(sys.executable).with_name(name))
