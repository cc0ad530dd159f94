"""What an application holds: capture, flush, stop, stats."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from guardagent import Agent, BufferFull, SecurityEvent, SecurityMetric
from guardagent._quiet import quiet
from guardagent.encoding import record_key
from guardagent.errors import RejectedError, TransientError
from guardagent.spool.protocol import Batch
from guardagent.status import Stats
from guardagent.transport.protocol import Receipt
from tests.conftest import MakeAgent
from tests.scripted import (
    OUTAGE,
    PATIENCE,
    Held,
    ScriptedTransport,
    at_each_opcode,
    config,
    in_threads,
    once_at,
    told,
)
from tests.support.backend import Backend

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


def event(**fields: Any) -> SecurityEvent:
    return SecurityEvent(**{"event_type": "probe", **fields})


def dropped(agent: Agent) -> dict[str, int]:
    return {reason: n for reason, n in agent.stats().dropped.items() if n}


def assert_balanced(stats: Stats) -> None:
    assert stats.captured == stats.delivered + stats.pending + sum(stats.dropped.values()), stats


def threads() -> list[str]:
    return sorted(one.name for one in threading.enumerate() if one.name.startswith("guardagent"))


# -- capture -------------------------------------------------------------------------------------


def test_captured_event_is_delivered(make: Make, transport: ScriptedTransport) -> None:
    """Capture says that it was taken; the event arrives with its key."""
    agent = make()
    one = event()

    taken = agent.capture(one)

    assert taken is True
    assert transport.wait_for(1)
    assert transport.accepted == [one.idempotency_key]


def test_constructing_starts_nothing(make: Make) -> None:
    """The first capture does, or `start`."""
    agent = make()
    before = threads()

    agent.capture(event())
    agent.flush(timeout=PATIENCE)

    assert before == []
    assert threads() == ["guardagent-delivery", "guardagent-intake"]
    assert agent.stats().threads_alive == 2


def test_start_is_idempotent(make: Make) -> None:
    """A second one changes nothing."""
    agent = make()

    agent.start()
    agent.start()
    agent.capture(event())
    agent.flush(timeout=PATIENCE)

    assert threads() == ["guardagent-delivery", "guardagent-intake"]


def test_with_block_starts_and_stops(transport: ScriptedTransport) -> None:
    """What was captured inside is delivered at its end."""
    with Agent(config(flush_interval=3_600.0), transport=transport) as agent:
        started = threads()
        agent.capture(event())

    assert len(started) == 2
    assert (len(transport.accepted), threads()) == (1, [])


def test_with_block_lets_exceptions_pass(transport: ScriptedTransport) -> None:
    """The application's own are none of the agent's business."""
    with pytest.raises(KeyError), Agent(config(), transport=transport) as agent:  # noqa: PT012
        agent.capture(event())
        raise KeyError

    assert len(transport.accepted) == 1


def test_every_form_of_event(make: Make, transport: ScriptedTransport) -> None:
    """Events, metrics, mappings and objects with such fields are all taken."""
    agent = make()
    forms: list[Any] = [
        event(),
        SecurityMetric(metric_type="block_rate", value=0.5),
        {"event_type": "probe", "unknown": 1},
        {"metric_type": "block_rate", "value": 1},
        MappingProxyType({"event_type": "probe"}),
        SimpleNamespace(event_type="probe", ip_address="203.0.113.7"),
        SimpleNamespace(metric_type="block_rate", value=2.0),
    ]

    taken = [agent.capture(form) for form in forms]

    assert taken == [True] * 7
    assert agent.flush()
    assert sorted({sent.kind for sent in transport.sent}) == ["events", "metrics"]
    assert len(transport.accepted) == 7
    assert_balanced(agent.stats())


class Event(SecurityEvent):
    """An application's own."""


def test_subclass_of_an_event(make: Make, transport: ScriptedTransport) -> None:
    """It is an event like any other."""
    agent = make()

    assert agent.capture(Event(event_type="probe"))
    assert agent.flush()
    assert len(transport.accepted) == 1


class Hostile:
    """An object that answers every question with an exception."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [], {}, {"event_type": ""}, {"metric_type": "x", "value": 1}, Hostile()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_event_is_refused(
    make: Make, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It raises nothing, is counted, and is said once."""
    agent = make()

    taken = [agent.capture(value), agent.capture(value)]

    assert taken == [False, False]
    assert dropped(agent) == {"invalid": 2}
    lines = [line for line in caplog.messages if line.startswith("An event could not be taken")]
    assert len(lines) == 1
    assert_balanced(agent.stats())


