"""What a worker is told in its environment: whom it reports to, and how it is measured."""

from __future__ import annotations

import gc
import os
import sys
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from tests.benchmarks.process import cpu_seconds

if TYPE_CHECKING:
    from tests.benchmarks.subjects.subject import Subject

__all__ = ["NO_EVENT", "begun", "environment", "hired", "settled"]

# The status of an answer that no middleware is told to capture.
NO_EVENT = 202


def environment(subject: Subject, port: int) -> dict[str, str]:
    """Say in variables what ``hired`` makes a like subject of, in another process."""
    kind = type(subject)
    place = f"{kind.__module__}:{kind.__qualname__}"
    return {**os.environ, "BENCHMARKS_SUBJECT": place, "BENCHMARKS_SINK": str(port)}


def hired() -> Subject:
    """Set up the subject that the environment names; before anything of its is imported."""
    if os.environ.get("BENCHMARKS_WITHOUT_ORJSON"):
        sys.modules["orjson"] = None  # type: ignore[assignment]
    subject: Subject = resolve_name(os.environ["BENCHMARKS_SUBJECT"])()
    subject.setup(int(os.environ["BENCHMARKS_SINK"]))
    return subject


def begun(subject: Subject) -> str:
    """Deliver what was captured, clear up after the start, and tell the CPU seconds up to then.

    The start leaves behind what a full collection of garbage takes some 50 ms for, at whatever
    request it happens to fall due.
    """
    subject.flush()
    gc.collect()
    return repr(cpu_seconds())


def settled(subject: Subject) -> str:
    """Deliver what was captured, and tell the CPU seconds of this process up to then."""
    subject.flush()
    return repr(cpu_seconds())
