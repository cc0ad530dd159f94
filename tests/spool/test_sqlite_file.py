"""The file of a spool: what may happen to it, and what is made of that."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardagent.errors import SpoolError
from guardagent.spool.frame import pack
from guardagent.spool.sqlite import SQLiteStore
from tests.scripted import in_threads, key, keys, record, records
from tests.spool import children
from tests.spool.homes import LARGE, Home
from tests.spool.test_sqlite import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = _store(path)
    yield store
    store.close()


def _store(path: Path, **settings: Any) -> SQLiteStore:
    return SQLiteStore(path, max_records=10**6, max_bytes=LARGE, owner="one", **settings)


def put(store: SQLiteStore, count: int, *, start: int = 0, size: int = 40) -> None:
    store.append({"events": [pack(one) for one in records(count, start=start, size=size)]})


def settled(store: SQLiteStore, limit: int = 500) -> list[str]:
    claim, _ = store.claim(limit, LARGE, "name", 0.0)
    if claim is None:
        return []
    store.settle(claim.kind, [one[0] for one in claim.entries])
    return keys(frame[13:] for _, frame in claim.entries)


def pragma(store: SQLiteStore, name: str) -> Any:
    return store._file.read(lambda db: db.execute(f"PRAGMA {name}").fetchone())[0]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


# -- how it is written ---------------------------------------------------------------------------


def test_it_is_readable_by_its_owner_only(path: Path, store: SQLiteStore) -> None:
    """Events are nobody else's business; SQLite's side files follow."""
    put(store, 1)

    modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.glob("spool.db*")}

    assert len(list(path.parent.glob("spool.db*"))) == 3
    assert modes == {0o600}


def test_what_others_may_read_becomes_ours(path: Path, store: SQLiteStore) -> None:
    """A file that was there before, and what SQLite has beside it."""
    put(store, 1)
    for one in path.parent.glob("spool.db*"):
        one.chmod(0o664)
    touched = path.with_name("touched.db")
    touched.touch(0o644)

    other = _store(path)
    put(other, 1)
    new = _store(touched)
    put(new, 1)

    files = list(path.parent.glob("*.db*"))
    modes = {stat.S_IMODE(one.stat().st_mode) for one in files}
    assert len(files) == 6
    assert modes == {0o600}
    other.close()
    new.close()


def test_a_file_is_of_one_project(path: Path) -> None:
    """Whoever comes first; another's records would go under a wrong name, and with a wrong key."""
    stores = [_store(path, project=name) for name in ("shop", "bank", "", None)]
    first, second, nobody, operator = stores
    put(first, 3)

    for one, named in ((second, "project 'bank'"), (nobody, "no project")):
        with pytest.raises(SpoolError, match=f"belongs to project 'shop', not to {named}"):
            one.claim(10, LARGE, "name", 0.0)

    assert operator.depth().records == 3  # who need not say whose it is
    assert len(settled(first)) == 3
    for one in stores:
        one.close()


def test_readers_are_not_locked_out(path: Path, store: SQLiteStore) -> None:
    """In WAL mode a question is answered while another process writes."""
    put(store, 3)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    found = store.depth().records

    assert (pragma(store, "journal_mode"), found) == ("wal", 3)
    writer.close()


@pytest.mark.parametrize(("fsync", "level"), [(False, 1), (True, 2)])
def test_the_disk_is_waited_for_if_asked(path: Path, fsync: bool, level: int) -> None:
    """NORMAL waits at checkpoints, FULL at each commit (sqlite.org/pragma.html)."""
    store = _store(path, fsync=fsync)

    put(store, 1)

    assert pragma(store, "synchronous") == level
    store.close()


def test_an_append_is_one_commit(path: Path, store: SQLiteStore) -> None:
    """However many records a drain brings, of whatever kind: the log ends one transaction."""
    put(store, 1)
    before = _commits(path)

    store.append(
        {
            "events": [pack(record(n)) for n in range(100)],
            "metrics": [pack(record(n, "metrics")) for n in range(50)],
        }
    )

    assert _commits(path) == before + 1