def test_kinds_of_mistakes_are_said_once_each(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Up to a hundred, and never with the value."""
    agent = make()

    for n in range(150):
        kind = type(f"Mistake{n}", (Exception,), {})

        class Source:
            @property
            def event_type(self) -> str:
                raise kind("secret-42")  # noqa: B023

        agent.capture(Source())

    lines = [line for line in caplog.messages if line.startswith("An event could not be taken")]
    assert len(lines) == 100
    assert "secret-42" not in caplog.text


def test_a_field_spoilt_after_construction(make: Make, transport: ScriptedTransport) -> None:
    """It is mended or dropped on the agent's thread, and its neighbours arrive."""
    agent = make()
    bad, worse, good = event(), SecurityMetric(metric_type="block_rate", value=1.0), event()
    bad.reason = 7  # type: ignore[assignment]
    worse.value = "x"  # type: ignore[assignment]

    assert [agent.capture(one) for one in (bad, worse, good)] == [True] * 3
    assert agent.flush()

    assert transport.accepted == [bad.idempotency_key, good.idempotency_key]
    assert dropped(agent) == {"unencodable": 1}


def test_later_changes_do_not_count(make: Make, transport: ScriptedTransport) -> None:
    """What is sent is what was captured (FIELD N5)."""
    agent = make(flush_interval=3_600.0)
    nested = {"inner": [1]}
    one = event(metadata={"nested": nested})

    agent.capture(one)
    nested["inner"].append(2)
    one.metadata["late"] = True
    one.reason = "late"
    agent.flush()

    body = transport.sent[0].bodies[0]
    assert b'"inner":[1]' in body
    assert b"late" not in body


def test_the_same_event_twice_has_one_key(make: Make, transport: ScriptedTransport) -> None:
    """Identity belongs to the event from its first capture on."""
    agent = make()
    one = event()

    agent.capture(one)
    agent.capture(one)
    agent.flush()

    assert transport.accepted == [one.idempotency_key] * 2


@pytest.mark.parametrize("switch", ["enable_events", "enable_metrics"])
def test_a_kind_can_be_switched_off(make: Make, transport: ScriptedTransport, switch: str) -> None:
    """It is refused and counted; the other kind goes on."""
    agent = make(**{switch: False})
    both = [event(), SecurityMetric(metric_type="block_rate", value=1.0)]

    taken = [agent.capture(one) for one in both]
    agent.flush()

    assert taken == ([False, True] if switch == "enable_events" else [True, False])
    assert dropped(agent) == {"disabled": 1}
    assert len(transport.accepted) == 1


def test_own_doings_are_not_captured(make: Make, transport: ScriptedTransport) -> None:
    """While a thread works for the agent its captures are refused."""
    agent = make()
    agent.start()

    with quiet():
        taken = agent.capture(event())

    assert taken is False
    assert dropped(agent) == {"recursive": 1}
    assert transport.sent == []


def test_a_start_in_the_middle_of_the_first_capture(transport: ScriptedTransport) -> None:
    """Wherever another thread's first capture overtakes it, both are counted and delivered."""
    wrong, steps, step = [], 1, 0
    while step < steps:
        agent = Agent(config(), transport=transport)
        before = len(transport.accepted)
        overtake = once_at(step, agent.start)
        steps = at_each_opcode([Agent.capture], overtake, lambda: agent.capture(event()))  # noqa: B023
        captured = agent.stats().captured
        agent.stop()
        if (captured, len(transport.accepted) - before, threads()) != (1, 1, []):
            wrong.append(step)
        step += 1

    assert steps > 20
    assert wrong == []


# -- a disabled agent ----------------------------------------------------------------------------


def test_without_a_key_it_is_disabled(caplog: pytest.LogCaptureFixture) -> None:
    """One warning, no thread, no exception; captures are refused and counted."""
    agent = Agent(config(api_key=None))

    with agent:
        taken = [agent.capture(event()), agent.capture({"metric_type": "block_rate", "value": 1})]
        running = threads()
        flushed = agent.flush()

    assert (taken, running, flushed) == ([False, False], [], True)
    assert caplog.messages == ["guardagent is disabled: there is no api_key."]
    assert dropped(agent) == {"disabled": 2}
    assert agent.stop() is True
    assert_balanced(agent.stats())


def test_a_disabled_agent_stays_disabled(transport: ScriptedTransport) -> None:
    """Its own transport, if it was given one, is not used either."""
    agent = Agent(config(api_key=None), transport=transport)

    agent.capture(event())
    agent.stop()
    agent.capture(event())

    assert transport.sent == []
    assert dropped(agent) == {"disabled": 1, "closed": 1} or dropped(agent) == {"disabled": 2}


def test_repr_shows_no_secret(make: Make) -> None:
    """Address and process only."""
    agent = make(api_key="secret-42-secret")

    assert "secret-42" not in repr(agent)
    assert "http://127.0.0.1:9" in repr(agent)


# -- flush ---------------------------------------------------------------------------------------


def test_flush_delivers_what_was_captured_before(make: Make, transport: ScriptedTransport) -> None:
    """Without waiting for `buffer_size` or `flush_interval` (FIELD S5)."""
    agent = make(flush_interval=3_600.0, buffer_size=1_000)
    for _ in range(10):
        agent.capture(event())

    assert agent.flush(timeout=PATIENCE) is True
    assert len(transport.accepted) == 10


def test_flush_of_nothing(make: Make) -> None:
    """It is true at once, started or not."""
    agent = make()
    before = agent.flush(timeout=0)

    agent.start()

    assert (before, agent.flush(timeout=PATIENCE)) == (True, True)


def test_flush_gives_up(make: Make, transport: ScriptedTransport) -> None:
    """It says that something is left."""
    transport.default = OUTAGE
    agent = make()
    agent.capture(event())

    assert agent.flush(timeout=0.01) is False
    assert agent.flush(timeout=-1) is False
    assert agent.stats().pending == 1


def test_flush_counts_losses_as_settled(make: Make, transport: ScriptedTransport) -> None:
    """What was refused for good is not waited for."""
    transport.default = RejectedError("HTTP 400", status=400)
    agent = make()
    agent.capture(event())

    assert agent.flush(timeout=PATIENCE) is True
    assert dropped(agent) == {"rejected": 1}


def test_flush_of_eight_threads(make: Make, transport: ScriptedTransport) -> None:
    """Each waits for its own events; all return."""
    agent = make(flush_interval=3_600.0, buffer_size=100_000)

    def work(_: int) -> bool:
        one = event()
        agent.capture(one)
        return agent.flush(timeout=PATIENCE) and one.idempotency_key in transport.accepted

    assert in_threads(8, work) == [True] * 8


def test_sources_are_asked_before_a_flush(make: Make, transport: ScriptedTransport) -> None:
    """What was gathered is delivered too, until its owner takes the source away."""
    agent = make(flush_interval=3_600.0)

    def hand_over() -> None:
        agent.capture(event())

    agent.add_source(hand_over)
    flushed = [agent.flush(timeout=PATIENCE)]
    for _ in range(2):  # the second time there is nothing to take away
        agent.remove_source(hand_over)
    flushed.append(agent.flush(timeout=PATIENCE))

    assert flushed == [True, True]
    assert len(transport.accepted) == 1


def test_sources_are_asked_after_the_interval(make: Make, transport: ScriptedTransport) -> None:
    """Whoever has gathered something says so, and hears whether anybody will ask for it."""
    agent = make(flush_interval=0.01)
    agent.add_source(lambda: agent.capture(event()))

    expected = agent.expect()

    assert transport.wait_for(1)
    agent.stop(timeout=1.0)
    assert (expected, agent.expect()) == (True, False)
    assert Agent(config(api_key=None)).expect() is False


def test_flush_survives_a_flood(make: Make, transport: ScriptedTransport) -> None:
    """Its marker is not dropped by an overflow."""
    held = Held()
    agent = make(queue_capacity=5, before_send=lambda one: (gate.wait(PATIENCE), one)[1])
    gate = threading.Event()
    transport.script(held)
    agent.capture(event())
    flushed: list[bool] = []

    thread = threading.Thread(target=lambda: flushed.append(agent.flush(timeout=PATIENCE)))
    thread.start()
    for _ in range(100):
        agent.capture(event())
    gate.set()
    held.let_go()
    thread.join(PATIENCE)

    assert flushed == [True]
    assert_balanced(agent.stats())


def test_stop_ends_a_flush(make: Make, transport: ScriptedTransport) -> None:
    """Whoever waits for what was left behind is told, and does not wait out the time."""
    transport.default = OUTAGE
    agent = make()
    agent.capture(event())
    assert transport.wait_for_attempts(1)
    marked = told(agent._pipeline._rooms.intake, "mark")
    thread = threading.Thread(target=lambda: agent.flush(timeout=8.0))
    thread.start()
    assert marked.wait(PATIENCE)

    agent.stop(timeout=0.05)
    thread.join(4.0)

    assert not thread.is_alive()


# -- overflow, through the public entry ----------------------------------------------------------


class Stalled:
    """An agent whose drain is held up, so that its queue fills."""

    def __init__(self, make: Make, **settings: Any) -> None:
        self.gate, self.reached = threading.Event(), threading.Event()
        self.drops: list[tuple[str, int]] = []
        self.agent = make(
            before_send=self.hold,
            on_drop=lambda reason, n: self.drops.append((reason, n)),
            **settings,
        )
        self.agent.capture(event())
        assert self.reached.wait(PATIENCE)

    def hold(self, one: Any) -> Any:
        self.reached.set()
        self.gate.wait(PATIENCE)
        return one

    def capture(self, count: int) -> list[Any]:
        answers: list[Any] = []
        for _ in range(count):
            try:
                answers.append(self.agent.capture(event()))
            except BufferFull:
                answers.append(BufferFull)
        return answers

    def finish(self) -> Stats:
        self.gate.set()
        assert self.agent.flush(timeout=PATIENCE)
        return self.agent.stats()


@pytest.mark.parametrize(
    ("overflow", "answers"),
    [
        ("drop_oldest", [True] * 5),
        ("drop_newest", [True] * 3 + [False] * 2),
        ("block", [True] * 3 + [False] * 2),
        ("raise", [True] * 3 + [BufferFull] * 2),
    ],
)
def test_overflow(make: Make, overflow: str, answers: list[Any]) -> None:
    """Each policy answers truthfully, and the books balance."""
    stalled = Stalled(make, overflow=overflow, queue_capacity=3, block_timeout=0.01)

    given = stalled.capture(5)
    stats = stalled.finish()

    assert given == answers
    assert (stats.captured, stats.delivered, stats.dropped["overflow"]) == (6, 4, 2)
    assert_balanced(stats)
    assert sum(n for reason, n in stalled.drops if reason == "overflow") == 2


def test_drop_oldest_keeps_the_newest(make: Make, transport: ScriptedTransport) -> None:
    """What arrives is what was captured last."""
    stalled = Stalled(make, overflow="drop_oldest", queue_capacity=3)
    events = [event() for _ in range(10)]

    for one in events:
        stalled.agent.capture(one)
    stalled.finish()

    assert transport.accepted[1:] == [one.idempotency_key for one in events[7:]]


def test_block_waits_and_goes_on(make: Make, transport: ScriptedTransport) -> None:
    """A caller that waits is served as soon as there is room."""
    stalled = Stalled(make, overflow="block", queue_capacity=2, block_timeout=PATIENCE)
    stalled.capture(2)
    answers: list[Any] = []

    thread = threading.Thread(target=lambda: answers.extend(stalled.capture(3)))
    thread.start()
    stalled.gate.set()
    thread.join(PATIENCE)

    assert answers == [True] * 3
    assert stalled.finish().delivered == 6


@pytest.mark.parametrize("overflow", ["block", "raise"])
def test_a_full_spool_loses_nothing_that_was_taken(
    make: Make, transport: ScriptedTransport, overflow: str
) -> None:
    """Under these policies a True is a promise, however small the spool is."""
    held = Held()
    transport.script(held)
    agent = make(
        overflow=overflow, queue_capacity=20, spool_max_records=5, block_timeout=0.0, buffer_size=1
    )
    agent.capture(event())
    assert held.reached.wait(PATIENCE)

    taken = 1
    for _ in range(200):
        try:
            taken += agent.capture(event())
        except BufferFull:
            continue
    held.let_go()

    assert agent.flush(timeout=PATIENCE)
    assert agent.stats().delivered == taken
    assert_balanced(agent.stats())


def test_stop_frees_whoever_waits_for_room(make: Make, transport: ScriptedTransport) -> None:
    """A blocked capture is refused or delivered; nothing stays in a closed agent."""
    stalled = Stalled(make, overflow="block", queue_capacity=1, block_timeout=PATIENCE)
    stalled.capture(1)
    answers: list[Any] = []

    bell = stalled.agent._pipeline._rooms.drain_bell
    bell.wait(0)
    thread = threading.Thread(target=lambda: answers.extend(stalled.capture(1)))
    thread.start()
    assert bell.wait(PATIENCE)
    stalled.agent.stop(timeout=0.05)
    stalled.gate.set()
    thread.join(PATIENCE)

    stats = stalled.agent.stats()
    assert len(answers) == 1
    assert stats.pending == 0, stats
    assert_balanced(stats)


# -- before_send ---------------------------------------------------------------------------------


def test_before_send_sees_the_value(make: Make, transport: ScriptedTransport) -> None:
    """It gets an event or metric of its own and may change it; the identity stays."""
    seen: list[Any] = []

    def hook(one: Any) -> Any:
        seen.append(one)
        return SecurityEvent(event_type="changed") if isinstance(one, SecurityEvent) else one

    agent = make(before_send=hook)
    given = event(metadata={"a": 1}), SecurityMetric(metric_type="block_rate", value=1.0)

    for one in given:
        agent.capture(one)
    agent.flush()

    assert [type(one) for one in seen] == [SecurityEvent, SecurityMetric]
    assert seen[0] is not given[0]
    assert seen[0].metadata == {"a": 1}
    assert transport.accepted == [one.idempotency_key for one in given]
    assert b'"event_type":"changed"' in transport.sent[0].bodies[0]


def test_before_send_may_drop(make: Make, transport: ScriptedTransport) -> None:
    """None drops; that is counted, and no line warns of it."""
    agent = make(before_send=lambda one: None)

    agent.capture(event())

    assert agent.flush()
    assert (dropped(agent), transport.sent) == ({"filtered": 1}, [])


@pytest.mark.parametrize("result", [True, {"event_type": "x"}, "wrong kind"])
def test_before_send_that_returns_nonsense_fails_closed(
    make: Make, transport: ScriptedTransport, result: Any
) -> None:
    """Whatever is no event of the same kind is a failure of the hook."""
    errors: list[Any] = []
    if result == "wrong kind":
        result = SecurityMetric(metric_type="block_rate", value=1.0)
    agent = make(
        before_send=lambda one: result, on_error=lambda stage, error, context: errors.append(error)
    )

    agent.capture(event())

    assert agent.flush()
    assert (dropped(agent), transport.sent) == ({"hook_failed": 1}, [])
    assert [type(error) for error in errors] == [TypeError]


def test_before_send_that_raises_fails_closed(make: Make, transport: ScriptedTransport) -> None:
    """The event is dropped and never sent as it was (FIELD D4)."""

    def hook(one: Any) -> Any:
        raise SystemExit

    agent = make(before_send=hook)
    agent.capture(event())

    assert agent.flush()
    assert (dropped(agent), transport.sent) == ({"hook_failed": 1}, [])
    assert agent.stats().threads_alive == 2


# -- callbacks and log handlers ------------------------------------------------------------------


def public_calls(agent: Agent) -> list[Any]:
    """Use everything an agent has."""
    return [
        agent.capture(event()),
        agent.flush(timeout=PATIENCE),
        agent.stats().captured > 0,
        agent.start(),
        repr(agent),
        agent.status(),
    ]


@pytest.mark.parametrize("which", ["on_error", "on_drop", "before_send"])
def test_callbacks_may_call_everything(
    make: Make, transport: ScriptedTransport, which: str
) -> None:
    """No deadlock, no wait, and nothing of theirs is captured (FIELD S6)."""
    calls: list[Any] = []

    def callback(*args: Any) -> Any:
        calls.append(public_calls(agent))
        return args[0]

    agent = make(**{which: callback})
    transport.script(RejectedError("HTTP 400", status=400))

    agent.capture(event())

    assert agent.flush(timeout=PATIENCE)
    assert calls[0][:3] == [False, False, True]
    assert_balanced(agent.stats())


@pytest.mark.parametrize("which", ["on_error", "on_drop", "before_send"])
def test_callbacks_may_stop_the_agent(make: Make, transport: ScriptedTransport, which: str) -> None:
    """It ends, from within its own thread, and the books balance."""
    called = threading.Event()

    def callback(*args: Any) -> Any:
        agent.stop(timeout=0.1)
        called.set()
        return args[0]

    agent = make(**{which: callback}, buffer_size=1, flush_interval=3_600.0)
    transport.script(RejectedError("HTTP 400", status=400))
    for _ in range(5):
        agent.capture(event())

    assert called.wait(PATIENCE)
    assert all(loop.join(PATIENCE) for loop in agent._pipeline._loops)
    assert agent.capture(event()) is False
    stats = agent.stats()
    assert (stats.pending, stats.threads_alive) == (0, 0)
    assert_balanced(stats)


def test_a_hook_that_outlives_the_stop(make: Make, transport: ScriptedTransport) -> None:
    """What it was holding was counted as left behind; what it does then counts no more."""
    stalled = Stalled(make)
    stalled.capture(3)
    drain = next(one for one in threading.enumerate() if one.name == "guardagent-intake")

    everything = stalled.agent.stop(timeout=0.05)
    at_the_stop = stalled.agent.stats()
    stalled.gate.set()
    drain.join(PATIENCE)
    afterwards = stalled.agent.stats()

    assert everything is False
    assert_balanced(at_the_stop)
    assert_balanced(afterwards)
    assert (afterwards.pending, afterwards.dropped["shutdown"]) == (0, 4)
    assert transport.accepted == []


class RaisingHandler(logging.Handler):
    """An application's log handler that is broken."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = RaisingHandler()
    logging.getLogger("guardagent").addHandler(handler)
    yield
    logging.getLogger("guardagent").removeHandler(handler)


def test_a_broken_log_handler_breaks_nothing(
    make: Make, transport: ScriptedTransport, broken_log: None
) -> None:
    """Capture raises nothing, counts once, and the threads go on."""
    transport.script(OUTAGE, RejectedError("HTTP 400", status=400))
    agent = make()

    answers = [agent.capture(7), agent.capture(event()), agent.capture(event())]
    assert agent.flush(timeout=PATIENCE)
    agent.stop()
    answers.append(agent.capture(event()))

    stats = agent.stats()
    assert answers == [False, True, True, False]
    assert (stats.captured, stats.dropped["invalid"], stats.dropped["closed"]) == (4, 1, 1)
    assert_balanced(stats)


def test_nothing_of_an_event_is_logged(
    make: Make, transport: ScriptedTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither payload nor key, whatever goes wrong (FIELD D6)."""
    caplog.set_level(logging.DEBUG)
    transport.script(
        TransientError("HTTP 500", status=500),
        RejectedError("HTTP 400: payload-42", status=400),
        ValueError("payload-42"),
    )
    agent = make(api_key="secret-42-secret", on_error=lambda *args: 1 / 0)

    agent.capture({"event_type": ""})
    agent.capture(SimpleNamespace(event_type=7, reason="payload-42"))
    for _ in range(3):
        agent.capture(event(reason="payload-42", metadata={"payload-42": "payload-42"}))
        agent.flush(timeout=PATIENCE)
    agent.stop()

    assert caplog.messages
    assert "payload-42" not in caplog.text
    assert "secret-42" not in caplog.text


# -- dead threads --------------------------------------------------------------------------------


class DeadlyHandler(logging.Handler):
    """A log handler that kills the agent's threads when they log."""

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread().name.startswith("guardagent"):
            raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["guardagent-intake", "guardagent-delivery"])
