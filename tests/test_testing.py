"""What applications test with: the recording agent, the manual clock, the pytest fixture."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardagent import Agent, AgentConfig, SecurityEvent, SecurityMetric
from guardagent.errors import DeliveryError, RejectedError, SetupError, TransientError
from guardagent.fields import Kind
from guardagent.spool.protocol import Batch
from guardagent.testing import ManualClock, RecordingAgent, RecordingTransport
from guardagent.testing import plugin as the_plugin
from tests.support.accounts import assert_balanced

pytest_plugins = ["pytester"]


@pytest.fixture
def agent() -> Iterator[RecordingAgent]:
    with RecordingAgent() as agent:
        yield agent


#: Python 3.12 warns of any fork beside a thread; these tests fork on purpose.
forking = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_child(work: Callable[[], bool]) -> int:
    """Return the exit status of a forked child: 0 when the work was right; a hang is killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(10)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def event(event_type: str = "ip_banned", **fields: Any) -> SecurityEvent:
    return SecurityEvent(event_type=event_type, **fields)


def batch(*bodies: bytes, kind: Kind = "events") -> Batch:
    return Batch(kind=kind, bodies=bodies, created_at=1_800_000_000.0)


# -- ManualClock ---------------------------------------------------------------------------------


def test_a_manual_clock_stands_still() -> None:
    """Whoever asks twice hears the same."""
    clock = ManualClock()

    assert (clock.monotonic(), clock.now()) == (clock.monotonic(), clock.now())


def test_a_manual_clock_is_advanced() -> None:
    """Both of its times by the same seconds; one starts at 0, the other where it is told to."""
    clock = ManualClock(start=1_000.0)

    clock.advance(2.5)
    clock.advance(0)

    assert (clock.monotonic(), clock.now()) == (2.5, 1_002.5)


@pytest.mark.parametrize("seconds", [-1, -0.001])
def test_a_manual_clock_never_goes_back(seconds: float) -> None:
    """It says what was given, and stays where it was."""
    clock = ManualClock()

    with pytest.raises(ValueError, match=f"seconds: given {seconds}"):
        clock.advance(seconds)

    assert clock.monotonic() == 0.0


def test_an_agent_lives_by_a_manual_clock() -> None:
    """Its status is dated by it."""
    clock = ManualClock()
    agent = Agent(AgentConfig(api_key="testing"), transport=RecordingTransport(), clock=clock)

    clock.advance(90.0)

    assert agent.status().uptime == 90.0
    assert agent.status().timestamp == "2027-01-15T08:01:30.000000+00:00"
    assert agent.stop()


# -- RecordingTransport --------------------------------------------------------------------------


def test_a_transport_keeps_what_it_is_given() -> None:
    """Events and metrics apart, with the ids of the batches."""
    transport = RecordingTransport()
    one = batch(b'{"event_type":"a"}', b'{"event_type":"b"}')
    other = batch(b'{"metric_type":"request_count"}', kind="metrics")

    receipt = transport.send(one)
    transport.send(other, deadline=5.0)

    assert receipt.bytes_sent == one.nbytes
    assert receipt.rejected == {}
    assert [found["event_type"] for found in transport.events()] == ["a", "b"]
    assert [found["metric_type"] for found in transport.metrics()] == ["request_count"]
    assert transport.batch_ids == [one.batch_id, other.batch_id]


def test_a_transport_fails_as_told() -> None:
    """Once for each error, in order; what it failed on is not kept."""
    transport = RecordingTransport()
    first, second = TransientError("first"), RejectedError("second")
    transport.fail_with(first)
    transport.fail_with(second)
    one = batch(b'{"event_type":"a"}')

    for error in (first, second):
        with pytest.raises(DeliveryError) as caught:
            transport.send(one)
        assert caught.value is error
    transport.send(one)

    assert len(transport.events()) == 1
    assert transport.batch_ids == [one.batch_id] * 3