def _commits(path: Path) -> int:
    """Count the frames of the log that end a transaction (sqlite.org/fileformat2.html 4.1)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    salt = log[16:24]
    frames = (log[at : at + 24] for at in range(32, len(log), 24 + page))
    return sum(one[8:16] == salt and one[4:8] != b"\0\0\0\0" for one in frames)


@pytest.mark.slow
def test_the_file_shrinks_after_an_outage(path: Path, store: SQLiteStore) -> None:
    """What thirty megabytes of backlog took is given back while it drains."""
    for start in range(0, 7_500, 500):
        put(store, 500, start=start, size=4_000)
    largest = _size(path)

    total = 0
    while some := settled(store):
        total += len(some)
    put(store, 1)
    settled(store)

    assert total == 7_500
    assert largest > 30_000_000
    assert _size(path) < 14_000_000
    store.close()
    assert _size(path) < 6_000_000


def test_a_purge_gives_the_disk_back(path: Path, store: SQLiteStore) -> None:
    """At once; what is left is about as large as a new file."""
    for start in range(0, 4_000, 500):
        put(store, 500, start=start, size=4_000)
    before = _size(path)

    store.purge()

    assert before > 16_000_000
    assert _size(path) < 200_000


def test_what_expires_gives_the_disk_back(path: Path, store: SQLiteStore) -> None:
    """As what is delivered does."""
    for start in range(0, 20_000, 500):
        put(store, 500, start=start, size=500)
    store.close()
    before = _size(path)

    store.expire(4e9)
    store.close()

    assert before > 11_000_000
    assert _size(path) < 7_000_000


def test_what_was_settled_is_settled_although_somebody_writes(
    path: Path, store: SQLiteStore
) -> None:
    """Giving room back can wait; the settlement is done and must not be told as a failure."""
    for start in range(0, 6_000, 500):
        put(store, 500, start=start, size=4_000)
    store._file.transaction(lambda db: db.execute("DELETE FROM events"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    store._file.shrink()
    other.execute("ROLLBACK")
    before = pragma(store, "freelist_count")
    store._file.shrink()

    assert pragma(store, "freelist_count") < before
    other.close()


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in path.parent.glob("spool.db*"))


def test_the_file_does_not_grow_under_constant_load(path: Path, store: SQLiteStore) -> None:
    """Room that was freed is used again."""
    put(store, 200, size=2_000)
    sizes = []

    for n in range(60):
        put(store, 100, start=200 + 100 * n, size=2_000)
        settled(store, 100)
        sizes.append(_size(path))

    assert sizes[-1] <= max(sizes[:45]) * 1.05


# -- what somebody else does to it ---------------------------------------------------------------


@pytest.mark.parametrize("with_log", [True, False], ids=["all of it", "without its log"])
def test_a_deleted_file_is_made_anew(path: Path, store: SQLiteStore, with_log: bool) -> None:
    """With the next operation; the new one is known by its generation."""
    put(store, 3)
    before = store.depth().generation
    for name in ("spool.db", "spool.db-wal", "spool.db-shm")[: 3 if with_log else 1]:
        path.with_name(name).unlink()

    put(store, 2, start=3)

    depth = store.depth()
    assert depth.records == 2
    assert before != depth.generation
    assert settled(store) == [key(3), key(4)]


def test_a_replaced_file_is_used(path: Path, store: SQLiteStore) -> None:
    """Somebody has put another spool there."""
    put(store, 3)
    other = _store(path.with_name("other.db"))
    put(other, 2, start=10)
    generation = other.depth().generation
    other.close()
    for name in ("spool.db-wal", "spool.db-shm"):
        path.with_name(name).unlink()

    path.with_name("other.db").rename(path)

    assert store.depth().generation == generation
    assert settled(store) == [key(10), key(11)]


def test_two_processes_see_a_deleted_file(path: Path, store: SQLiteStore) -> None:
    """Neither hurts what the other has begun anew."""
    other = _store(path)
    put(store, 2)
    put(other, 2, start=2)
    for one in path.parent.glob("spool.db*"):
        one.unlink()

    put(store, 2, start=10)
    put(other, 2, start=12)
    store.close()
    put(other, 2, start=14)

    assert settled(other) == [key(n) for n in range(10, 16)]
    assert pragma(other, "integrity_check") == "ok"
    other.close()


def test_ids_of_two_files_never_meet(path: Path, store: SQLiteStore) -> None:
    """What was claimed from the old one cannot be settled in the new one."""
    put(store, 5)
    claim, _ = store.claim(5, LARGE, "name", 0.0)
    assert claim is not None
    path.unlink()
    put(store, 5)

    gone, depth = store.settle("events", [one[0] for one in claim.entries])

    assert (gone, depth.records) == (0, 5)


def _overwritten(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xde\xad" * (length // 2))


def _use(store: SQLiteStore) -> None:
    """Reach every page."""
    for _ in range(3):
        put(store, 1, start=500)
        settled(store)


@pytest.mark.parametrize("at", [4_096, 100], ids=["pages", "header"])
def test_a_damaged_file_is_put_aside(path: Path, at: int, caplog: pytest.LogCaptureFixture) -> None:
    """Kept under another name for whoever looks after it; a new one takes its place."""
    store = _store(path)
    put(store, 500)
    store.close()
    _overwritten(path, at, path.stat().st_size - at)

    with caplog.at_level(logging.ERROR, "guardagent"), pytest.raises(SpoolError, match="spool.db"):
        _use(store)
    put(store, 1, start=501)

    aside = list(path.parent.glob("spool.db.damaged-*"))
    assert len(aside) == 1
    assert [aside[0].name in line.getMessage() for line in caplog.records] == [True]
    assert key(501) in settled(store)
    store.close()


def test_a_file_damaged_under_a_spool_costs_what_was_in_it(
    file: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, and everything since is delivered."""
    agent = file.agent()
    agent.spool.append(records(300, size=400))
    path: Path = agent.store.store._file.path
    agent.store.store.close()
    _overwritten(path, 4_096, path.stat().st_size - 4_096)

    for n in range(20):
        agent.spool.append([record(300 + n)])
        agent.spool.tend()
        file.clock.advance(6.0)
    found = []
    while (batch := agent.spool.claim(100, LARGE, 0.0)) is not None:
        found += keys(batch.bodies)
        agent.spool.ack(batch)

    assert agent.spool.durable
    assert agent.lost == [("spool_lost", 300)]
    assert found == [key(300 + n) for n in range(20)]
    assert agent.spool.balance() == 0


