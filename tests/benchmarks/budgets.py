"""DESIGN 9's budgets, as ratios to a yardstick of the same run where they name one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .results import Results

from .registry import SPOOLS

__all__ = ["Verdict", "verdicts"]

OURS = "guardagent"


@dataclass(frozen=True)
class Verdict:
    """One budget, what was measured, and the yardstick of the same run.

    Attributes:
        what: What is measured and what it is held against.
        measured: The figure, in the unit that ``what`` names.
        yardstick: The figure that it is held against; None for a budget that stands alone.
        value: What is compared with ``budget``.
        budget: The most that ``value`` may be; the least, where ``is_least``.
        is_least: Whether more is better.
    """

    what: str
    measured: float
    yardstick: float | None
    value: float
    budget: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Tell whether the budget is kept."""
        return self.value >= self.budget if self.is_least else self.value <= self.budget


def verdicts(results: Results, *, has_orjson: bool) -> Iterator[Verdict]:
    """Hold guardagent against each budget of which both sides were measured."""
    yield from _ratios(results, 12 if has_orjson else 25)
    yield from _rates(results, 60_000 if has_orjson else 30_000)
    yield from _differences(results)
    yield from _plain_figures(results)
    for framework in ("Flask", "Django"):
        for subject in (OURS, "guardagent-shim"):
            yield from _served(results, framework, subject)
    for spool in SPOOLS:
        yield from _of_spool(results, spool)


def _ratios(results: Results, cpu_us: float) -> Iterator[Verdict]:
    # What, measure and figure; the yardstick's subject, measure and figure; the limit.
    limits = (
        ("capture, p50 us, to a queue put", "ready.p50", "queue", "ready.p50", 2.0),
        ("build and capture, p50 us, to dict and put", "built.p50", "queue", "built.p50", 2.5),
        ("CPU us of a further event, to json.dumps",
         "delivery.further_us", "json", "delivery.further_us", cpu_us / 7),
        ("CPU us of an event, start included, to json.dumps",
         "delivery.cpu_us", "json", "delivery.further_us", cpu_us / 7),
        ("import ms, to import cattrs", "import.ms", "cattrs", "import.ms", 1.2),
    )  # fmt: skip
    for what, measured, subject, yardstick, limit in limits:
        ours, other = _look(results, OURS, measured), _look(results, subject, yardstick)
        if ours is not None and other:
            yield Verdict(what, ours, other, ours / other, limit)


def _rates(results: Results, per_second: float) -> Iterator[Verdict]:
    rate = _look(results, OURS, "delivery.per_second")
    dumps = _look(results, "json", "delivery.per_second")
    if rate is not None and dumps:
        # DESIGN 9 states the rate for a machine where json.dumps takes 7 us.
        what, least = "events a second, to json.dumps a second", per_second * 7 / 1e6
        yield Verdict(what, rate, dumps, rate / dumps, least, is_least=True)


def _differences(results: Results) -> Iterator[Verdict]:
    limits = (
        ("64 steady threads: p99 us beyond a queue put", "steady-64.p99", 50.0),
        ("64 storming threads: p99 us beyond a queue put", "storm-64.p99", 50.0),
        ("idle: wake-ups a second beyond a bare process", "idle.per_second", 0.0),
    )
    for what, figure, limit in limits:
        ours, other = _look(results, OURS, figure), _look(results, "queue", figure)
        if ours is not None and other is not None:
            yield Verdict(what, ours, other, ours - other, limit)


def _plain_figures(results: Results) -> Iterator[Verdict]:
    limits = (
        ("resident bytes of a pending event", "memory.bytes", 700.0),
        ("% of CPU added to a Flask request", "flask.added", 5.0),
    )
    for what, figure, limit in limits:
        ours = _look(results, OURS, figure)
        if ours is not None:
            yield Verdict(what, ours, None, ours, limit)


def _served(results: Results, framework: str, subject: str) -> Iterator[Verdict]:
    # What, its figures with the subject, without one, and the percentage; the limit.
    limits = (
        ("CPU us of a request", "cpu_us", "plain_us", "added", 4.0),
        ("p99 ms", "p99", "plain_p99", "p99_added", 10.0),
    )
    measure = f"gunicorn-{framework.lower()}"
    for what, *figures, limit in limits:
        ours, plain, added = (_look(results, subject, f"{measure}.{name}") for name in figures)
        if ours is not None and added is not None:
            yield Verdict(f"{framework} and {subject}: {what}, % added", ours, plain, added, limit)


def _of_spool(results: Results, spool: str) -> Iterator[Verdict]:
    limits = (
        ("capture, p50 us, to the memory spool", "ready.p50", 1.1),
        ("CPU us of a further event, to the memory spool", "delivery.further_us", 2.0),
    )
    for what, figure, limit in limits:
        durable, memory = _look(results, spool, figure), _look(results, OURS, figure)
        if durable is not None and memory:
            yield Verdict(f"{spool}: {what}", durable, memory, durable / memory, limit)
    rate = _look(results, spool, "append.per_second")
    if rate is not None:
        what = f"{spool}: events a second appended"
        yield Verdict(what, rate, None, rate, 50_000.0, is_least=True)


def _look(results: Results, subject: str, place: str) -> float | None:
    measure, _, figure = place.partition(".")
    return results.middle(measure, subject, figure)
