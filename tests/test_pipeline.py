"""The rooms wired together: work in the calling thread, last rounds, the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardagent import Agent, SecurityEvent
from guardagent._clock import SYSTEM_CLOCK
from guardagent._pipeline import Pipeline
from guardagent.errors import RejectedError, SpoolError, TooLargeError, TransientError
from guardagent.spool.protocol import Batch
from guardagent.status import Stats
from guardagent.transport.protocol import Receipt
from tests.scripted import (
    OUTAGE,
    PATIENCE,
    Held,
    ScriptedTransport,
    config,
    in_threads,
    told,
)

Make = Callable[..., Agent]


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
def make(transport: ScriptedTransport) -> Iterator[Make]:
    """Build agents that deliver to `transport`; all are stopped at the end."""
    agents: list[Agent] = []

    def build(**settings: Any) -> Agent:
        agents.append(Agent(config(**settings), transport=transport))
        return agents[-1]

    yield build
    for agent in agents:
        agent.stop(timeout=1.0)


@pytest.fixture
def no_threads(make: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every new thread, as 3.12 does at the end of the interpreter."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def event() -> SecurityEvent:
    return SecurityEvent(event_type="probe")


def pipeline(agent: Agent) -> Pipeline:
    return agent._pipeline


def assert_balanced(stats: Stats) -> None:
    assert stats.captured == stats.delivered + stats.pending + sum(stats.dropped.values()), stats


# -- where no thread can be started --------------------------------------------------------------


def test_flush_works_in_the_calling_thread(
    make: Make, transport: ScriptedTransport, no_threads: None
) -> None:
    """Capture raises nothing, and flush does all the work itself (FIELD S10)."""
    agent = make(flush_interval=3_600.0)

    taken = [agent.capture(event()) for _ in range(250)]
    flushed = agent.flush(timeout=PATIENCE)

    assert (set(taken), flushed) == ({True}, True)
    assert len(transport.accepted) == 250
    assert agent.stats().threads_alive == 0


def test_flush_in_the_calling_thread_gives_up(
    make: Make, transport: ScriptedTransport, no_threads: None
) -> None:
    """It keeps to its time, and to the pauses between attempts."""
    transport.default = OUTAGE
    agent = make()
    agent.capture(event())

    assert agent.flush(timeout=0.05) is False
    assert agent.stats().pending == 1


def test_stop_works_in_the_calling_thread(
    make: Make, transport: ScriptedTransport, no_threads: None
) -> None:
    """Everything is delivered, once."""
    agent = make(flush_interval=3_600.0)
    for _ in range(5):
        agent.capture(event())

    assert agent.stop() is True
    assert len(transport.accepted) == 5
    assert_balanced(agent.stats())


def test_stop_in_the_calling_thread_makes_one_attempt(
    make: Make, transport: ScriptedTransport, no_threads: None
) -> None:
    """What fails is left behind, and counted."""
    transport.default = OUTAGE
    agent = make(flush_interval=3_600.0)
    agent.capture(event())

    assert agent.stop(timeout=PATIENCE) is False
    assert len(transport.sent) == 1
    assert agent.stats().dropped["shutdown"] == 1


def test_threads_that_flush_together_take_turns(
    make: Make, transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done by two threads at once, and all of it is done."""
    inside: list[int] = []

    def alone(batch: Batch) -> Receipt:
        inside.append(1)
        assert len(inside) == 1
        inside.pop()
        return Receipt()

    transport.default = alone
    agent = make(flush_interval=3_600.0)
    with monkeypatch.context() as patch:
        patch.setattr("guardagent._loop.Loop.ensure", lambda self: False)

        def work(_: int) -> bool:
            agent.capture(event())
            return agent.flush(timeout=PATIENCE)

        flushed = in_threads(6, work)

    assert flushed == [True] * 6
    assert len(transport.accepted) == 6


