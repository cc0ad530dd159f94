"""Many threads at once, and threads of the agent that die or cannot be started."""

from __future__ import annotations

import builtins
import gc
import io
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from guardagent import Agent, AgentConfig
from tests.conftest import MakeAgent, quick_settings
from tests.faults.scripts import Run
from tests.support.accounts import (
    assert_balanced,
    assert_delivered,
    bounded,
    capture,
    event,
    repeats,
)
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.support.breakdowns import ResetBeforeAnswer
from tests.support.crowd import in_threads


@pytest.mark.parametrize("has_faults", [False, True], ids=["calm", "faults"])
def test_thirty_two_threads(backend: Backend, make_agent: MakeAgent, has_faults: bool) -> None:
    """Every event of 32 threads arrives, once, or more than once only after a fault."""
    if has_faults:
        backend.script(*[Status(503), ResetBeforeAnswer(), Status(429), Status(413)] * 3)
    agent = make_agent(buffer_size=200)
    keys: list[str] = []

    in_threads(32, lambda number: keys.extend(capture(agent, 100, metadata={"thread": number})))

    assert agent.flush(timeout=20.0)
    assert agent.stop(timeout=20.0)
    assert len(set(keys)) == 3_200
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []


def test_events_of_one_thread_stay_in_order(backend: Backend, make_agent: MakeAgent) -> None:
    """The order of capture is the order on the wire."""
    backend.script(Status(503), ResetBeforeAnswer(), Status(413))
    agent = make_agent(buffer_size=100)

    keys = capture(agent, 1_000)

    assert agent.flush(timeout=20.0)
    assert agent.stop(timeout=20.0)
    assert backend.received == keys
    assert_delivered(agent, backend, keys)


def test_stop_from_eight_threads(backend: Backend, make_agent: MakeAgent) -> None:
    """All calls come back, and the agent is stopped once."""
    agent = make_agent(flush_interval=60.0)
    keys = capture(agent, 100)
    results: list[bool] = []

    bounded(lambda: in_threads(8, lambda _: results.append(agent.stop(timeout=10.0))), 30.0)

    assert results == [True] * 8
    assert_delivered(agent, backend, keys)


def test_flush_from_eight_threads_during_capture(backend: Backend, make_agent: MakeAgent) -> None:
    """Flushes and captures at the same time get along."""
    agent = make_agent(buffer_size=5_000, flush_interval=60.0)
    keys: list[str] = []

    def work(_: int) -> None:
        for _ in range(10):
            keys.extend(capture(agent, 10))
            assert agent.flush(timeout=20.0)

    bounded(lambda: in_threads(8, work), 40.0)

    assert len(keys) == 800
    assert set(keys) == backend.keys
    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys)


def test_capture_during_stop_is_taken_or_counted(backend: Backend, make_agent: MakeAgent) -> None:
    """True before the stop means delivered; False means counted as closed, and never sent."""
    agent = make_agent()
    taken: list[str] = []
    refused: list[str] = []
    is_stopping = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            agent.stop(timeout=10.0)
            is_stopping.set()
            return
        while not refused or not is_stopping.wait(0.001):
            one = event()
            (taken if agent.capture(one) else refused).append(one.idempotency_key)

    bounded(lambda: in_threads(5, work), 30.0)

    stats = agent.stats()
    assert_balanced(agent)
    assert stats.dropped["closed"] == len(refused)
    assert not set(refused) & backend.keys
    assert backend.keys <= set(taken)
    # Four threads that never pause may fill the queue faster than it drains: that is counted too.
    lost = stats.dropped["shutdown"] + stats.dropped["overflow"]
    assert len(taken) == stats.delivered + lost


def test_capture_after_stop_is_refused(backend: Backend, make_agent: MakeAgent) -> None:
    """A stopped agent takes nothing, starts nothing and says so."""
    agent = make_agent()
    keys = capture(agent, 3)
    assert agent.stop(timeout=10.0)

    assert agent.capture(event()) is False

    stats = agent.stats()
    assert (stats.dropped["closed"], stats.captured, stats.threads_alive) == (1, 4, 0)
    assert backend.keys == set(keys)
    assert agent.stop() is True
    assert agent.flush(timeout=1.0) is True


@pytest.mark.parametrize("name", ["guardagent-intake", "guardagent-delivery"])
@pytest.mark.parametrize("dies", [False, True], ids=["survives", "dies"])
def test_thread_that_is_interrupted(run: Run, backend: Backend, name: str, dies: bool) -> None:
    """An exception out of nowhere costs nothing; a thread that dies of it is replaced.

    In a process of its own, without coverage: on 3.11 an exception that waits for a sleeping thread
    makes a traced one run in circles.
    """
    outcome = run("interrupted", victim=name, dies=dies, measured=False).wait()

    (report,) = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert (report["flushed"], report["stopped"], report["balanced"]) == (True, True, True)
    assert report["is_new"] is dies
    assert report["seen"][0] == "thread SystemExit"
    assert sorted(backend.received) == sorted(outcome.captured)


def test_no_thread_can_be_started(
    backend: Backend, make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where threads are refused capture works all the same, and flush delivers itself."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("guardagent"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    agent = make_agent()
    keys = capture(agent, 20)

    assert agent.flush(timeout=10.0)
    keys += capture(agent, 20)
    assert agent.stats().threads_alive == 0
    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys)


def test_caller_does_no_input_or_output(
    backend: Backend, make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, connections and files are the business of the agent's threads alone."""
    users: set[str] = set()

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*args: Any, **kwargs: Any) -> Any:
            users.add(threading.current_thread().name)
            return call(*args, **kwargs)

        return watch

    agent = make_agent()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", watched(socket.getaddrinfo))
        patch.setattr(socket.socket, "connect", watched(socket.socket.connect))
        patch.setattr(builtins, "open", watched(open))
        patch.setattr(io, "open", watched(io.open))
        patch.setattr(os, "open", watched(os.open))
        keys = capture(agent, 50)
        assert agent.flush(timeout=10.0)

    assert_delivered(agent, backend, keys)
    assert users
    assert {name for name in users if not name.startswith(("guardagent-", "backend-"))} == set()


def test_agents_side_by_side(backend: Backend, make_agent: MakeAgent) -> None:
    """Several agents in one process do not mix."""
    with Backend() as other:
        first, second = make_agent(), make_agent(endpoint=other.url)

        keys, other_keys = capture(first, 50), capture(second, 50)

        assert first.stop(timeout=10.0)
        assert second.stop(timeout=10.0)
        assert_delivered(first, backend, keys)
        assert_delivered(second, other, other_keys)


def test_stopped_agents_are_let_go(backend: Backend) -> None:
    """Neither the hook for forks nor the one for exits keeps an agent that is done with."""
    settings = quick_settings(backend.url)
    remains = []
    for n in range(30):
        agent = Agent(AgentConfig(**settings))
        if n % 2:
            capture(agent)
            assert agent.stop(timeout=10.0)
        remains.append(weakref.ref(agent))
        del agent
    gc.collect()

    assert [one() for one in remains] == [None] * 30
    assert len(backend.keys) == 15
