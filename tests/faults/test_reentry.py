"""Captures that interrupt a capture: finalizers, weak references, signal handlers."""

from __future__ import annotations

import pytest

from tests.faults.scripts import Run
from tests.support.accounts import repeats
from tests.support.backend import Backend

#: Enough for all, so that nothing may be missing.
ROOM = {"timeout": 10.0, "queue_capacity": 1_000_000, "spool_max_records": 1_000_000}


@pytest.mark.parametrize("how", ["del", "weakref", "signal"])
def test_capture_may_interrupt_capture(run: Run, backend: Backend, how: str) -> None:
    """Nothing hangs, and everything that was taken arrives once."""
    outcome = run("reentrant", how=how, settings=ROOM).wait()

    (report,) = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert report["nested"] >= 250
    assert (report["flushed"], report["balanced"]) == (True, True)
    assert set(outcome.captured) == backend.keys
    assert repeats(backend.received) == []


@pytest.mark.parametrize(
    ("where", "count", "stride"), [("capture", 12, 1), ("intake", 40, 3)], ids=["capture", "intake"]
)
def test_capture_may_interrupt_any_bytecode(
    run: Run, backend: Backend, where: str, count: int, stride: int
) -> None:
    """A finalizer that captures runs at each bytecode of capture and of the agent's threads."""
    outcome = run(
        "opcodes", where=where, count=count, stride=stride, settings=ROOM, measured=False
    ).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    (report,) = outcome.reports
    assert report["outer"] == count
    assert report["nested"] + report["refused"] > 500
    assert report["dropped"]["recursive"] == sum(report["dropped"].values()) == report["refused"]
    assert (report["flushed"], report["stopped"], report["balanced"]) == (True, True, True)
    assert set(outcome.captured) == backend.keys
    assert repeats(backend.received) == []


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_capture_may_interrupt_any_bytecode_of_a_full_queue(
    run: Run, backend: Backend, overflow: str
) -> None:
    """The overflow policies can be interrupted too, and the books still balance."""
    settings = {"overflow": overflow, "queue_capacity": 4, "timeout": 10.0}
    outcome = run("opcodes", where="capture", count=12, settings=settings, measured=False).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    (report,) = outcome.reports
    assert (report["flushed"], report["stopped"], report["balanced"]) == (True, True, True)
    assert report["dropped"]["overflow"] == sum(report["dropped"].values()) > 0
    assert report["delivered"] == len(backend.keys)
    assert backend.keys <= set(outcome.captured)