def test_a_flush_that_gets_no_turn_gives_up(
    make: Make, transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another thread works, it waits no longer than it was told to."""
    held = Held()
    transport.script(held)
    agent = make(flush_interval=3_600.0)
    with monkeypatch.context() as patch:
        patch.setattr("guardagent._loop.Loop.ensure", lambda self: False)
        agent.capture(event())
        first = threading.Thread(target=lambda: agent.flush(timeout=PATIENCE))
        first.start()
        assert held.reached.wait(PATIENCE)
        agent.capture(event())

        second = agent.flush(timeout=0.01)
        held.let_go()
        first.join(PATIENCE)

    assert second is False


@pytest.mark.parametrize("which", ["_drains", "_delivers"])
def test_one_thread_alone_is_helped(
    make: Make, transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """The calling thread does the work of the one that cannot be started, and only that."""
    agent = make(flush_interval=3_600.0)
    agent.capture(event())
    assert agent.flush(timeout=PATIENCE)
    loop = getattr(pipeline(agent), which)
    loop.end()
    assert loop.join(PATIENCE)

    agent.capture(event())

    assert agent.flush(timeout=PATIENCE) is True
    assert len(transport.accepted) == 2


@pytest.mark.parametrize("method", ["append", "claim"])
def test_what_a_turn_raises_stays_inside(
    make: Make, transport: ScriptedTransport, no_threads: None, method: str
) -> None:
    """Neither flush nor stop raise it, in whichever thread the work is done (FIELD S8)."""
    errors: list[BaseException] = []
    agent = make(on_error=lambda stage, error, context: errors.append(error))
    agent.capture(event())
    spool = pipeline(agent)._rooms.spool
    working = getattr(spool, method)

    def fail(*args: Any) -> Any:
        setattr(spool, method, working)
        raise SpoolError("the disk is full")

    setattr(spool, method, fail)

    assert agent.flush(timeout=PATIENCE) is True
    assert agent.stop() is True
    assert [type(error) for error in errors] == [SpoolError]
    assert_balanced(agent.stats())


# -- last rounds ---------------------------------------------------------------------------------


def test_two_last_rounds_at_once(make: Make, transport: ScriptedTransport) -> None:
    """An exit in the middle of a stop raises nothing and leaves that stop alone."""
    held = Held()
    transport.script(held)
    agent = make(flush_interval=3_600.0)
    agent.capture(event())
    begun = told(pipeline(agent)._rooms.delivery, "hurry")
    stopped: list[bool] = []
    thread = threading.Thread(target=lambda: stopped.append(agent.stop(timeout=PATIENCE)))
    thread.start()
    assert begun.wait(PATIENCE)
    assert held.reached.wait(PATIENCE)

    deadline = pipeline(agent)._clock.monotonic() + 0.05
    pipeline(agent).begin_farewell(deadline)
    settled = pipeline(agent).await_farewell(deadline)
    pipeline(agent).end_farewell(is_exit=True)
    held.let_go()
    thread.join(PATIENCE)

    assert settled is False
    assert stopped == [True]
    assert len(transport.accepted) == 1


def test_a_round_that_was_not_the_end(make: Make, transport: ScriptedTransport) -> None:
    """What failed in it is kept in its order and delivered afterwards."""
    transport.default = OUTAGE
    agent = make(flush_interval=3_600.0, max_batch_size=1)
    events = [event() for _ in range(3)]
    for one in events:
        agent.capture(one)
    deadline = pipeline(agent)._clock.monotonic() + PATIENCE

    pipeline(agent).begin_farewell(deadline)
    settled = pipeline(agent).await_farewell(deadline)
    transport.default = Receipt()
    pipeline(agent).end_farewell(is_exit=False)

    assert settled is False
    assert agent.flush(timeout=PATIENCE)
    assert transport.accepted == [one.idempotency_key for one in events]


def test_an_idle_pipeline_needs_no_round(make: Make, transport: ScriptedTransport) -> None:
    """It is over before it began."""
    agent = make()

    pipeline(agent).begin_farewell(0.0)

    assert pipeline(agent).await_farewell(0.0) is True
    pipeline(agent).end_farewell(is_exit=False)
    assert transport.sent == []


def test_split_in_the_last_round(make: Make, transport: ScriptedTransport) -> None:
    """Halves are batches of their own, with an attempt each."""

    def one_by_one(batch: Batch) -> Receipt:
        if len(batch) > 1:
            raise TooLargeError("HTTP 413", status=413)
        return Receipt()

    transport.default = one_by_one
    agent = make(flush_interval=3_600.0, buffer_size=100)
    for _ in range(5):
        agent.capture(event())

    assert agent.stop(timeout=PATIENCE) is True
    assert len(transport.accepted) == 5


def test_capture_during_the_last_round_is_refused(make: Make, transport: ScriptedTransport) -> None:
    """From the first moment of a stop on."""
    held = Held()
    transport.script(held)
    agent = make(flush_interval=3_600.0)
    agent.capture(event())
    thread = threading.Thread(target=lambda: agent.stop(timeout=PATIENCE))
    thread.start()
    assert held.reached.wait(PATIENCE)

    taken = agent.capture(event())
    held.let_go()
    thread.join(PATIENCE)

    assert taken is False
    assert agent.stats().dropped["closed"] == 1
    assert_balanced(agent.stats())


def test_soft_refusals_in_the_last_round(make: Make, transport: ScriptedTransport) -> None:
    """A hiccup gets no second attempt there: it is left behind."""
    transport.default = RejectedError("HTTP 200, but not successful", status=200, final=False)
    agent = make(flush_interval=3_600.0)
    agent.capture(event())

    assert agent.stop(timeout=PATIENCE) is False
    assert len(transport.sent) == 1
    assert agent.stats().dropped["shutdown"] == 1


# -- losses --------------------------------------------------------------------------------------


def test_losses_are_told_without_further_captures(make: Make, transport: ScriptedTransport) -> None:
    """`on_drop` is called on the agent's thread, soon after, although nothing else happens."""
    heard = threading.Event()
    names: list[str] = []

    def on_drop(reason: str, n: int) -> None:
        names.append(threading.current_thread().name)
        heard.set()

    agent = make(on_drop=on_drop)

    agent.capture("nonsense")

    assert heard.wait(PATIENCE)
    assert names[0].startswith("guardagent-")


def test_an_overflow_is_one_line(
    make: Make, transport: ScriptedTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """However many events it costs (FIELD Q2)."""
    caplog.set_level(logging.INFO)
    held = Held()
    transport.script(held)
    agent = make(spool_max_records=10, buffer_size=1, overflow="drop_oldest")
    agent.capture(event())
    assert held.reached.wait(PATIENCE)

    for _ in range(20):
        for _ in range(20):
            agent.capture(event())
        pipeline(agent)._rooms.drain_bell.ring()
    held.let_go()
    agent.flush(timeout=PATIENCE)
    agent.stop()

    lines = [line for line in caplog.messages if "(overflow)" in line]
    assert agent.stats().dropped["overflow"] > 300
    assert len(lines) == 1


def test_retries_are_counted(transport: ScriptedTransport) -> None:
    """The transport is handed what counts them, and what to wait on."""
    hooks: dict[str, Any] = {}

    def make_transport(**given: Any) -> ScriptedTransport:
        hooks.update(given)
        return transport

    line = Pipeline(config(), make_transport, SYSTEM_CLOCK, has_control=False)
    hooks["on_retry"]()
    hooks["on_retry"]()
    waited = hooks["pause"](0.0)
    line.close(timeout=0.0)

    assert (line.stats().retried, waited) == (2, True)
    assert hooks["pause"](60.0) is False


def test_small_buffers_are_quick(make: Make, transport: ScriptedTransport) -> None:
    """Who asks for one event at a time gets it without the wait for company."""
    agent = make(buffer_size=1, flush_interval=3_600.0)

    agent.capture(event())

    assert transport.wait_for(1)


def test_order_is_kept(make: Make, transport: ScriptedTransport) -> None:
    """Through queue, slices, batches, failures and halves."""
    transport.script(OUTAGE, TransientError("HTTP 429", status=429, outage=False), ValueError())
    agent = make(buffer_size=1, max_batch_size=7)
    events = [event() for _ in range(300)]

    for one in events:
        agent.capture(one)
    agent.flush(timeout=PATIENCE)

    assert transport.accepted == [one.idempotency_key for one in events]


def test_a_closed_pipeline_starts_nothing(make: Make) -> None:
    """Whoever looked before the end and wakes its threads after it wakes nobody."""
    agent = make()
    agent.stop()

    pipeline(agent).start()
    pipeline(agent).start_intake()

    assert agent.stats().threads_alive == 0
