"""The scripts of `programs`, and how a test starts one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.support.programs import Program

__all__ = ["FORKING", "PROGRAMS", "Run"]

PROGRAMS = Path(__file__).parent / "programs"

#: Python 3.12 warns of any fork beside a thread; the scripts that fork do so on purpose.
FORKING = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


class Run(Protocol):
    """Starts a script against the test's backend; `settings` go on top of the quick ones."""

    def __call__(
        self,
        name: str,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str | None] | None = None,
        flags: tuple[str, ...] = ...,
        measured: bool = ...,
        **arguments: Any,
    ) -> Program: ...