def test_a_transport_can_be_closed_and_used_again() -> None:
    """What it recorded outlives the agent."""
    transport = RecordingTransport()
    transport.send(batch(b'{"event_type":"a"}'))

    transport.abort()
    transport.close()
    transport.after_fork()
    transport.send(batch(b'{"event_type":"b"}'))

    assert [found["event_type"] for found in transport.events()] == ["a", "b"]


def test_a_list_is_the_callers_own() -> None:
    """Emptying it takes nothing from the records."""
    transport = RecordingTransport()
    transport.send(batch(b'{"event_type":"a"}'))
    transport.send(batch(b'{"metric_type":"bandwidth_usage"}', kind="metrics"))

    for records in (transport.events(), transport.metrics(), transport.wait_for(1)):
        records.clear()

    assert (len(transport.events()), len(transport.metrics())) == (1, 1)


class Slow(list[bytes]):
    """Bodies that are not read to their end before they are let go."""

    def __init__(self) -> None:
        super().__init__([b'{"event_type":"a"}'])
        self.reached, self.gate = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self.reached.set()
        self.gate.wait(20.0)
        return super().__iter__()


@forking
def test_a_child_can_read_what_its_parent_recorded() -> None:
    """Also when the parent's thread was just recording at the fork, and is gone in the child."""
    transport, bodies = RecordingTransport(), Slow()
    slow = Batch(kind="events", bodies=bodies, created_at=1_800_000_000.0)
    thread = threading.Thread(target=transport.send, args=(slow,))
    thread.start()
    assert bodies.reached.wait(20.0)

    def read() -> bool:
        transport.after_fork()
        return transport.events() == [] and transport.metrics() == []

    status = in_child(read)
    bodies.gate.set()
    thread.join(20.0)

    assert status == 0
    assert transport.events() == [{"event_type": "a"}]


# -- RecordingAgent ------------------------------------------------------------------------------


def test_events_are_listed_as_they_would_be_sent(agent: RecordingAgent) -> None:
    """Redacted, encoded, and in the order of their capture."""
    agent.capture(event("a", metadata={"password": "secret", "tries": 3}))
    agent.capture({"event_type": "b", "tenant": "shop"})

    first, second = agent.events()

    assert first["metadata"] == {"password": "[REDACTED]", "tries": 3}
    assert (second["event_type"], second["tenant"]) == ("b", "shop")


def test_events_of_one_type(agent: RecordingAgent) -> None:
    """Without the others."""
    for event_type in ("a", "b", "a"):
        agent.capture(event(event_type))

    assert [len(agent.events(name)) for name in ("a", "b", "c")] == [2, 1, 0]
    assert len(agent.events()) == 3


def test_metrics_are_listed_apart(agent: RecordingAgent) -> None:
    """And by their type."""
    agent.capture(SecurityMetric(metric_type="request_count", value=3))
    agent.capture(SecurityMetric(metric_type="error_rate", value=0.5))
    agent.capture(event())

    assert [one["value"] for one in agent.metrics()] == [3.0, 0.5]
    assert [one["value"] for one in agent.metrics("error_rate")] == [0.5]
    assert len(agent.events()) == 1


def test_an_unstarted_agent_lists_too() -> None:
    """The first capture starts it, and nothing captured is an empty list."""
    agent = RecordingAgent()

    assert (agent.events(), agent.metrics()) == ([], [])
    agent.capture(event())
    assert len(agent.events()) == 1
    assert agent.stop()


def test_records_outlive_the_agent() -> None:
    """A test may look at them when all is over."""
    with RecordingAgent() as agent:
        agent.capture(event("a"))
    refused = agent.capture(event("late"))

    assert refused is False
    assert [one["event_type"] for one in agent.events()] == ["a"]
    assert len(agent.wait_for(1)) == 1
    assert_balanced(agent)


