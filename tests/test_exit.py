"""The one deadline that all agents of a process share at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from guardagent import Agent, SecurityEvent, _exit
from tests.scripted import OUTAGE, PATIENCE, Held, ScriptedTransport, config


@pytest.fixture(autouse=True)
def alone(no_leaks: None) -> Iterator[None]:
    """Leave out whatever other tests' agents left."""
    live, pids = set(_exit._live), set(_exit._finalized_pids)
    _exit.forget()
    yield
    _exit.forget()
    _exit._live.update(live)
    _exit._finalized_pids.update(pids)


class Leaver:
    """Notes what it is told, in a list it shares with others."""

    def __init__(self, name: str, told: list[Any], shutdown_timeout: float = 1.0) -> None:
        self.shutdown_timeout = shutdown_timeout
        self.is_settled = True
        self._name = name
        self._told = told

    def begin_farewell(self, deadline: float) -> None:
        self._told.append((self._name, "begin", deadline))

    def await_farewell(self, deadline: float) -> bool:
        self._told.append((self._name, "await", deadline))
        return self.is_settled

    def end_farewell(self, *, is_exit: bool) -> None:
        self._told.append((self._name, "end", is_exit))


def test_nobody_to_settle() -> None:
    """Nothing is left then."""
    assert _exit.settle_all() is True


def test_all_begin_before_any_is_waited_for() -> None:
    """Their work overlaps, and all have the same deadline: the longest (FIELD S11)."""
    told: list[Any] = []
    for name, seconds in (("a", 1.0), ("b", 500.0), ("c", 2.0)):
        _exit.enroll(Leaver(name, told, seconds))

    settled = _exit.settle_all()

    assert settled is True
    assert [step for _, step, _ in told] == ["begin"] * 3 + ["await"] * 3 + ["end"] * 3
    deadlines = {deadline for _, step, deadline in told if step != "end"}
    assert len(deadlines) == 1
    assert deadlines.pop() > _exit.SYSTEM_CLOCK.monotonic() + 100.0


def test_one_that_leaves_something_behind() -> None:
    """It is said, and does not keep the others from being waited for."""
    told: list[Any] = []
    first = Leaver("a", told)
    first.is_settled = False
    _exit.enroll(first)
    _exit.enroll(Leaver("b", told))

    assert _exit.settle_all(is_exit=False) is False
    assert [step for _, step, _ in told].count("await") == 2
    assert {argument for _, step, argument in told if step == "end"} == {False}


def test_whoever_left_is_not_settled() -> None:
    """Leaving twice does no harm."""
    told: list[Any] = []
    one = Leaver("a", told)
    _exit.enroll(one)

    _exit.leave(one)
    _exit.leave(one)
    _exit.settle_all()

    assert told == []


def test_children_of_multiprocessing_are_settled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run no atexit before 3.13: one finalizer in each process (FIELD K1)."""
    finalizers: list[Any] = []

    def finalize(owner: object, callback: object, exitpriority: int) -> None:
        finalizers.append((owner, callback, exitpriority))

    util: Any = SimpleNamespace(Finalize=finalize)
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util)

    _exit.enroll(Leaver("a", []))
    _exit.enroll(Leaver("b", []))

    assert finalizers == [(None, _exit.settle_all, 100)]
    assert _exit._finalized_pids == {os.getpid()}


@pytest.mark.parametrize("name", ["multiprocessing.util", "celery.signals"])
def test_modules_in_the_middle_of_their_import(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Another thread may be importing what an agent looks for when it starts."""
    told: list[Any] = []
    monkeypatch.setitem(sys.modules, name, ModuleType(name))

    _exit.enroll(Leaver("a", told))

    assert _exit.settle_all()
    assert told


def test_children_of_celery_are_settled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run no exit handler of any kind: Celery's own signal tells of their end (FIELD K3)."""
    told: list[Any] = []
    connected: dict[str, Any] = {}

    def connect(receiver: Any, *, weak: bool, dispatch_uid: str) -> None:
        connected[dispatch_uid] = receiver

    signals: Any = SimpleNamespace(worker_process_shutdown=SimpleNamespace(connect=connect))
    monkeypatch.setitem(sys.modules, "celery.signals", signals)

    _exit.enroll(Leaver("a", told))
    _exit.enroll(Leaver("b", told))
    for receiver in connected.values():
        receiver(sender="worker", pid=1, exitcode=0)

    assert len(connected) == 1
    assert sorted(name for name, what, _ in told if what == "begin") == ["a", "b"]