def test_the_slower_of_two_puts_nothing_good_aside(path: Path) -> None:
    """A damaged file is put aside once, however many processes start on it."""
    good = _store(path)
    put(good, 100)
    good.close()
    _overwritten(path, 4_096, path.stat().st_size - 4_096)
    stores = [_store(path) for _ in range(4)]

    def work(number: int) -> int:
        kept = 0
        for n in range(10):
            try:
                put(stores[number], 1, start=1_000 * number + n)
                kept += 1
            except SpoolError:
                pass
        return kept

    kept = sum(in_threads(4, work))

    aside = [one for one in path.parent.glob("spool.db.damaged-*") if one.suffix[-1].isdigit()]
    assert len(aside) == 1
    assert stores[0].depth().records == kept
    for store in stores:
        store.close()


def test_a_file_that_knows_nothing_of_a_kind_is_put_aside(path: Path, store: SQLiteStore) -> None:
    """A spool with a row missing is as damaged as one with a page missing."""
    put(store, 3)
    store._file.transaction(lambda db: db.execute("DELETE FROM lanes WHERE kind = 'events'"))

    with pytest.raises(SpoolError, match=r"spool\.db: malformed"):
        put(store, 1)
    put(store, 1, start=3)

    assert len(list(path.parent.glob("spool.db.damaged-*"))) >= 1
    assert settled(store) == [key(3)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE lanes SET tail = 'text'",
        "UPDATE lanes SET head = x'00', divide = 'y'",
        "UPDATE lanes SET tail = 9223372036854775807",
        "UPDATE lanes SET records = 9e999",
        "DROP TABLE lanes",
    ],
)
def test_nonsense_in_the_file_is_an_error_of_the_spools(
    path: Path, store: SQLiteStore, damage: str
) -> None:
    """Whatever it leads to in the end: nothing else comes out of a store."""
    put(store, 3)
    store._file.transaction(lambda db: db.execute(damage))

    for work in (lambda: put(store, 1), lambda: settled(store), store.depth, store.purge):
        with contextlib.suppress(SpoolError):
            work()


