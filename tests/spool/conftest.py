"""Places for spools: a Redis server for all tests in this process, and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spool.homes import DURABLE, Home, home_of
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Share one server; a test that hurts it, or that looks at all of it, starts its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=DURABLE)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """Run the test on each kind of durable spool; it is empty."""
    with home_of(request.param, tmp_path, lambda: request.getfixturevalue("redis_server")) as home:
        yield home


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Home]:
    """Give a place in a file; for what is the same whatever the store is."""
    with home_of("sqlite", tmp_path, RedisServer) as home:
        yield home