def test_a_dead_thread_is_started_again(
    make: Make, transport: ScriptedTransport, name: str
) -> None:
    """The next capture finds it dead, and nothing was lost (FIELD M2)."""
    handler = DeadlyHandler()
    agent = make()
    agent.capture(event())
    assert agent.flush(timeout=PATIENCE)
    (victim,) = [one for one in threading.enumerate() if one.name == name]
    logging.getLogger("guardagent").addHandler(handler)
    try:
        if name == "guardagent-intake":
            agent.capture(7)
        else:
            transport.script(SystemExit())
            agent.capture(event())
        victim.join(PATIENCE)
    finally:
        logging.getLogger("guardagent").removeHandler(handler)
    was_dead = not victim.is_alive()

    taken = agent.capture(event())

    assert (was_dead, taken) == (True, True)
    assert agent.flush(timeout=PATIENCE)
    assert agent.stats().threads_alive == 2
    assert_balanced(agent.stats())


def test_a_killed_turn_costs_nothing(make: Make, transport: ScriptedTransport) -> None:
    """The thread goes on after whatever came out of a turn, and says so."""
    errors: list[str] = []
    transport.script(KeyboardInterrupt())
    agent = make(on_error=lambda stage, error, context: errors.append(stage))

    agent.capture(event())

    assert agent.flush(timeout=PATIENCE)
    assert errors == ["thread"]
    assert agent.stats().delivered == 1


