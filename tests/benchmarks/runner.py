"""Rounds of trials, interleaved so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .registry import SERVED_ONLY, SPOOLS, is_installed, subject_class
from .results import Results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Plan", "entrants", "run"]

# What an import of guardagent is compared with: the heaviest of its dependencies.
IMPORT_FLOOR = "cattrs"
YARDSTICKS = ("json", "orjson")
TRIAL_TIMEOUT = 300.0
# Settings of the machine that would change what a subject does or where it sends.
FOREIGN = ("GUARDAGENT_", "SENTRY_", "OTEL_", "POSTHOG_")
# Not a trial of trial.py, whose own imports would be taken off the time.
IMPORT = """
import os, sys
from time import perf_counter
if os.environ["BENCHMARKS_WITHOUT_ORJSON"]:
    sys.modules["orjson"] = None
began = perf_counter()
import {}
imported = perf_counter()
{}
figures = (imported - began) * 1e3, (perf_counter() - began) * 1e3
print('{{"figures": {{"ms": %f, "names_ms": %f}}}}' % figures)
"""


@dataclass(frozen=True)
class Plan:
    """Which trials a run is made of."""

    measures: tuple[str, ...]
    subjects: tuple[str, ...]
    rounds: int
    scale: float
    has_orjson: bool


def run(plan: Plan, port: int, tell: Callable[[str], None]) -> Results:
    """Run the trials of ``plan`` one at a time, against the sink at ``port``."""
    results, environment = Results(), _environment(plan.has_orjson)
    for measure, subject in _interleaved(plan, results, tell):
        command = _command(measure, subject, port, plan.scale)
        answer = _answer(command, environment)
        if "figures" not in answer:
            tell(f"{measure} of {subject}: {answer['reason']}")
        results.add(measure, subject, answer)
    results.derive()
    return results


def entrants(measure: str, subjects: tuple[str, ...]) -> tuple[str, ...]:
    """Choose those of ``subjects`` that a measure is taken of."""
    if measure.startswith("gunicorn-"):
        return tuple(name for name in subjects if name not in ("queue", *YARDSTICKS, *SPOOLS))
    subjects = tuple(name for name in subjects if name not in SERVED_ONLY)
    if measure in ("ready", "start", "delivery"):
        return subjects
    senders = tuple(name for name in subjects if name not in YARDSTICKS)
    if measure == "append":
        return tuple(name for name in subjects if name in ("guardagent", *SPOOLS))
    if measure == "import":
        others = (name for name in senders if name not in SPOOLS)
        return (IMPORT_FLOOR, *(name for name in others if subject_class(name).module))
    return senders


def _interleaved(
    plan: Plan, results: Results, tell: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """Go through all subjects of a measure, then the next measure, then the next round."""
    for number in range(plan.rounds):
        for measure in plan.measures:
            tell(f"round {number + 1} of {plan.rounds}: {measure}")
            for subject in entrants(measure, plan.subjects):
                if not _is_here(subject, plan.has_orjson):
                    results.reasons[measure, subject] = "not installed"
                elif (measure, subject) not in results.reasons:
                    yield measure, subject


def _is_here(subject: str, has_orjson: bool) -> bool:
    if subject == "orjson" and not has_orjson:
        return False
    return is_installed(IMPORT_FLOOR if subject == IMPORT_FLOOR else subject_class(subject).module)


def _command(measure: str, subject: str, port: int, scale: float) -> list[str]:
    if measure == "import":
        return [sys.executable, "-c", IMPORT.format(*_imports(subject))]
    trial = f"{__package__}.trial"
    return [sys.executable, "-m", trial, measure, subject, str(port), str(scale)]


def _imports(subject: str) -> tuple[str, str]:
    if subject == IMPORT_FLOOR:
        return IMPORT_FLOOR, "pass"
    found = subject_class(subject)
    return found.imports or found.module or "", found.names


def _environment(has_orjson: bool) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and not name.lower().endswith("_proxy")
    }
    return kept | {"BENCHMARKS_WITHOUT_ORJSON": "" if has_orjson else "1"}


def _answer(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TRIAL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"reason": "took too long"}
    if done.returncode:
        return {"reason": "failed: " + (done.stderr.strip().splitlines() or ["no word"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
