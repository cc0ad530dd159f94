"""From a setting to a spool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from guardagent._clock import SYSTEM_CLOCK
from guardagent.errors import ConfigError, SpoolError
from guardagent.spool import MemorySpool, Spool
from guardagent.spool.address import open_spool, open_store
from guardagent.spool.durable import DurableSpool
from guardagent.spool.sqlite import SQLiteStore
from guardagent.testing.clock import ManualClock
from tests.scripted import config, keys, record, records

LARGE = 1 << 30


def opened(clock: Any = SYSTEM_CLOCK, **settings: Any) -> Spool:
    return open_spool(
        config(**settings), clock, on_lost=lambda *_: 0, on_error=str, wake=lambda: None
    )


def test_memory() -> None:
    """The default, within its bounds."""
    spool = opened(spool_max_records=3)

    assert isinstance(spool, MemorySpool)
    assert spool.append(records(5)) == 2


def test_a_file(tmp_path: Path) -> None:
    """It is made when it is needed, and not before."""
    path = tmp_path / "a spool?#%41.db"
    spool = opened(spool=f"sqlite:///{path}")
    before = path.exists()

    spool.append(records(2))
    spool.close()

    assert isinstance(spool, DurableSpool)
    assert (before, path.exists()) == (False, True)
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == [path.name]


def test_redis() -> None:
    """No server is asked for before the first record."""
    from guardagent.spool.redis import RedisStore

    store = open_store(config(spool="redis://127.0.0.1:9", project_id="p"), SYSTEM_CLOCK)

    assert isinstance(store, RedisStore)
    assert isinstance(opened(spool="redis://127.0.0.1:9"), DurableSpool)
    store.close()


def test_memory_is_no_store() -> None:
    """Nobody else can reach it: whoever asks is told what would do."""
    with pytest.raises(ConfigError, match=r"^spool: given memory://, allowed: one that other"):
        open_store(config(), SYSTEM_CLOCK)


@pytest.mark.parametrize("overflow", ["drop_newest", "block", "raise"])
@pytest.mark.parametrize("where", ["memory", "sqlite"])
def test_only_the_oldest_give_way_in_a_spool(tmp_path: Path, overflow: str, where: str) -> None:
    """Under every other policy the drain waits for room, and the spool loses nothing."""
    address = "memory://" if where == "memory" else f"sqlite:///{tmp_path / 's.db'}"
    spool = opened(spool=address, overflow=overflow, spool_max_records=3)

    lost = spool.append(records(5))

    assert (lost, spool.room(), spool.pending()) == (0, 0, 5)
    spool.close()


@pytest.mark.parametrize(("interval", "poll"), [(0.05, 0.05), (30.0, 2.0)])
def test_others_are_looked_at_as_often_as_is_flushed(
    tmp_path: Path, interval: float, poll: float
) -> None:
    """At most every two seconds."""
    spool = opened(spool=f"sqlite:///{tmp_path / 's.db'}", flush_interval=interval)

    assert spool.poll_interval == poll


def test_whoever_does_not_deliver_hands_over(tmp_path: Path) -> None:
    """What is in the file is settled for it."""
    address = f"sqlite:///{tmp_path / 's.db'}"
    states = []
    for deliver in (True, False):
        spool = opened(spool=address, deliver=deliver)
        spool.append(records(1))
        states.append(spool.is_settled(spool.ticket()))
        spool.close()

    assert states == [False, True]


def test_the_lease_is_the_configured_one(tmp_path: Path) -> None:
    """What one process holds another takes after that time, not before."""
    clock, address = ManualClock(), f"sqlite:///{tmp_path / 's.db'}"
    holder = opened(clock, spool=address, spool_lease=40.0)
    other = opened(clock, spool=address, spool_lease=0.5)
    holder.append([record(0)])
    assert holder.claim(1, LARGE, 0.0)

    clock.advance(39.0)
    early = other.claim(1, LARGE, 0.0)
    clock.advance(2.0)
    late = other.claim(1, LARGE, 0.0)

    assert early is None
    assert late is not None
    assert keys(late.bodies) == ["key-000000"]
    holder.close()
    other.close()


@pytest.mark.parametrize(("fsync", "level"), [(False, 1), (True, 2)])
def test_fsync_is_passed_on(tmp_path: Path, fsync: bool, level: int) -> None:
    """SQLite waits for the disk at each commit, or at checkpoints only."""
    store = open_store(
        config(spool=f"sqlite:///{tmp_path / 's.db'}", spool_fsync=fsync), SYSTEM_CLOCK
    )
    assert isinstance(store, SQLiteStore)

    found = store._file.read(lambda db: db.execute("PRAGMA synchronous").fetchone())

    assert found == (level,)
    store.close()


def test_every_agent_is_an_owner_of_its_own(tmp_path: Path) -> None:
    """Two in one process, too; the name tells an operator where it runs."""
    settings = config(spool=f"sqlite:///{tmp_path / 's.db'}")
    owners = [open_store(settings, SYSTEM_CLOCK)._leases._owner for _ in range(2)]  # type: ignore[attr-defined]

    assert owners[0] != owners[1]
    assert f"-{os.getpid()}-" in owners[0]


def test_a_question_makes_no_file(tmp_path: Path) -> None:
    """Who only looks changes nothing, not even what is missing."""
    store = open_store(config(spool=f"sqlite:///{tmp_path / 's.db'}"), SYSTEM_CLOCK, read_only=True)

    with pytest.raises(SpoolError, match=r"s\.db"):
        store.depth()

    assert not (tmp_path / "s.db").exists()
