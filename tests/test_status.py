"""Counters, the snapshot made of them, callbacks, and reports of losses."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest

from guardagent._quiet import MUTED
from guardagent.status import DROP_REASONS, Callbacks, Ledger, Losses, Tally
from guardagent.testing.clock import ManualClock
from tests.scripted import at_each_opcode, in_threads

_LIVE: dict[str, Any] = {
    "pending": 0,
    "in_flight": 0,
    "breaker": "closed",
    "durable": False,
    "spool_bytes": 0,
    "pid": 1,
    "threads_alive": 0,
}


# -- Tally ---------------------------------------------------------------------------------------


def test_tally_counts() -> None:
    """Single ticks and sums add up; adding nothing changes nothing."""
    tally = Tally()

    tally.tick()
    tally.add(41)
    tally.add(0)

    assert tally.value == 42


def test_tally_of_eight_threads_is_exact() -> None:
    """No tick of any thread is lost."""
    tally = Tally()

    def count(_: int) -> None:
        for _ in range(2_000):
            tally.tick()
            tally.add(2)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(8, count)
    finally:
        sys.setswitchinterval(interval)

    assert tally.value == 8 * 2_000 * 3


def test_tally_may_interrupt_itself_at_any_bytecode() -> None:
    """A finalizer or signal handler that counts in the middle of a count loses neither."""
    tally = Tally()

    nested = at_each_opcode([Tally.add], tally.tick, lambda: tally.add(5))

    assert nested > 5
    assert tally.value == 5 + nested


# -- Ledger and Stats ----------------------------------------------------------------------------


def test_snapshot_names_every_reason() -> None:
    """Every reason is there, also those that never occurred."""
    ledger = Ledger()

    ledger.drop("overflow", 3)
    ledger.drop("invalid")
    stats = ledger.snapshot(now=0.0, **_LIVE)

    assert stats.dropped == {**dict.fromkeys(DROP_REASONS, 0), "overflow": 3, "invalid": 1}


def test_snapshot_cannot_be_changed() -> None:
    """Neither the snapshot nor its mapping of losses can be written to."""
    stats = Ledger().snapshot(now=0.0, **_LIVE)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        stats.captured = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.dropped["overflow"] = 1  # type: ignore[index]


def test_snapshot_stays_as_it_was() -> None:
    """What happens later does not show in an earlier snapshot."""
    ledger = Ledger()
    ledger.captured.tick()

    stats = ledger.snapshot(now=0.0, **_LIVE)
    ledger.captured.tick()
    ledger.drop("closed")

    assert (stats.captured, stats.dropped["closed"]) == (1, 0)


@pytest.mark.parametrize(
    ("success_at", "age"), [(None, None), (10.0, 5.0), (15.0, 0.0), (16.0, 0.0)]
)
def test_age_of_the_last_success(success_at: float | None, age: float | None) -> None:
    """It is unknown before the first one, and never negative."""
    ledger = Ledger()
    ledger.last_success_at = success_at

    assert ledger.snapshot(now=15.0, **_LIVE).last_success_age == age


# -- Callbacks -----------------------------------------------------------------------------------


def test_callbacks_get_what_happened() -> None:
    """`on_error` hears stage, exception and context; `on_drop` reason and number."""
    seen: list[tuple[Any, ...]] = []
    callbacks = Callbacks(
        lambda stage, error, context: seen.append((stage, error, context)),
        lambda reason, n: seen.append((reason, n)),
    )
    error = ValueError("x")

    callbacks.error("encode", error, events=3)
    callbacks.drop("overflow", 7)

    assert seen == [("encode", error, {"events": 3}), ("overflow", 7)]


def test_callbacks_are_optional() -> None:
    """Without callbacks nothing happens."""
    callbacks = Callbacks()

    callbacks.error("encode", ValueError())
    callbacks.drop("overflow", 1)

    assert threading.get_ident() not in MUTED


@pytest.mark.parametrize("error", [ValueError("secret-42"), SystemExit(1), KeyboardInterrupt()])
def test_a_callback_that_raises_is_named_in_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raised ends there, and its text, which may hold anything, is not logged."""

    def fail(*args: object) -> None:
        raise error

    callbacks = Callbacks(fail, fail)

    callbacks.error("encode", ValueError())
    callbacks.drop("overflow", 1)

    kind = type(error).__name__
    assert caplog.messages == [
        f"The callback on_error raised {kind}.",
        f"The callback on_drop raised {kind}.",
    ]


