"""Runs a small script as a real process, and says how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Outcome", "Program"]

#: Longer than any script may take; one that hangs is killed and fails its test.
_PATIENCE = 60.0


@attrs.frozen
class Outcome:
    """How a process ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The JSON lines the script and its children printed."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    @property
    def captured(self) -> list[str]:
        """The keys of every event that the script and its children say they captured."""
        return [key for report in self.reports for key in report.get("captured", ())]


class Program:
    """A running script.

    Args:
        path: the script.
        arguments: JSON settings it is given as its only argument.
        environ: variables on top of this process's own; None removes one.
        flags: options of the interpreter.
        measured: False keeps coverage out, for scripts that set a trace function of their own.
    """

    def __init__(
        self,
        path: Path,
        arguments: Mapping[str, Any],
        *,
        environ: Mapping[str, str | None] | None = None,
        flags: tuple[str, ...] = ("-W", "error"),
        measured: bool = True,
    ) -> None:
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *flags, str(path), json.dumps(arguments)],
            env=_environment(environ or {}, measured),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def read_report(self) -> dict[str, Any]:
        """Wait for the script's next line of JSON; to know how far it is."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended before it reported: {self.wait()}")
        report: dict[str, Any] = json.loads(line)
        return report

    def tell(self, word: str = "go") -> None:
        """Send a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = _PATIENCE) -> Outcome:
        """Wait for its end.

        Raises:
            AssertionError: it did not end, and was killed with its children.
        """
        try:
            stdout, stderr = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: children too
            stdout, stderr = self._process.communicate()
            raise AssertionError(
                f"did not end in {timeout} s: {stdout[-2000:]}{stderr[-4000:]}"
            ) from None
        seconds = time.monotonic() - self._started
        return Outcome(self._process.returncode, stdout, stderr, seconds)


def _environment(changes: Mapping[str, str | None], measured: bool) -> dict[str, str]:
    environ = dict(os.environ)
    if not measured:
        changes = {**changes, "COVERAGE_PROCESS_START": None, "COVERAGE_PROCESS_CONFIG": None}
    for name, value in changes.items():
        environ.pop(name, None)
        if value is not None:
            environ[name] = value
    return environ