# -- stop ----------------------------------------------------------------------------------------


def test_stop_delivers_and_lets_everything_go(make: Make, transport: ScriptedTransport) -> None:
    """True: nothing was left."""
    agent = make(flush_interval=3_600.0)
    agent.capture(event())

    everything = agent.stop()

    assert everything is True
    assert (len(transport.accepted), threads()) == (1, [])
    assert transport.calls[-1] == "close"
    assert_balanced(agent.stats())


def test_stop_before_the_start(make: Make) -> None:
    """There is nothing to do, and nothing starts afterwards."""
    agent = make()

    first = agent.stop()
    agent.start()
    taken = agent.capture(event())

    assert (first, taken, threads()) == (True, False, [])
    assert dropped(agent) == {"closed": 1}


def test_stop_is_idempotent(make: Make, transport: ScriptedTransport) -> None:
    """The second one answers like the first."""
    agent = make()
    agent.capture(event())

    assert [agent.stop(), agent.stop(), agent.stop(0)] == [True, True, True]
    assert transport.calls.count("close") == 1


def test_capture_after_stop_is_refused(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It returns at once, is counted, told to `on_drop` and warned of once (FIELD S7)."""
    drops: list[tuple[str, int]] = []
    agent = make(on_drop=lambda reason, n: drops.append((reason, n)))
    agent.stop()

    taken = [agent.capture(event()) for _ in range(5)]

    assert taken == [False] * 5
    assert dropped(agent) == {"closed": 5}
    assert drops == [("closed", 1)] * 5
    assert caplog.messages == ["1 events were lost (closed), 1 since the start."]
    assert agent.flush() is True


def test_stop_from_eight_threads(make: Make, transport: ScriptedTransport) -> None:
    """All return, and it happens once (FIELD S6)."""
    agent = make(flush_interval=3_600.0)
    for _ in range(50):
        agent.capture(event())

    answers = in_threads(8, lambda _: agent.stop(timeout=PATIENCE))

    assert answers == [True] * 8
    assert len(transport.accepted) == 50
    assert transport.calls.count("close") == 1


def test_stop_that_leaves_something_behind(make: Make, transport: ScriptedTransport) -> None:
    """False, and what was left is counted and logged."""
    transport.default = OUTAGE
    agent = make(flush_interval=3_600.0)
    for _ in range(3):
        agent.capture(event())

    everything = agent.stop(timeout=PATIENCE)

    assert everything is False
    assert dropped(agent) == {"shutdown": 3}
    assert_balanced(agent.stats())


def test_stop_in_a_back_off_tries_once_more(make: Make, transport: ScriptedTransport) -> None:
    """A pause is no reason to give up (FIELD S12)."""
    transport.script(TransientError("HTTP 429", status=429, outage=False, retry_after=300.0))
    agent = make(buffer_size=1)
    agent.capture(event())
    assert transport.wait_for_attempts(1)

    everything = agent.stop(timeout=PATIENCE)

    assert everything is True
    assert len(transport.accepted) == 1
    assert transport.sent[-1].deadline is not None


def test_stop_does_not_wait_for_a_request_that_hangs(
    make: Make, transport: ScriptedTransport
) -> None:
    """It is broken off, and what it held is counted as left behind."""
    held = Held(OUTAGE)
    transport.script(held)
    agent = make(buffer_size=1)
    agent.capture(event())
    assert held.reached.wait(PATIENCE)
    delivery = next(one for one in threading.enumerate() if one.name == "guardagent-delivery")

    everything = agent.stop(timeout=0.05)
    stats = agent.stats()
    held.let_go()
    delivery.join(PATIENCE)

    assert everything is False
    assert "abort" in transport.calls
    assert stats.dropped["shutdown"] == 1
    assert_balanced(agent.stats())


def test_a_second_stop_does_not_wait_for_the_first(
    make: Make, transport: ScriptedTransport
) -> None:
    """It returns within its own time and says that it is not over."""
    held = Held()
    transport.script(held)
    agent = make(buffer_size=1)
    agent.capture(event())
    assert held.reached.wait(PATIENCE)
    first: list[bool] = []
    begun = told(agent._pipeline._rooms.delivery, "hurry")
    thread = threading.Thread(target=lambda: first.append(agent.stop(timeout=PATIENCE)))
    thread.start()
    assert begun.wait(PATIENCE)

    second = agent.stop(timeout=0.0)
    held.let_go()
    thread.join(PATIENCE)

    assert (second, first) == (False, [True])


def test_flush_after_stop_with_something_left(make: Make, transport: ScriptedTransport) -> None:
    """Nothing is pending any more: what was left is counted."""
    transport.default = OUTAGE
    agent = make()
    agent.capture(event())

    agent.stop(timeout=0.0)

    assert agent.flush(timeout=0.0) is True


# -- stats ---------------------------------------------------------------------------------------


def test_stats_of_a_healthy_agent(make: Make, transport: ScriptedTransport) -> None:
    """Every number says what it means."""
    transport.default = Receipt(55)
    agent = make()
    agent.capture(event())
    agent.flush()

    stats = agent.stats()

    assert (stats.captured, stats.delivered, stats.pending, stats.in_flight) == (1, 1, 0, 0)
    assert (stats.bytes_sent, stats.spool_bytes, stats.retried) == (55, 0, 0)
    assert (stats.breaker, stats.durable, stats.last_error) == ("closed", False, None)
    assert stats.last_success_age is not None
    assert stats.pid > 0


def test_stats_in_the_middle_of_a_request(make: Make, transport: ScriptedTransport) -> None:
    """What is being sent is pending and in flight."""
    held = Held()
    transport.script(held)
    agent = make(buffer_size=1)
    agent.capture(event())
    assert held.reached.wait(PATIENCE)

    stats = agent.stats()
    held.let_go()

    assert (stats.pending, stats.in_flight) == (1, 1)
    assert stats.spool_bytes > 100
    assert_balanced(stats)


def test_stats_of_a_failure(make: Make, transport: ScriptedTransport) -> None:
    """The last error is there until the next success."""
    transport.script(OUTAGE)
    held = Held()
    transport.script(held)
    agent = make(buffer_size=1)
    agent.capture(event())
    assert held.reached.wait(PATIENCE)

    failing = agent.stats().last_error
    held.let_go()
    agent.flush()

    assert (failing, agent.stats().last_error) == ("HTTP 503", None)


def test_a_flood_balances(make: Make, transport: ScriptedTransport) -> None:
    """Eight threads, small bounds, and a backend in a mood: every event is accounted for."""
    moods = [OUTAGE, RejectedError("HTTP 400", status=400), Receipt(), ValueError()]
    for n in range(40):
        transport.script(moods[n % 4])
    agent = make(queue_capacity=200, spool_max_records=300, max_batch_size=20, max_event_age=60.0)

    def work(_: int) -> int:
        return sum(agent.capture(event()) for _ in range(500))

    taken = sum(in_threads(8, work))
    agent.flush(timeout=PATIENCE)
    agent.stop()

    stats = agent.stats()
    assert (stats.captured, taken) == (4_000, 4_000)
    assert stats.pending == 0
    assert len(transport.accepted) == stats.delivered
    assert len(set(transport.accepted)) == stats.delivered
    assert_balanced(stats)


def test_status_of_an_agent_of_ones_own(make: Make, transport: ScriptedTransport) -> None:
    """It can be asked for at any time, and names the losses."""
    agent = make()
    agent.capture(event())
    agent.capture("nonsense")
    agent.flush()

    status = agent.status()

    assert (status.events_sent, status.buffer_size, status.dropped) == (1, 0, {"invalid": 1})
    assert (agent.rules, agent.wait_for_rules(timeout=0.0)) == (None, None)


# -- surroundings --------------------------------------------------------------------------------


def test_delivery_over_http(make_agent: MakeAgent, backend: Backend) -> None:
    """Without a transport of its own the agent speaks HTTP to its endpoint."""
    agent = make_agent()
    one = event()

    agent.capture(one)

    assert backend.wait_for(1)
    assert backend.received == [one.idempotency_key]
    assert agent.stop()


def test_bodies_begin_with_the_key(make: Make, transport: ScriptedTransport) -> None:
    """What delivery relies on to find a refused record."""
    seen: list[str] = []

    def answer(batch: Batch) -> Receipt:
        seen.extend(record_key(body) for body in batch.bodies)
        return Receipt()

    transport.script(answer)
    agent = make()
    one = event(idempotency_key="0b0e7d2c-5d3f-4a51-9d3c-3a1c0a6b6f01")
    agent.capture(one)
    agent.flush()

    assert seen == [one.idempotency_key]