def test_an_agent_waits_for_other_threads(agent: RecordingAgent) -> None:
    """Until there are enough, and no longer."""
    workers = [threading.Thread(target=agent.capture, args=(event(),)) for _ in range(3)]
    for worker in workers:
        worker.start()

    found = agent.wait_for(3, timeout=20.0)
    for worker in workers:
        worker.join()

    assert len(found) == 3


def test_waiting_in_vain_says_how_many_there_were(agent: RecordingAgent) -> None:
    """As a failed assertion of the test that waits."""
    agent.capture(event())
    agent.flush()

    with pytest.raises(AssertionError, match=r"1 of 2 events arrived in 0\.05 s"):
        agent.wait_for(2, timeout=0.05)


def test_waiting_for_nothing_is_over_at_once(agent: RecordingAgent) -> None:
    """There are none, and that is enough."""
    assert agent.wait_for(0, timeout=0.0) == []


def test_settings_are_those_of_any_agent() -> None:
    """They beat the quick ones; a wrong one is refused."""
    with RecordingAgent(api_key="other-key", buffer_size=7, enable_metrics=False) as agent:
        agent.capture(SecurityMetric(metric_type="request_count", value=1))

        assert (agent.config.api_key, agent.config.buffer_size) == ("other-key", 7)
        assert agent.metrics() == []
        assert agent.stats().dropped["disabled"] == 1
    with pytest.raises(ValueError, match="buffer_size"):
        RecordingAgent(buffer_size=0)


def test_an_outage_is_retried() -> None:
    """Each event arrives once, under the same batch id."""
    with RecordingAgent() as agent:
        agent.transport.fail_with(TransientError("away"), TransientError("still away"))
        agent.capture(event())

        assert len(agent.wait_for(1, timeout=20.0)) == 1
        assert agent.flush()
        assert agent.stats().delivered == 1
        assert len(agent.transport.batch_ids) == 3
        assert len(set(agent.transport.batch_ids)) == 1


def test_a_rejection_is_counted() -> None:
    """An application's `on_drop` can be tested with it."""
    dropped: list[tuple[str, int]] = []
    with RecordingAgent(on_drop=lambda reason, n: dropped.append((reason, n))) as agent:
        agent.transport.fail_with(RejectedError("HTTP 400"))
        agent.capture(event())

        assert agent.events() == []
        assert agent.stats().dropped["rejected"] == 1
    assert dropped == [("rejected", 1)]


def test_a_refused_key_keeps_everything() -> None:
    """It is there to be counted when the agent stops."""
    agent = RecordingAgent(shutdown_timeout=0.5)
    agent.transport.fail_with(*[SetupError("HTTP 401")] * 50)
    agent.capture(event())

    assert agent.flush(timeout=0.05) is False
    assert agent.stats().pending == 1
    assert agent.stop() is False
    assert agent.stats().dropped["shutdown"] == 1


def test_agents_do_not_share_records() -> None:
    """Each has its own transport."""
    with RecordingAgent() as one, RecordingAgent() as other:
        one.capture(event())

        assert (len(one.events()), len(other.events())) == (1, 0)


@forking
def test_a_forked_child_records_for_itself(agent: RecordingAgent) -> None:
    """It knows what its parent recorded, and adds to its own copy."""
    agent.capture(event("parent"))
    agent.flush()

    def record() -> bool:
        agent.capture(event("child"))
        found = [one["event_type"] for one in agent.events()]
        return found == ["parent", "child"] and agent.stop()

    assert in_child(record) == 0
    assert [one["event_type"] for one in agent.events()] == ["parent"]


# -- the fixture ---------------------------------------------------------------------------------

