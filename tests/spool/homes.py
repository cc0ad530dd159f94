"""Places for records: spools of one kind that share what they keep, and time that can pass."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from guardagent.errors import SpoolError
from guardagent.spool.durable import DurableSpool
from guardagent.spool.memory import MemorySpool
from guardagent.spool.sqlite import SQLiteStore
from guardagent.spool.store import Store
from guardagent.testing.clock import ManualClock
from tests.spool.faulty import Faulty
from tests.support.redis_server import RedisServer

__all__ = ["DURABLE", "LARGE", "LEASE", "Agent", "Home", "home_of"]

LARGE = 1 << 30
LEASE = 15.0
#: The kinds of durable spool.
DURABLE = ["sqlite", "redis"]

_projects = itertools.count()


@attrs.define(eq=False)
class Agent:
    """A durable spool as one process has it, and what it was told."""

    spool: DurableSpool
    store: Any
    shelter: MemorySpool
    lost: list[tuple[str, int]]
    errors: list[SpoolError]
    wakes: list[None]

    def crash(self) -> None:
        """Leave everything as a process does that is killed."""
        self.store.close()


@attrs.define(eq=False)
class Home:
    """Makes stores and spools that share one place; everything is closed by `close`.

    Args:
        age: lets leases grow older by so many seconds where the clock is not ours.
    """

    kind: str
    _open: Callable[..., Any]
    age: Callable[[float], None]
    clock: ManualClock = attrs.field(factory=ManualClock)
    _stores: list[Any] = attrs.field(factory=list)
    _owners: Iterator[int] = attrs.field(factory=itertools.count)

    def store(self, **settings: Any) -> Store:
        """Return one more process's store."""
        given = {"max_records": 100_000, "max_bytes": LARGE, "lease": LEASE, "clock": self.clock}
        given["owner"] = f"owner-{next(self._owners)}"
        store: Store = self._open(**{**given, **settings})
        self._stores.append(store)
        return store

    def agent(
        self,
        store: Any = None,
        *,
        max_records: int = 100_000,
        max_bytes: int = LARGE,
        shelter_records: int = 100_000,
        **settings: Any,
    ) -> Agent:
        """Return one more process's spool over a store that can be told to fail."""
        bounds = {"max_records": max_records, "max_bytes": max_bytes}
        own = {name: settings.pop(name) for name in ("when_full",) if name in settings}
        lease = settings.setdefault("lease", LEASE)
        store = Faulty(store or self.store(**bounds, **own, lease=lease))
        shelter = MemorySpool(shelter_records, LARGE, **own)
        lost: list[tuple[str, int]] = []
        errors: list[SpoolError] = []
        wakes: list[None] = []
        spool = DurableSpool(
            store,
            shelter,
            **{
                **bounds,
                "clock": self.clock,
                "on_lost": lambda reason, n: lost.append((reason, n)),
                "on_error": errors.append,
                "wake": lambda: wakes.append(None),
                **settings,
            },
        )
        return Agent(spool, store, shelter, lost, errors, wakes)

    def spool(self, **settings: Any) -> DurableSpool:
        """Return one more process's spool."""
        return self.agent(**settings).spool

    def pass_time(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.clock.advance(seconds)
        self.age(seconds)

    def close(self) -> None:
        """Close all stores."""
        for store in self._stores:
            store.close()


@contextlib.contextmanager
def home_of(kind: str, folder: Path, redis: Callable[[], RedisServer]) -> Iterator[Home]:
    """Give a new place of that kind; `redis` is asked for a server when one is needed."""
    home = _in_redis(redis()) if kind == "redis" else _in_a_file(folder / "spool.db")
    try:
        yield home
    finally:
        home.close()


def _in_a_file(path: Path) -> Home:
    return Home("sqlite", lambda **given: SQLiteStore(path, **given), lambda _seconds: None)


def _in_redis(server: RedisServer) -> Home:
    from guardagent.spool.redis import RedisStore

    project = f"home-{next(_projects)}"
    return Home(
        "redis",
        lambda **given: RedisStore(server.url, project, **given),
        lambda seconds: _grow_old(server, project, seconds),
    )


def _grow_old(server: RedisServer, project: str, seconds: float) -> None:
    """Move the server's notes of when it leased each record, and looked for late ones, back."""
    import redis

    tag = f"guardagent:{{{project}}}"

    with redis.Redis(unix_socket_path=server.socket_path) as client:
        if client.hexists(f"{tag}:state", "swept"):
            client.hincrby(f"{tag}:state", "swept", -int(seconds * 1_000))
        for kind in ("events", "metrics"):
            stream, group = f"{tag}:{kind}", "agents"
            if not client.exists(stream):
                continue
            for one in client.xpending_range(stream, group, "-", "+", 10_000):
                idle = int(one["time_since_delivered"] + seconds * 1_000)
                ids, owner = [one["message_id"]], one["consumer"]
                client.xclaim(stream, group, owner, 0, ids, idle=idle, justid=True)
