"""Whether the agent is well: what it is judged by, and that it recovers."""

from __future__ import annotations

import itertools
import socket
import threading
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from guardagent import AgentStatus, __version__
from guardagent.health import Health
from guardagent.status import DROP_REASONS, Stats
from guardagent.testing import ManualClock
from tests.conftest import MakeAgent
from tests.scripted import at_each_opcode, config
from tests.support.accounts import capture
from tests.support.answers import Status
from tests.support.backend import Backend


def stats(**given: Any) -> Stats:
    """Return the snapshot of an agent at rest; losses are given by reason."""
    counts = {
        "captured": 0,
        "pending": 0,
        "in_flight": 0,
        "delivered": 0,
        "retried": 0,
        "bytes_sent": 0,
        "breaker": "closed",
        "durable": False,
        "spool_bytes": 0,
        "last_success_age": None,
        "last_error": None,
        "pid": 42,
        "threads_alive": 3,
    }
    lost: dict[str, int] = {reason: given.pop(reason, 0) for reason in DROP_REASONS}
    return Stats(**{**counts, **given}, dropped=MappingProxyType(lost))


class Patient:
    """One agent's health, with a clock to set."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self._health = Health(config(**settings), self.clock)

    def look(self, *, after: float = 0.0, **given: Any) -> AgentStatus:
        """Let some seconds pass, then judge."""
        self.clock.advance(after)
        return self._health.report(stats(**given), {})


# -- what is reported ----------------------------------------------------------------------------


def test_an_agent_at_rest_is_healthy() -> None:
    """Nothing done yet is no reason to worry, however long it lasts."""
    patient = Patient()

    assert patient.look().status == "healthy"
    assert patient.look(after=86_400.0).status == "healthy"


def test_every_field_says_what_it_is_named_for() -> None:
    """Counts as given, times as on the wire, versions of the settings."""
    clock = ManualClock()
    health = Health(config(guard_version="7.0.0", guard_core_version="3.1.0"), clock)
    clock.advance(90.5)
    now = stats(
        delivered=900,
        pending=7,
        overflow=3,
        expired=2,
        last_success_age=30.5,
        durable=True,
        spool_bytes=3_500,
        rules_id="shop",
        rules_version=8,
        rules_age=12.5,
        rules_stale=True,
    )

    report = health.report(now, {"overflow": 1})

    assert attrs.asdict(report) == {
        "timestamp": "2027-01-15T08:01:30.500000+00:00",
        "status": "healthy",
        "uptime": 90.5,
        "events_sent": 900,
        "events_failed": 5,
        "buffer_size": 7,
        "last_flush": "2027-01-15T08:01:00.000000+00:00",
        "errors": [],
        "dropped": {"overflow": 1},
        "breaker": "closed",
        "durable": True,
        "spool_bytes": 3_500,
        "rules_id": "shop",
        "rules_version": 8,
        "rules_age": 12.5,
        "rules_stale": True,
        "agent_version": __version__,
        "guard_version": "7.0.0",
        "guard_core_version": "3.1.0",
        "pid": 42,
        "hostname": socket.gethostname(),
    }


def test_what_is_not_known_is_none() -> None:
    """No success, no rules, no versions."""
    report = Patient().look()

    assert (report.last_flush, report.rules_version, report.rules_age) == (None, None, None)
    assert (report.guard_version, report.guard_core_version) == (None, None)


@pytest.mark.parametrize("reason", sorted({"disabled", "filtered", "recursive"}))
def test_what_was_asked_for_is_no_failure(reason: str) -> None:
    """What `before_send` filters is not lost."""
    report = Patient().look(**{reason: 100})

    assert (report.status, report.events_failed, report.errors) == ("healthy", 0, [])


@pytest.mark.parametrize(
    "reason", sorted(set(DROP_REASONS) - {"disabled", "filtered", "recursive"})
)
def test_every_other_loss_is_a_failure(reason: str) -> None:
    """Whatever its reason."""
    report = Patient().look(**{reason: 2})

    assert (report.status, report.events_failed) == ("degraded", 2)


# -- degraded ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delivered", "lost", "status"),
    [(90, 10, "healthy"), (89, 10, "degraded"), (0, 1, "degraded"), (100, 0, "healthy")],
)
def test_losses_of_more_than_a_tenth(delivered: int, lost: int, status: str) -> None:
    """A tenth itself is not yet too much (WIRE.md 3)."""
    report = Patient().look(delivered=delivered, overflow=lost)

    expected = (
        [] if status == "healthy" else [f"{lost} of the last {delivered + lost} events were lost"]
    )
    assert (report.status, report.errors) == (status, expected)


@pytest.mark.parametrize(("pending", "status"), [(899, "healthy"), (900, "degraded")])
def test_a_spool_that_is_nearly_full(pending: int, status: str) -> None:
    """From nine tenths on (WIRE.md 3)."""
    report = Patient(spool_max_records=1_000).look(pending=pending)

    expected = [] if status == "healthy" else ["900 events are pending"]
    assert (report.status, report.errors) == (status, expected)


@pytest.mark.parametrize("breaker", ["open", "half_open"])
def test_a_breaker_that_is_not_closed(breaker: str) -> None:
    """Delivery is waiting."""
    report = Patient().look(breaker=breaker, last_success_age=5.0)

    assert report.status == "degraded"
    assert report.errors == [f"the circuit breaker is {breaker}"]


def test_the_last_error_is_told() -> None:
    """As long as there was no success since."""
    report = Patient().look(last_error="HTTP 401: the key is refused", last_success_age=9.0)

    assert report.status == "degraded"
    assert report.errors == ["HTTP 401: the key is refused"]


def test_every_reason_is_told() -> None:
    """One line each."""
    report = Patient(spool_max_records=10).look(
        breaker="open", last_error="refused", overflow=1, pending=10
    )

    assert len(report.errors) == 4


# -- failed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "status"), [(299.0, "degraded"), (300.0, "failed"), (90_000.0, "failed")]
)
def test_an_outage_of_five_minutes(age: float, status: str) -> None:
    """Nothing was accepted for so long, and the breaker says why."""
    report = Patient().look(after=100_000.0, breaker="open", last_success_age=age)

    assert report.status == status


@pytest.mark.parametrize(("uptime", "status"), [(299.0, "degraded"), (300.0, "failed")])
def test_an_outage_from_the_start(uptime: float, status: str) -> None:
    """Without any success the time counts from the start."""
    assert Patient().look(after=uptime, breaker="half_open").status == status


def test_a_quiet_agent_has_not_failed() -> None:
    """Nothing to deliver for hours is no outage while the breaker is closed."""
    assert Patient().look(after=100_000.0, last_success_age=90_000.0).status == "healthy"


# -- recovery ------------------------------------------------------------------------------------


def test_health_recovers() -> None:
    """Losses are forgotten after five minutes, not averaged over a life (FIELD O3)."""
    patient = Patient()
    patient.look(delivered=0, overflow=1_000)

    within = [patient.look(after=60.0, delivered=n, overflow=1_000).status for n in range(1, 5)]
    after = [patient.look(after=60.0, delivered=n, overflow=1_000).status for n in range(5, 9)]

    assert within == ["degraded"] * 4
    assert after[-1] == "healthy"


def test_an_old_success_does_not_hide_new_losses() -> None:
    """A million delivered yesterday says nothing of today."""
    patient = Patient()
    for _ in range(12):
        patient.look(after=60.0, delivered=1_000_000)

    report = patient.look(after=60.0, delivered=1_000_000, overflow=5)

    assert report.status == "degraded"
    assert report.errors == ["5 of the last 5 events were lost"]


@pytest.mark.parametrize("interval", [0.25, 1.0, 30.0, 270.0, 330.0])
def test_recovery_at_any_interval(interval: float) -> None:
    """However often or seldom it is asked, it does not stay degraded, nor forget at once."""
    patient = Patient()
    patient.look(after=interval, overflow=1_000)
    first = patient.look(after=interval, overflow=1_000).status if interval < 300.0 else "degraded"

    for _ in range(int(660.0 / interval) + 2):
        last = patient.look(after=interval, overflow=1_000).status

    assert (first, last) == ("degraded", "healthy")


def test_memory_is_bounded() -> None:
    """Somebody may ask in every request of his own."""
    patient = Patient()
    for _ in range(1_200):
        patient.look(after=1.0, delivered=1)

    assert len(patient._health._marks) <= 1_000


@pytest.mark.parametrize("number", range(0, 90, 6))
def test_two_threads_may_ask_at_once(number: int) -> None:
    """Whichever bytecode of one the other comes between, both judge by the whole window."""
    clock = ManualClock()
    health = Health(config(), clock)
    clock.advance(1.0)
    health.report(stats(), {})
    clock.advance(400.0)
    count = itertools.count()
    threads: list[threading.Thread] = []
    seen: list[AgentStatus] = []

    def ask() -> None:
        seen.append(health.report(stats(overflow=10), {}))

    def ask_elsewhere() -> None:
        if next(count) == number:
            threads.append(threading.Thread(target=ask))
            threads[0].start()
            threads[0].join(0.05)  # it is through, or waits for the first one

    at_each_opcode([Health._recent], ask_elsewhere, ask)
    for thread in threads:
        thread.join(20.0)

    assert len(seen) == 1 + len(threads)
    assert {report.status for report in seen} == {"degraded"}


# -- of a real agent -----------------------------------------------------------------------------


def test_an_agent_recovers_with_its_backend(backend: Backend, make_agent: MakeAgent) -> None:
    """Degraded while the backend fails, healthy once it has accepted everything."""
    backend.default = Status(500)
    agent = make_agent(retry_attempts=0)
    agent.start()
    capture(agent, 3)
    assert backend.wait_for_requests(1)
    agent.flush(timeout=0.3)

    ill = agent.status()
    backend.default = Status(201)
    flushed = agent.flush(timeout=20.0)
    well = agent.status()

    assert flushed
    assert (ill.status, ill.buffer_size) == ("degraded", 3)
    assert ill.errors != []
    assert (well.status, well.errors, well.buffer_size) == ("healthy", [], 0)
    assert (well.events_sent, well.events_failed) == (3, 0)
    assert well.last_flush is not None