def test_without_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not imported for this."""
    monkeypatch.delitem(sys.modules, "multiprocessing.util", raising=False)

    _exit.enroll(Leaver("a", []))

    assert "multiprocessing.util" not in sys.modules
    assert _exit._finalized_pids == set()


# -- agents --------------------------------------------------------------------------------------


def captured(transport: ScriptedTransport, count: int = 1, **settings: Any) -> Agent:
    agent = Agent(config(**{"flush_interval": 3_600.0, **settings}), transport=transport)
    for _ in range(count):
        assert agent.capture(SecurityEvent(event_type="probe"))
    return agent


def test_ten_agents_are_settled_together() -> None:
    """Everything pending anywhere is delivered."""
    transports = [ScriptedTransport() for _ in range(10)]
    agents = [captured(transport, 3) for transport in transports]

    settled = _exit.settle_all(is_exit=False)
    for agent in agents:
        agent.stop()

    assert settled is True
    assert [len(transport.accepted) for transport in transports] == [3] * 10


def test_one_that_hangs_does_not_cost_the_others() -> None:
    """They deliver while it uses up the time they share."""
    held = Held(OUTAGE)
    hanging, quick = ScriptedTransport(held), ScriptedTransport()
    agents = [
        captured(hanging, shutdown_timeout=0.2, buffer_size=1),
        captured(quick, shutdown_timeout=0.2),
    ]
    assert held.reached.wait(PATIENCE)

    settled = _exit.settle_all(is_exit=False)
    held.let_go()
    for agent in agents:
        agent.stop(timeout=1.0)

    assert settled is False
    assert len(quick.accepted) == 1


def test_agents_go_on_after_a_signal() -> None:
    """When it was not the end after all, capturing and delivering go on as before."""
    transport = ScriptedTransport()
    agent = captured(transport, flush_interval=0.05)

    _exit.settle_all(is_exit=False)
    agent.capture(SecurityEvent(event_type="probe"))

    assert transport.wait_for(2)
    assert agent.stop() is True


def test_a_capture_after_the_exit_handlers() -> None:
    """It is delivered by the caller, for nobody else would wait for it."""
    transport = ScriptedTransport()
    agent = captured(transport)
    _exit.settle_all()

    taken = [agent.capture(SecurityEvent(event_type="late")) for _ in range(3)]

    assert taken == [True] * 3
    assert len(transport.accepted) == 4
    agent.stop()


def test_late_captures_share_one_deadline() -> None:
    """Once it is over no caller waits for a backend any more."""
    transport = ScriptedTransport()
    agent = captured(transport, shutdown_timeout=0.0)
    _exit.settle_all()

    taken = [agent.capture(SecurityEvent(event_type="late")) for _ in range(3)]
    agent.stop(timeout=0.0)

    assert taken == [True] * 3
    assert [sent.deadline for sent in transport.sent if sent.deadline is not None] == []
    assert agent.stats().pending == 0


def test_a_closed_agent_takes_nothing_late() -> None:
    """Exit handlers that run after `stop` change nothing."""
    transport = ScriptedTransport()
    agent = captured(transport)
    agent.stop()

    _exit.settle_all()

    assert agent.capture(SecurityEvent(event_type="late")) is False


def test_an_idle_agent_is_not_woken() -> None:
    """Where nothing is pending and nothing runs there is nothing to begin."""
    transport = ScriptedTransport()
    agent = Agent(config(), transport=transport)
    _exit.enroll(agent._pipeline)

    assert _exit.settle_all(is_exit=False) is True
    assert transport.sent == []
    agent.stop()


def test_a_late_capture_when_threads_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the interpreter is torn down all that is safe is to count."""
    transport = ScriptedTransport()
    agent = captured(transport)
    _exit.settle_all()

    with monkeypatch.context() as patch:
        patch.setattr(sys, "is_finalizing", lambda: True)
        taken = agent.capture(SecurityEvent(event_type="late"))

    assert taken is False
    assert agent.stats().dropped["closed"] == 1
    agent.stop()