def test_a_path_of_any_bytes(path: Path) -> None:
    """Not every name of a file is text."""
    store = _store(Path(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9 100%?#.db")))

    put(store, 2)

    assert store.depth().records == 2
    assert os.path.exists(os.fsencode(path.parent) + b"/caf\xe9 100%?#.db")  # noqa: PTH110
    store.close()


def test_a_path_that_cannot_be(path: Path) -> None:
    """An error of the spool's, too."""
    with pytest.raises(SpoolError):
        put(_store(path.with_name("nul\0.db")), 1)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_newer_file_is_left_as_it_is(path: Path, mode: str) -> None:
    """A later release's spool is refused by name, and not one byte of it changes."""
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("PRAGMA user_version = 2")
        db.execute("CREATE TABLE events (something TEXT)")
    db.close()
    before = snapshot(path.parent)
    store = _store(path)

    for _ in range(2):
        with pytest.raises(SpoolError, match=r"spool\.db: .*version 2; this release knows .*1"):
            put(store, 1)

    store.close()
    assert snapshot(path.parent) == before


def test_another_programs_database_is_left_as_it_is(path: Path) -> None:
    """A wrong path must not put our tables among somebody else's."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    before = snapshot(path.parent)
    store = _store(path)

    with pytest.raises(SpoolError, match=r"spool\.db: "):
        put(store, 1)

    store.close()
    assert snapshot(path.parent) == before


def test_another_programs_file_is_left_as_it_is(path: Path) -> None:
    """No database at all: it is not renamed, for the path is what is wrong."""
    path.write_text("the only copy of something dear\n" * 200)
    before = snapshot(path.parent)
    store = _store(path)

    for _ in range(2):
        with pytest.raises(SpoolError, match=r"spool\.db: "):
            put(store, 1)

    store.close()
    assert snapshot(path.parent) == before


def test_a_folder_in_the_files_place(path: Path) -> None:
    """An error that names it."""
    path.mkdir()
    store = _store(path)

    with pytest.raises(SpoolError, match=r"spool\.db: "):
        put(store, 1)


def test_a_missing_folder(path: Path) -> None:
    """An error that names the file; when the folder is there the file is made."""
    store = _store(path.parent / "later" / "spool.db")
    with pytest.raises(SpoolError, match=r"later/spool\.db: "):
        put(store, 1)

    (path.parent / "later").mkdir()
    put(store, 1)

    assert store.depth().records == 1
    store.close()


# -- a disk that is full, files that cannot be written, locks ------------------------------------


def test_a_full_file_keeps_what_it_has(path: Path, store: SQLiteStore) -> None:
    """An append that does not fit is undone whole; afterwards the file is as good as before."""
    put(store, 50, size=1_000)
    store._file.transaction(
        lambda db: db.execute(
            f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 2}"
        ).fetchall()
    )

    with pytest.raises(SpoolError, match="full"):
        put(store, 50, start=50, size=1_000)

    assert store.depth().records == 50
    put(store, 50, start=100, size=1_000)  # by a new connection, without that bound
    assert len(settled(store)) == 100


@pytest.mark.slow
def test_a_full_disk_is_an_outage(tmp_path: Path) -> None:
    """In a process whose files must not grow: nothing is lost, all of it is delivered after."""
    report = tmp_path / "report.json"

    codes = run("spawn", (children.meet_a_full_disk, str(tmp_path / "spool.db"), str(report)))

    told = json.loads(report.read_text())
    assert codes == [0]
    assert told["during"][:3] == [False, True, 1_010]
    assert told["after"] == [True, False, 1_010, 1_010]
    assert sorted(told["found"]) == [key(n) for n in range(1_010)]
    assert told["n"] < 15, told["errors"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_folder_that_must_not_be_written_is_an_outage() -> None:
    """As one who has not the right to; once it has, all of it is in the file."""
    with tempfile.TemporaryDirectory() as name:  # one that its new owner can reach
        folder = Path(name) / "in"
        folder.mkdir()
        Path(name).chmod(0o711)
        report = folder / "report.json"

        # Forked: one that has given its rights up could not read the interpreter's files.
        codes = run(
            "fork", (children.meet_a_read_only_folder, str(folder / "spool.db"), str(report))
        )

        told = json.loads(report.read_text())
    assert codes == [0]
    assert told["during"] == [False, True, 40, 40]
    assert told["after"] == [True, False, 40, 40]
    assert sorted(told["found"]) == [key(n) for n in range(40)]


@pytest.mark.slow
def test_a_lock_for_longer_than_patience_is_an_outage(file: Home) -> None:
    """Another process holds the file; capture goes on in memory, and the file is caught up with."""
    agent = file.agent()
    agent.spool.append([record(0)])
    other = sqlite3.connect(agent.store.store._file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    agent.spool.append([record(1)])
    during = (agent.spool.durable, agent.spool.at_risk(), str(agent.errors[-1]))
    other.execute("ROLLBACK")
    file.clock.advance(6.0)
    agent.spool.tend()

    other.close()
    assert during[:2] == (False, 1)
    assert "locked" in during[2]
    assert (agent.spool.durable, agent.spool.at_risk()) == (True, 0)
    assert agent.store.store.depth().records == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_waits_for_no_other_process(path: Path, store: SQLiteStore) -> None:
    """One that was stopped in a transaction holds up neither the fork nor the child's own use."""
    put(store, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    failures: list[SpoolError] = []

    def wait_in_vain() -> None:
        try:
            put(store, 1, start=1)
        except SpoolError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait_in_vain)
    waiting.start()
    statuses = []
    while waiting.is_alive():
        child = os.fork()
        if child == 0:
            os._exit(1 if store._file._connection is not None else 0)
        statuses.append(os.waitpid(child, 0)[1])
    other.execute("ROLLBACK")
    other.close()

    assert len(statuses) > 5, "all the while, and not just when it was over"
    assert set(statuses) == {0}, "no child has inherited the connection"
    assert ["locked" in str(error) for error in failures] == [True]
    assert sorted(settled(store)) == [key(0)]


def test_a_short_lock_is_waited_for(path: Path, store: SQLiteStore) -> None:
    """Processes that write at the same moment do not disturb each other."""
    put(store, 1)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    begun = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            begun.set()
            put(store, 1, start=1)
        else:
            begun.wait(20.0)
            other.execute("ROLLBACK")

    in_threads(2, work)

    assert store.depth().records == 2
    other.close()


# -- only looking --------------------------------------------------------------------------------


def test_a_look_changes_nothing(path: Path, store: SQLiteStore) -> None:
    """Read-only, it answers; to write with it is an error."""
    put(store, 3)
    looking = _store(path, read_only=True)

    found = (looking.depth().records, len(looking.waiting(10)), looking.count_dead())
    with pytest.raises(SpoolError):
        put(looking, 1)

    assert found == (3, 3, 0)
    assert store.depth().records == 3
    looking.close()


@pytest.mark.parametrize("content", [None, b"", b"something else" * 100])
def test_a_look_where_no_spool_is(path: Path, content: bytes | None) -> None:
    """It is an error, and leaves what is there alone."""
    if content is not None:
        path.write_bytes(content)
    before = snapshot(path.parent)
    looking = _store(path, read_only=True)

    with pytest.raises(SpoolError, match=r"spool\.db: "):
        looking.depth()

    looking.close()
    assert snapshot(path.parent) == before


# -- the connection ------------------------------------------------------------------------------


def test_a_closed_file_opens_again(path: Path, store: SQLiteStore) -> None:
    """Closing lets go of every descriptor; the store goes on when it is used."""
    put(store, 1)
    store.close()
    store.close()
    left = _descriptors(path)

    put(store, 1, start=1)

    assert (left, store.depth().records) == (0, 2)


def test_failures_leave_no_descriptor(path: Path) -> None:
    """However often a file is refused."""
    path.write_text("no database" * 100)
    store = _store(path)

    for _ in range(20):
        with pytest.raises(SpoolError):
            store.depth()

    assert _descriptors(path) == 0


def _descriptors(path: Path) -> int:
    opened = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
    return sum(str(one).startswith(str(path)) for one in opened)