def test_a_callback_is_not_heard() -> None:
    """Captures that a callback makes are refused: the agent does not hear itself."""
    muted = []
    callbacks = Callbacks(None, lambda reason, n: muted.append(threading.get_ident() in MUTED))

    callbacks.drop("overflow", 1)

    assert muted == [True]


# -- Losses --------------------------------------------------------------------------------------


class Reports:
    """A ledger whose losses are reported by a manual clock."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.clock = ManualClock()
        self.dropped: list[tuple[str, int]] = []
        callbacks = Callbacks(None, lambda reason, n: self.dropped.append((reason, n)))
        self.losses = Losses(self.ledger, callbacks, self.clock)

    def lose(self, reason: Any, n: int = 1, *, after: float = 0.0) -> None:
        self.clock.advance(after)
        if n:
            self.ledger.drop(reason, n)
        self.losses.report()


def test_the_first_loss_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line with the number and the reason."""
    Reports().lose("overflow", 3)

    assert caplog.messages == ["3 events were lost (overflow), 3 since the start."]
    assert caplog.records[0].levelno == logging.WARNING


def test_losses_are_logged_every_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """Within 30 seconds they are only counted; the next line says how many there were since."""
    reports = Reports()

    reports.lose("overflow")
    for _ in range(29):
        reports.lose("overflow", 10, after=1.0)
    quiet_for_a_while = len(caplog.messages)
    reports.lose("overflow", 5, after=1.0)

    assert quiet_for_a_while == 1
    assert caplog.messages[1:] == ["295 events were lost (overflow), 296 since the start."]


def test_each_reason_has_its_own_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """A loss of another kind is not hidden by the first one."""
    reports = Reports()

    reports.lose("overflow")
    reports.lose("rejected", 2)

    assert caplog.messages == [
        "1 events were lost (overflow), 1 since the start.",
        "2 events were lost (rejected), 2 since the start.",
    ]


def test_end_of_a_period_of_losses_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A line says that the losses are over; the next loss is told at once again."""
    caplog.set_level(logging.INFO)
    reports = Reports()

    reports.lose("overflow")
    reports.lose("overflow", 0, after=30.0)
    reports.lose("overflow", 0, after=30.0)
    reports.lose("overflow", 4)

    assert caplog.messages == [
        "1 events were lost (overflow), 1 since the start.",
        "No more events are being lost (overflow).",
        "4 events were lost (overflow), 5 since the start.",
    ]


def test_on_drop_hears_of_each_loss_once() -> None:
    """The callback is not throttled, and the numbers add up to the losses."""
    reports = Reports()

    reports.lose("overflow", 2)
    reports.lose("overflow", 0)
    reports.lose("overflow", 3)

    assert reports.dropped == [("overflow", 2), ("overflow", 3)]


@pytest.mark.parametrize("reason", ["disabled", "filtered", "recursive"])
def test_what_the_application_asked_for_is_not_logged(
    reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and told to `on_drop`, but it is no loss to warn of."""
    caplog.set_level(logging.INFO)
    reports = Reports()

    reports.lose(reason, 4)
    reports.lose(reason, 0, after=31.0)

    assert caplog.messages == []
    assert reports.dropped == [(reason, 4)]


def test_a_report_from_a_callback_does_not_repeat_itself() -> None:
    """A callback that reports again, through any public method, is told of nothing twice."""
    reports = Reports()
    seen: list[tuple[str, int]] = []

    def on_drop(reason: str, n: int) -> None:
        seen.append((reason, n))
        losses.report()

    losses = Losses(reports.ledger, Callbacks(None, on_drop), reports.clock)
    reports.ledger.drop("overflow", 2)
    losses.report()

    assert seen == [("overflow", 2)]


def test_reports_of_eight_threads_add_up() -> None:
    """Every loss is told exactly once, whoever reports."""
    reports = Reports()
    told: list[int] = []
    on_drop: Callable[[str, int], None] = lambda reason, n: told.append(n)  # noqa: E731
    losses = Losses(reports.ledger, Callbacks(None, on_drop), reports.clock)

    def lose(_: int) -> None:
        for _ in range(200):
            reports.ledger.drop("overflow")
            losses.report()

    in_threads(8, lose)

    assert sum(told) == 1_600


def test_reasons_are_a_closed_set() -> None:
    """A reason nobody knows is an error of ours, not a new name on a dashboard."""
    losses: Mapping[Any, int] = Ledger().losses()

    assert tuple(losses) == DROP_REASONS
    with pytest.raises(KeyError):
        Ledger().drop("whatever")  # type: ignore[arg-type]
