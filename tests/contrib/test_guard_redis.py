"""Pending events wait in the Redis that the Guard library uses, and survive the agent."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

import guardagent
from guardagent.contrib.guard import guard_agent
from guardagent.contrib.guard.models import SecurityEvent
from tests.conftest import quick_settings
from tests.support.backend import Backend
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

pytest.importorskip("guard_core")
pytest.importorskip("guardagent.spool.redis")

ASYNC = "guard_core.handlers.redis_handler"
SYNC = "guard_core.sync.handlers.redis_handler"


@pytest.fixture
def redis_server(no_leaks: None) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def manager(home: str, url: str) -> Any:
    from guard_core import SecurityConfig

    kind = importlib.import_module(home).RedisManager
    return kind(SecurityConfig(enable_redis=True, redis_url=url))


@pytest.mark.parametrize("home", [ASYNC, SYNC])
def test_events_outlive_the_agent(home: str, backend: Backend, redis_server: RedisServer) -> None:
    """What a stopped agent could not deliver is delivered by the next one, from Redis."""
    settings = {"project_id": home.replace(".", "-"), "shutdown_timeout": 0.2}
    handler = guard_agent(guardagent.AgentConfig(**{**quick_settings(backend.url), **settings}))
    backend.down()
    handler.start()
    handler.send_event(SecurityEvent(event_type="before"))

    handler.initialize_redis(manager(home, redis_server.url))
    handler.initialize_redis(manager(home, redis_server.url))  # a second middleware does it again
    handler.send_event(SecurityEvent(event_type="after"))
    handler.agent.flush(timeout=0.5)
    is_durable = handler.agent.stats().durable
    handler.stop()
    backend.up()
    handler.start()
    arrived = backend.wait_for(1)
    handler.stop()

    assert is_durable
    assert arrived
    sent = [event["event_type"] for one in backend.requests for event in one.document["events"]]
    assert "after" in sent
