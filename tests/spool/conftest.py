"""A Redis server for all tests of spools in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Share one server; a test that hurts it, or that looks at all of it, starts its own."""
    with RedisServer() as server:
        yield server
