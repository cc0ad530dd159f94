"""What a forked child begins with; real servers and many processes are in tests/faults."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardagent import Agent, SecurityEvent, _exit, _fork
from guardagent._quiet import MUTED, quiet
from tests.conftest import MakeAgent
from tests.scripted import PATIENCE, Held, ScriptedTransport, config
from tests.support.backend import Backend

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
def make(transport: ScriptedTransport) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def build(**settings: Any) -> Agent:
        agents.append(Agent(config(**settings), transport=transport))
        return agents[-1]

    yield build
    for agent in agents:
        agent.stop(timeout=1.0)


def event() -> SecurityEvent:
    return SecurityEvent(event_type="probe")


def dropped(agent: Agent) -> dict[str, int]:
    return {reason: n for reason, n in agent.stats().dropped.items() if n}


def in_child(work: Callable[[], Any], fork: Callable[[], int] = os.fork) -> Any:
    """Do `work` in a forked child and return what it returned, by way of JSON."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)

    assert answer, "the child had nothing to say"
    return json.loads(answer)


@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["hooks", "no hooks"])
def test_child_delivers_its_own(
    make: Callable[..., Agent], transport: ScriptedTransport, fork: Callable[[], int]
) -> None:
    """With the agent configured in the parent, and by the pid where no hook runs (FIELD F1, F3)."""
    agent = make()

    def work() -> Any:
        agent.capture(event())
        flushed = agent.flush(timeout=PATIENCE)
        stats = agent.stats()
        return [flushed, stats.pid == os.getpid(), stats.captured, len(transport.accepted)]

    assert in_child(work, fork) == [True, True, 1, 1]
    assert (agent.stats().captured, transport.accepted) == (0, [])


def test_every_entry_notices_another_process(make: Callable[..., Agent]) -> None:
    """Not only capture: stats, flush and stop belong to the process that calls them."""
    for use in (Agent.stats, Agent.flush, Agent.stop, Agent.start, Agent.capture):
        agent = make()
        agent.capture(event())
        agent.flush()
        inherited = agent._pipeline
        inherited.pid = -1

        use(agent, event()) if use is Agent.capture else use(agent)  # type: ignore[operator]

        assert agent._pipeline is not inherited
        assert agent.stats().pid == os.getpid()
        inherited.close(timeout=1.0)
        agent.stop()


def test_child_begins_empty(make: Callable[..., Agent], transport: ScriptedTransport) -> None:
    """What the parent has pending stays the parent's, and is sent once (FIELD F6)."""
    agent = make(flush_interval=3_600.0)
    agent.capture(event())
    inherited = agent._pipeline

    _fork._after_in_child()
    stats = agent.stats()
    started = agent._is_started
    inherited.close(timeout=PATIENCE)

    assert (stats.captured, stats.pending, stats.threads_alive, started) == (0, 0, 0, False)
    assert transport.calls[0] == "after_fork"
    assert len(transport.accepted) == 1


def test_child_settles_nothing_of_its_parents(make: Callable[..., Agent]) -> None:
    """Nor is a thread of the child muted because one of the parent's was."""
    agent = make()
    agent.start()
    inherited = agent._pipeline

    with quiet():
        _fork._after_in_child()
        forgotten = (set(_exit._live), set(MUTED))
    inherited.close(timeout=1.0)

    assert forgotten == (set(), set())


@pytest.mark.parametrize("lock", ["intake", "spool", "closing", "loop", "losses"])
def test_locks_held_at_the_fork_do_not_matter(
    make: Callable[..., Agent], transport: ScriptedTransport, lock: str
) -> None:
    """Whatever another thread holds at that moment, the child's capture and flush return."""
    agent = make(overflow="block")
    agent.start()
    inherited = agent._pipeline
    locks = {
        "intake": inherited._rooms.intake.mutex,
        "spool": inherited._rooms.spool._lock,
        "closing": inherited._closing,
        "loop": inherited._drains._starting,
        "losses": inherited._losses._lock,
    }
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[lock]:  # type: ignore[attr-defined]
            held.set()
            over.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)

    _fork._after_in_child()
    taken, flushed = agent.capture(event()), agent.flush(timeout=PATIENCE)
    over.set()
    holder.join(PATIENCE)
    inherited.close(timeout=1.0)

    assert (taken, flushed) == (True, True)


def test_a_stopped_agent_stays_stopped(make: Callable[..., Agent]) -> None:
    """A child does not start what its parent ended."""
    agent = make()
    agent.stop()

    _fork._after_in_child()
    taken = agent.capture(event())

    assert (taken, dropped(agent)) == (False, {"closed": 1})
    assert agent.stats().threads_alive == 0


def test_a_disabled_agent_stays_disabled() -> None:
    """It refuses for the same reason as before, which is no loss to warn of."""
    agent = Agent(config(api_key=None))

    _fork._after_in_child()
    agent.capture(event())

    assert dropped(agent) == {"disabled": 1}


def test_keys_are_the_childs_own(make: Callable[..., Agent]) -> None:
    """A child that used its parent's supply of keys would repeat them."""
    agent = make()
    agent._pipeline.keys.take()

    childs = in_child(lambda: [agent._pipeline.keys.take().hex() for _ in range(3)])
    parents = [agent._pipeline.keys.take().hex() for _ in range(3)]

    assert set(childs).isdisjoint(parents)


def test_request_under_way_is_the_parents(
    make: Callable[..., Agent], transport: ScriptedTransport
) -> None:
    """Its answer counts there and not in the child."""
    held = Held()
    transport.script(held)
    agent = make()
    agent.capture(event())
    assert held.reached.wait(PATIENCE)
    inherited = agent._pipeline

    _fork._after_in_child()
    held.let_go()
    inherited.close(timeout=PATIENCE)

    assert (inherited.stats().delivered, agent.stats().delivered) == (1, 0)


def test_rules_that_were_wanted_are_wanted_in_the_child(make: Callable[..., Agent]) -> None:
    """With a transport of its own an agent has none, before and after."""
    agent = make()
    heard: list[object] = []
    agent.on_rules(heard.append)
    agent.start()
    inherited = agent._pipeline

    _fork._after_in_child()
    rules = (agent.rules, agent.wait_for_rules(timeout=0.0))
    inherited.close(timeout=1.0)

    assert rules == (None, None)
    assert heard == []


def test_a_child_asks_for_rules_its_parent_wanted(make_agent: MakeAgent, backend: Backend) -> None:
    """Asking is enough: the child of a started agent starts its own."""
    agent = make_agent()
    agent.start()
    assert agent.rules is None
    inherited = agent._pipeline

    _fork._after_in_child()
    agent.wait_for_rules(timeout=PATIENCE)
    started = agent._is_started
    inherited.close(timeout=1.0)

    assert started
    assert len(backend.rules_requests) >= 1


def test_hooks_do_not_grow_with_agents() -> None:
    """Ten thousand agents that came and went leave nothing to be called (FIELD F10)."""
    gc.collect()
    before = len(_fork._watched)

    for _ in range(200):
        Agent(config(), transport=ScriptedTransport())
    gc.collect()

    assert len(_fork._watched) == before


def test_an_agent_nobody_holds_goes(make: Callable[..., Agent]) -> None:
    """Neither the fork hook nor the exit hook keeps a stopped one alive."""
    agent = Agent(config(), transport=ScriptedTransport())
    agent.capture(event())
    agent.stop()
    gone = weakref.ref(agent)

    del agent
    gc.collect()

    assert gone() is None
