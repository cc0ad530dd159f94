"""Callbacks and hooks of the application that misbehave."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from guardagent import Agent
from tests.conftest import MakeAgent
from tests.support.accounts import (
    assert_balanced,
    assert_delivered,
    bounded,
    capture,
    event,
)
from tests.support.answers import Status
from tests.support.backend import Backend


def test_callbacks_that_raise_break_nothing(backend: Backend, make_agent: MakeAgent) -> None:
    """Exceptions of the application's callbacks stay with the callbacks."""
    called: list[str] = []

    def explode(*args: Any) -> None:
        called.append(args[0])
        raise SystemExit("a callback")

    backend.script(*[Status(500)] * 2, Status(422))
    agent = make_agent(on_error=explode, on_drop=explode, retry_attempts=0)
    lost = capture(agent, 3)
    assert agent.flush(timeout=15.0)

    keys = lost + capture(agent, 3)

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys, dropped=lost)
    assert {"transport_send", "rejected"} <= set(called)


def test_callbacks_may_call_everything(backend: Backend, make_agent: MakeAgent) -> None:
    """A callback can use the agent it belongs to: nothing hangs, and nothing hears itself."""
    results: list[Any] = []
    agents: list[Agent] = []

    def curious(*_: object) -> None:
        agent = agents[0]
        results.append((agent.capture(event()), agent.stats().captured, agent.flush(timeout=0.1)))

    backend.script(*[Status(500)] * 3)
    agents.append(make_agent(on_error=curious, on_drop=curious, retry_attempts=0))
    keys = capture(agents[0], 3)

    assert agents[0].flush(timeout=15.0)
    assert agents[0].stop(timeout=10.0)
    assert results
    assert {taken for taken, _, _ in results} == {False}
    stats = agents[0].stats()
    assert_balanced(agents[0])
    assert stats.dropped["recursive"] >= 3
    assert backend.keys == set(keys)


def test_callback_that_stops_the_agent(backend: Backend, make_agent: MakeAgent) -> None:
    """Stopping from a callback comes back, and from outside too."""
    agents: list[Agent] = []
    results: list[bool] = []
    backend.default = Status(500)
    stopped = threading.Event()

    def stop(*_: object) -> None:
        results.append(agents[0].stop(timeout=0.5))
        stopped.set()

    agents.append(make_agent(on_error=stop, retry_attempts=0))
    capture(agents[0], 3)
    assert stopped.wait(10.0)

    bounded(lambda: agents[0].stop(timeout=0.5))

    assert_balanced(agents[0])
    assert agents[0].stats().captured == 3 + agents[0].stats().dropped["recursive"]


@pytest.mark.parametrize("failure", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
def test_hook_that_raises_sends_nothing(
    backend: Backend, make_agent: MakeAgent, failure: type[BaseException]
) -> None:
    """An event whose `before_send` raises is dropped, never sent as it was."""

    def hook(one: Any) -> Any:
        if one.reason == "secret":
            raise failure
        return one

    agent = make_agent(before_send=hook)

    keys = capture(agent, 3)
    lost = capture(agent, 2, reason="secret")
    keys += lost + capture(agent, 3)

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys, dropped=lost)
    assert agent.stats().dropped["hook_failed"] == 2


@pytest.mark.parametrize(
    "answer",
    [None, 7, "text", {}, object(), True],
    ids=["None", "7", "text", "dict", "object", "True"],
)
def test_hook_that_returns_something_else_sends_nothing(
    backend: Backend, make_agent: MakeAgent, answer: object
) -> None:
    """None filters; anything that is no event fails closed."""
    agent = make_agent(before_send=lambda one: answer if one.reason == "odd" else one)

    lost = capture(agent, 2, reason="odd")
    keys = lost + capture(agent, 2)

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys, dropped=lost)
    reason = "filtered" if answer is None else "hook_failed"
    assert agent.stats().dropped[reason] == 2
