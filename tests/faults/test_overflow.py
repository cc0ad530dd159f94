"""Full queues and full spools, by every policy."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from guardagent import Agent, BufferFull
from tests.conftest import MakeAgent
from tests.support.accounts import (
    assert_balanced,
    assert_delivered,
    bounded,
    capture,
    event,
)
from tests.support.answers import Held
from tests.support.backend import Backend
from tests.support.breakdowns import HangBeforeHeaders
from tests.support.crowd import in_threads


@pytest.mark.parametrize("where", ["queue", "spool"])
def test_drop_oldest(backend: Backend, make_agent: MakeAgent, where: str) -> None:
    """When there is no room the oldest give way, are counted, and the newest arrive."""
    agent = _stuck(backend, make_agent, where, overflow="drop_oldest")

    keys: list[str] = []
    in_threads(4, lambda _: keys.extend(capture(agent, 500)))
    last = capture(agent, 5)
    _release(backend)

    assert agent.stop(timeout=20.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert stats.pending == 0
    assert stats.dropped["overflow"] == sum(stats.dropped.values()) > 0
    assert stats.delivered == len(backend.keys)
    assert set(last) <= backend.keys


@pytest.mark.parametrize("where", ["queue", "spool"])
def test_drop_newest(backend: Backend, make_agent: MakeAgent, where: str) -> None:
    """When there is no room newcomers are refused; False means it never arrives."""
    agent = _stuck(backend, make_agent, where, overflow="drop_newest")
    taken: list[str] = []
    refused: list[str] = []

    def work(_: int) -> None:
        for _ in range(500):
            one = event()
            (taken if agent.capture(one) else refused).append(one.idempotency_key)

    in_threads(4, work)
    _release(backend)

    assert agent.stop(timeout=20.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert not set(refused) & backend.keys
    assert stats.dropped["overflow"] == sum(stats.dropped.values()) >= len(refused)
    assert stats.delivered == len(backend.keys)
    if where == "queue":
        assert set(taken[:10]) <= backend.keys


def test_raise(backend: Backend, make_agent: MakeAgent) -> None:
    """Who asked for it gets an exception; it means that the event never arrives."""
    agent = _stuck(backend, make_agent, "spool", overflow="raise", queue_capacity=10)
    taken: list[str] = []
    raised = 0
    for _ in range(500):
        one = event()
        try:
            assert agent.capture(one) is True
            taken.append(one.idempotency_key)
        except BufferFull:
            raised += 1
    _release(backend)

    assert raised > 0
    assert agent.stop(timeout=20.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert stats.dropped["overflow"] == sum(stats.dropped.values()) == raised
    assert set(taken) <= backend.keys


def test_block_waits_for_room(backend: Backend, make_agent: MakeAgent) -> None:
    """Who asked for it waits, and loses nothing while room comes in time."""
    agent = make_agent(
        overflow="block", block_timeout=20.0, queue_capacity=10, spool_max_records=20, buffer_size=5
    )
    keys: list[str] = []

    in_threads(8, lambda _: keys.extend(capture(agent, 50)))

    assert agent.stop(timeout=20.0)
    assert_delivered(agent, backend, keys)


def test_block_gives_up(backend: Backend, make_agent: MakeAgent) -> None:
    """The wait is bounded; then the event is refused and counted."""
    agent = _stuck(backend, make_agent, "spool", overflow="block", block_timeout=0.05,
                   queue_capacity=10)  # fmt: skip
    taken = [agent.capture(event()) for _ in range(200) if agent.stats().dropped["overflow"] < 3]
    _release(backend)

    assert agent.stop(timeout=20.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert taken.count(False) == stats.dropped["overflow"] == 3
    assert stats.delivered == len(backend.keys)


def test_bytes_are_bounded_too(backend: Backend, make_agent: MakeAgent) -> None:
    """In an outage the spool keeps to its bytes."""
    backend.default = HangBeforeHeaders()
    agent = make_agent(timeout=60.0, spool_max_bytes=50_000, buffer_size=10)

    capture(agent, 2_000, reason="x" * 500)

    assert agent.flush(timeout=0.5) is False
    stats = agent.stats()
    assert stats.spool_bytes <= 50_000
    assert stats.dropped["overflow"] > 1_000
    assert_balanced(agent)
    bounded(lambda: agent.stop(timeout=0.2))
    assert_balanced(agent)


_held: list[Held] = []


def _stuck(backend: Backend, make_agent: MakeAgent, where: str, **settings: Any) -> Agent:
    """Build an agent with little room, whose delivery (or whose drain) waits to be let go."""
    held = Held()
    _held.append(held)
    if where == "spool":
        backend.script(held)
        room = {"spool_max_records": 100, "max_batch_size": 50, "queue_capacity": 10_000}
        agent = make_agent(**{"timeout": 60.0, "buffer_size": 1, **room, **settings})
        assert agent.capture(event())
        assert backend.wait_for_requests(1)
        return agent
    entered = threading.Event()

    def hook(one: Any) -> Any:
        entered.set()
        held._gate.wait(30.0)
        return one

    agent = make_agent(before_send=hook, queue_capacity=100, **settings)
    assert agent.capture(event())
    assert entered.wait(10.0)
    return agent


def _release(backend: Backend) -> None:
    _held.pop().let_go()