#: Ends every attempt to use the network, wherever it comes from.
_OFFLINE = """
import sys

def refuse(name, arguments):
    if name.startswith("socket."):
        raise RuntimeError(f"{name} was called")

sys.addaudithook(refuse)
"""


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    """Run the tests in a process of their own, with the plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester.runpytest_subprocess("-W", "error", "-p", the_plugin.__name__, timeout=60)


def test_fixture_stands_behind_the_package(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an application captures is listed; no socket is used and no thread is left."""
    pytester.makeconftest(_OFFLINE)
    pytester.makepyfile(
        """
        import threading

        import guardagent
        from guardagent import SecurityEvent, SecurityMetric
        from guardagent.testing import RecordingAgent

        def test_one(guardagent_agent):
            assert type(guardagent_agent) is RecordingAgent
            assert guardagent.get_agent() is guardagent_agent
            assert guardagent.capture(SecurityEvent(event_type="a", metadata={"token": "x"}))
            assert guardagent.capture(SecurityMetric(metric_type="request_count", value=2))
            (event,) = guardagent_agent.events("a")
            assert event["metadata"] == {"token": "[REDACTED]"}
            (metric,) = guardagent_agent.metrics()
            assert metric["value"] == 2.0

        def test_another_begins_with_nothing(guardagent_agent):
            assert guardagent_agent.events() == []
            worker = threading.Thread(target=guardagent.capture, args=({"event_type": "b"},))
            worker.start()
            assert guardagent_agent.wait_for(1)[0]["event_type"] == "b"
            worker.join()
            assert guardagent_agent.rules is None

        def test_nothing_is_left():
            assert guardagent.get_agent() is None
            assert guardagent.capture({"event_type": "c"}) is False
            assert threading.enumerate() == [threading.main_thread()]
        """
    )

    run(pytester, monkeypatch).assert_outcomes(passed=3)


def test_fixture_drains_at_its_end(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was captured last is delivered before the agent stops (FIELD X3)."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def kept():
            agents = []
            yield agents
            (agent,) = agents
            assert len(agent.transport.events()) == 300
            stats = agent.stats()
            assert (stats.delivered, stats.pending, stats.threads_alive) == (300, 0, 0)
            assert agent.capture({"event_type": "late"}) is False

        def test_captures_until_the_end(kept, guardagent_agent):
            kept.append(guardagent_agent)
            for _ in range(300):
                assert guardagent_agent.capture({"event_type": "x"})
        """
    )

    run(pytester, monkeypatch).assert_outcomes(passed=1)


def test_fixture_puts_the_former_agent_back(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a test that fails; the former one is neither stopped nor sent anything."""
    pytester.makepyfile(
        """
        import guardagent
        from guardagent import _default
        from guardagent.testing import RecordingAgent

        former = RecordingAgent()
        _default.replace(former)

        def test_that_fails(guardagent_agent):
            guardagent.capture({"event_type": "a"})
            assert guardagent_agent.events() == []

        def test_afterwards():
            assert guardagent.get_agent() is former
            assert former.events() == []
            assert guardagent.capture({"event_type": "b"})
            assert len(former.events()) == 1
            assert former.stop()
        """
    )

    run(pytester, monkeypatch).assert_outcomes(passed=1, failed=1)


def test_plugin_costs_nothing_unused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run of an application's tests loads it; few of them use it."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_loaded():
            assert "guardagent.testing.plugin" in sys.modules
            assert not {"guardagent.agent", "requests", "cattrs"} & set(sys.modules)
        """
    )

    run(pytester, monkeypatch).assert_outcomes(passed=1)


def test_fixture_in_this_process(request: pytest.FixtureRequest) -> None:
    """It is the same thing when it is driven by hand: an agent in the place of the former one."""
    import guardagent

    former = guardagent.get_agent()
    steps = the_plugin.guardagent_agent.__wrapped__()  # type: ignore[attr-defined]
    agent = next(steps)

    assert guardagent.get_agent() is agent
    assert guardagent.capture(event())
    steps.close()
    assert guardagent.get_agent() is former
    assert isinstance(agent, RecordingAgent)
    assert len(agent.events()) == 1
    assert agent.stats().threads_alive == 0
