"""Durable spools of both kinds for the commands that work on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from guardagent import Agent, AgentConfig, SecurityEvent
from tests.cli.shared import KEY, Relay, SharedSpool
from tests.support.backend import Backend
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def own_redis() -> Iterator[RedisServer]:
    """Share one server among these tests; each uses a project of its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def shared_spool(request: pytest.FixtureRequest, tmp_path: Path) -> SharedSpool:
    """A spool that processes share, empty."""
    if request.param == "sqlite":
        return SharedSpool(f"sqlite:///{tmp_path}/spool.db", "shop")
    return SharedSpool(request.getfixturevalue("own_redis").url, f"shop-{uuid4().hex[:8]}")


@pytest.fixture
def sqlite_spool(tmp_path: Path) -> SharedSpool:
    """A spool in a file, empty."""
    return SharedSpool(f"sqlite:///{tmp_path}/spool.db", "shop")


@pytest.fixture
def fill() -> Callable[..., list[str]]:
    """Put events into a spool as an application does; returns their keys."""

    def put(spool: SharedSpool, count: int, reason: str = "test") -> list[str]:
        agent = Agent(
            AgentConfig(
                api_key=KEY,
                project_id=spool.project,
                spool=spool.url,
                deliver=False,
                status_interval=86_400,
            )
        )
        keys = []
        for _ in range(count):
            event = SecurityEvent(event_type="login_failed", reason=reason)
            assert agent.capture(event)
            keys.append(str(event.idempotency_key))
        assert agent.stop(timeout=20)
        return keys

    return put


@pytest.fixture
def relay(backend: Backend) -> Iterator[Callable[..., Relay]]:
    """Start relays to `backend`; all are ended at the end."""
    with contextlib.ExitStack() as stack:

        def start(spool: SharedSpool, *arguments: str, **environ: str) -> Relay:
            started = Relay(spool, backend.url, *arguments, **environ)
            return stack.enter_context(contextlib.closing(started))

        yield start
