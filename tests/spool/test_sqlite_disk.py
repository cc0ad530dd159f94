"""A spool that fills its own disk: nothing more goes in, and all of it comes out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardagent.errors import SpoolError
from guardagent.spool.durable import DurableSpool
from guardagent.spool.frame import pack
from guardagent.spool.memory import MemorySpool
from guardagent.spool.sqlite import SQLiteStore
from guardagent.testing.clock import ManualClock
from tests.scripted import key, keys, records
from tests.spool.homes import LARGE, LEASE

NOW = 1_800_000_000.0


@pytest.fixture(params=[2, 6, 24], ids=lambda size: f"{size} MiB")
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give a file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], check=False).returncode:
        pytest.skip("a file system can be mounted by the superuser only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def store(disk: Path) -> Iterator[SQLiteStore]:
    store = _store(disk)
    yield store
    store.close()


def _store(disk: Path, **settings: Any) -> SQLiteStore:
    given = {"max_records": 10**6, "max_bytes": LARGE, "owner": "one", **settings}
    return SQLiteStore(disk / "spool.db", **given)


def fill(store: SQLiteStore, size: int = 500) -> int:
    """Append until the disk takes no more; return how many records it took."""
    total, told = 0, ""
    while not told:
        try:
            store.append({"events": [pack(one) for one in records(20, start=total, size=size)]})
            total += 20
        except SpoolError as error:
            told = str(error)
    assert told.endswith("spool.db: the disk is nearly full")
    return total


def empty(
    store: SQLiteStore, end: Callable[[SQLiteStore, list[int]], object], limit: int = 100
) -> list[str]:
    found: list[str] = []
    while (claim := store.claim(limit, LARGE, "name", NOW)[0]) is not None:
        found += keys(frame[13:] for _, frame in claim.entries)
        end(store, [one[0] for one in claim.entries])
    return found


def settle(store: SQLiteStore, ids: list[int]) -> object:
    return store.settle("events", ids)


@pytest.mark.parametrize("size", [80, 500, 20_000])
def test_a_disk_filled_by_the_spool_is_emptied(store: SQLiteStore, size: int) -> None:
    """To the last record; a good part of the disk was used, and is again."""
    total = fill(store, size)

    found = empty(store, settle)

    assert found == [key(n) for n in range(total)]
    assert total * size > shutil.disk_usage(store._file.path.parent).total // 3
    assert fill(store, size) > total * 0.7


def test_many_small_claims_empty_it(store: SQLiteStore) -> None:
    """Each is a transaction or two, and the log of thousands is longer than what is free."""
    total = fill(store, 2_000)

    assert len(empty(store, settle, limit=1)) == total


def test_it_can_be_emptied_to_the_dead_letters(store: SQLiteStore) -> None:
    """A backend that refuses everything frees nothing; all the same nothing gets stuck."""
    total = fill(store)

    found = empty(store, lambda one, ids: one.bury("events", ids, "rejected"))

    assert len(found) == total
    assert store.depth().records == 0


def test_it_can_be_purged(store: SQLiteStore) -> None:
    """At once, and then it takes as much as before."""
    total = fill(store)

    assert store.purge() == total
    assert fill(store) > total * 0.9


def test_what_goes_while_it_drains_makes_room(store: SQLiteStore) -> None:
    """Before the file system gets anything back the file's own free room is used."""
    fill(store)

    for n in range(30):
        claim = store.claim(100, LARGE, "name", NOW)[0]
        assert claim is not None
        settle(store, [one[0] for one in claim.entries])
        store.append({"events": [pack(one) for one in records(50, start=10_000 * n, size=500)]})


def test_a_spool_on_a_full_disk_delivers_everything(disk: Path) -> None:
    """What it has no room for waits in memory; nothing is lost, and all ends in the file again."""
    clock = ManualClock(NOW)
    errors: list[SpoolError] = []
    spool = DurableSpool(
        _store(disk, clock=clock),
        MemorySpool(10**6, LARGE),
        lease=LEASE,
        max_records=10**6,
        max_bytes=LARGE,
        clock=clock,
        on_error=errors.append,
    )
    total = 0
    while not spool.at_risk():
        spool.append(records(50, start=total, size=500))
        total += 50
    during = spool.durable

    found: list[str] = []
    while len(found) < total:
        clock.advance(6.0)
        while (batch := spool.claim(100, LARGE, NOW)) is not None:
            found += keys(batch.bodies)
            spool.ack(batch)
    spool.append(records(50, start=total))
    clock.advance(60.0)
    spool.tend()  # it is asked again whether it takes something in

    assert not during
    assert {str(error).rpartition(": ")[2] for error in errors} == {"the disk is nearly full"}
    assert sorted(found) == [key(n) for n in range(total)]
    assert (spool.durable, spool.at_risk()) == (True, 0)
    spool.close()


def test_a_disk_that_others_have_filled_is_an_outage(store: SQLiteStore, disk: Path) -> None:
    """Told as any other, and over when they make room."""
    store.append({"events": [pack(one) for one in records(20)]})
    other = disk / "other"
    with other.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(65_536))

    with pytest.raises(SpoolError):
        store.append({"events": [pack(one) for one in records(200, start=20, size=500)]})
    other.unlink()

    assert fill(store) > 0
