"""The store in a file: what one host's processes share, live through and die of."""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardagent.spool.durable import DurableSpool
from guardagent.spool.frame import pack
from guardagent.spool.memory import MemorySpool
from guardagent.spool.sqlite import SQLiteStore
from guardagent.testing.clock import ManualClock
from tests.scripted import PATIENCE, key, keys, record, records
from tests.spool import children
from tests.spool.homes import LARGE, LEASE

NOW = 1_800_000_000.0
#: From ids to bodies.
Entries = list[tuple[int, bytes]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


class Stores:
    """Makes stores of one file, each of another owner."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self._clock = clock
        self._made: list[SQLiteStore] = []

    def __call__(self, **settings: Any) -> SQLiteStore:
        given: dict[str, Any] = {"max_records": 10**6, "max_bytes": LARGE, "lease": LEASE}
        given |= {"owner": f"owner-{len(self._made)}", "clock": self._clock}
        self._made.append(SQLiteStore(self.path, **{**given, **settings}))
        return self._made[-1]

    def close(self) -> None:
        for store in self._made:
            store.close()


@pytest.fixture
def stores(tmp_path: Path, clock: ManualClock) -> Iterator[Stores]:
    made = Stores(tmp_path / "spool.db", clock)
    yield made
    made.close()


def put(store: SQLiteStore, count: int, *, start: int = 0, **fields: Any) -> None:
    store.append({"events": [pack(one) for one in records(count, start=start, **fields)]})


def claimed(store: SQLiteStore, limit: int = 100, max_bytes: int = LARGE) -> list[str]:
    """Claim and forget; return the keys."""
    claim, _ = store.claim(limit, max_bytes, "name", NOW)
    if claim is None:
        return []
    store.settle(claim.kind, [one[0] for one in claim.entries])
    return keys(frame[13:] for _, frame in claim.entries)


def numbers(count: int, start: int = 0) -> list[str]:
    return [key(n) for n in range(start, start + count)]


# -- the order -----------------------------------------------------------------------------------


def test_a_short_backlog_comes_in_order(stores: Stores, clock: ManualClock) -> None:
    """Four claims of old records do not let news wait for long: nothing is turned round."""
    store = stores()
    put(store, 40, created_at=NOW)
    clock.advance(100.0)
    put(store, 10, start=40, created_at=clock.now())

    found = [claimed(store, 10) for _ in range(5)]

    assert [one for some in found for one in some] == numbers(50)


def test_news_do_not_wait_for_history(stores: Stores, clock: ManualClock) -> None:
    """While a long backlog drains, every other claim is of what came after it began to."""
    store = stores()
    put(store, 100, created_at=NOW)
    clock.advance(100.0)
    found = [claimed(store, 10)]
    put(store, 30, start=100, created_at=clock.now())

    found += [claimed(store, 10) for _ in range(12)]

    firsts = [some[0] for some in found]
    assert sorted(one for some in found for one in some) == numbers(130)
    news = [n for n, first in enumerate(firsts) if first >= key(100)]
    assert len(news) == 3
    assert news[-1] - news[0] == 4
    assert news[0] <= 2
    history = [one for some in found for one in some if one < key(100)]
    assert history == sorted(history)


def test_history_comes_to_its_end_and_begins_again(stores: Stores, clock: ManualClock) -> None:
    """One divide after another, until nothing is left, each record once."""
    store, total = stores(), 0
    found: list[str] = []
    for _ in range(6):
        put(store, 60, start=total, created_at=clock.now())
        total += 60
        clock.advance(60.0)
        for _ in range(4):
            found += claimed(store, 10)

    while some := claimed(store, 10):
        found += some

    assert sorted(found) == numbers(total)
    assert store.depth().records == 0


def test_two_processes_drain_history_and_news(stores: Stores, clock: ManualClock) -> None:
    """Each record is leased once, whoever's turn it is, and what one held the other gets."""
    one, other = stores(), stores()
    put(one, 100, created_at=NOW)
    clock.advance(100.0)
    found = claimed(one, 10)
    put(other, 50, start=100, created_at=clock.now())
    for _ in range(3):
        assert one.claim(10, LARGE, "held", NOW)[0]
        found += claimed(other, 10)

    clock.advance(LEASE + 1)
    while some := claimed(other, 10):
        found += some

    assert sorted(found) == numbers(150)


def test_what_waits_behind_evicted_records_is_found(stores: Stores, clock: ManualClock) -> None:
    """The oldest history gives way, and the claims go on behind it."""
    store = stores(max_records=60)
    put(store, 60, created_at=NOW)
    clock.advance(100.0)
    claimed(store, 10)
    put(store, 55, start=60, created_at=clock.now())

    found: list[str] = []
    while some := claimed(store, 10):
        found += some

    assert sorted(found) == numbers(60, 55)


def test_old_history_expires_with_a_divide(stores: Stores, clock: ManualClock) -> None:
    """Behind both heads; the young and the leased stay."""
    store = stores()
    put(store, 60, created_at=NOW)
    clock.advance(100.0)
    leased, _ = store.claim(10, LARGE, "name", NOW)
    put(store, 5, start=60, created_at=clock.now())

    gone, depth = store.expire(NOW + 50)

    assert leased is not None
    assert (gone, depth.records) == (50, 15)
    assert claimed(store) == numbers(5, 60)


# -- leases --------------------------------------------------------------------------------------


def test_a_longer_lease_is_respected(stores: Stores, clock: ManualClock) -> None:
    """By a process whose own leases are short."""
    patient, hasty = stores(lease=3_600.0), stores(lease=0.5)
    put(patient, 3)
    patient.claim(3, LARGE, "name", NOW)

    clock.advance(3_000.0)
    early = claimed(hasty)
    clock.advance(700.0)

    assert (early, claimed(hasty)) == ([], numbers(3))


def test_a_lease_from_before_a_restart_of_the_machine(stores: Stores) -> None:
    """The clock has begun anew: its deadline would not come for days, so it holds no more."""
    before = stores(clock=_late_clock())
    put(before, 3)
    before.claim(3, LARGE, "the name", 5.0)

    claim, _ = stores().claim(3, LARGE, "another", NOW)

    assert claim is not None
    assert (claim.batch_id, claim.created_at, len(claim.entries)) == ("the name", 5.0, 3)


def test_a_lease_from_before_a_short_life_of_the_machine(stores: Stores) -> None:
    """Its deadline is hours ahead, as the new clock goes: the start of the machine has a name."""
    before = stores(clock=_clock_at(7_000.0), boot="one")
    put(before, 3)
    before.claim(3, LARGE, "the name", 5.0)

    same = stores(clock=_clock_at(30.0), boot="one").claim(3, LARGE, "another", NOW)[0]
    claim = stores(clock=_clock_at(30.0), boot="two").claim(3, LARGE, "another", NOW)[0]
    again = stores(clock=_clock_at(30.0), boot="two").claim(3, LARGE, "another", NOW)[0]

    assert (same, again) == (None, None)
    assert claim is not None
    assert (claim.batch_id, claim.created_at, len(claim.entries)) == ("the name", 5.0, 3)


def _clock_at(seconds: float) -> ManualClock:
    clock = ManualClock(NOW)
    clock.advance(seconds - clock.monotonic())
    return clock


def _late_clock() -> ManualClock:
    clock = ManualClock(NOW)
    clock.advance(10 * 86_400.0)
    return clock


def test_a_lease_of_which_nothing_is_left_is_gone(stores: Stores, clock: ManualClock) -> None:
    """Settled by pieces, in any order, it leaves no row behind."""
    store = stores()
    put(store, 6)
    claim, _ = store.claim(6, LARGE, "name", NOW)
    assert claim is not None
    ids = [one[0] for one in claim.entries]

    for some in (ids[2:4], ids[:2], [ids[5]], [ids[4]], ids):
        store.settle("events", some)

    assert store._file.read(lambda db: db.execute("SELECT count(*) FROM leases").fetchone()) == (0,)
    clock.advance(LEASE + 1)
    assert stores().claim(9, LARGE, "name", NOW)[0] is None


def test_every_expired_lease_is_taken_over(stores: Stores, clock: ManualClock) -> None:
    """One with each claim, oldest first, before anything new; each keeps its name."""
    dead, store = stores(), stores()
    put(dead, 40)
    for n in range(3):
        dead.claim(10, LARGE, f"name-{n}", NOW + n)
    clock.advance(LEASE + 1)

    claims = [store.claim(10, LARGE, "new", NOW)[0] for _ in range(5)]

    names = [(claim.batch_id, len(claim.entries)) if claim else None for claim in claims]
    assert names == [("name-0", 10), ("name-1", 10), ("name-2", 10), (None, 10), None]


def test_what_was_left_to_this_release_is_taken(stores: Stores) -> None:
    """By an older one that could not read it: at once, as what is given back."""
    older, store = stores(), stores()
    put(older, 3)
    older.claim(3, LARGE, "name", NOW)
    older._file.transaction(
        lambda db: db.execute("UPDATE leases SET owner = 'later-1', deadline = 0")
    )

    assert claimed(store) == numbers(3)


# -- bounds --------------------------------------------------------------------------------------


def test_counters_are_right_after_anything(stores: Stores, clock: ManualClock) -> None:
    """They are kept by hand, for speed: after a thousand steps they are what a count says."""
    rng, store, number = random.Random(7), stores(max_records=80, max_bytes=9_000), 0
    other = stores(max_records=80, max_bytes=9_000)
    held: list[tuple[str, list[int]]] = []
    for _ in range(600):
        step, one = rng.randrange(7), rng.choice([store, other])
        if step <= 1:
            kind, size = rng.choice(["events", "metrics"]), rng.randrange(40, 300)
            given = records(rng.randrange(1, 12), kind, start=number, size=size)  # type: ignore[arg-type]
            one.append({kind: [pack(record_) for record_ in given]})  # type: ignore[dict-item]
            number += len(given)
        elif step == 2 and (claim := one.claim(rng.randrange(1, 9), LARGE, "name", NOW)[0]):
            held.append((claim.kind, [entry[0] for entry in claim.entries]))
        elif step == 3 and held:
            kind, ids = held.pop(rng.randrange(len(held)))
            one.settle(kind, ids[: rng.randrange(1, len(ids) + 1)])  # type: ignore[arg-type]
        elif step == 4 and held:
            one.bury(*held.pop(), "rejected")  # type: ignore[arg-type]
        elif step == 5:
            one.expire(NOW if rng.randrange(20) == 0 else 0.0)
        elif step == 6:
            clock.advance(rng.choice([1.0, LEASE + 1]))
        depth = store.depth()
        assert (depth.records, depth.nbytes) == _counted(store)
        assert depth.records <= 80
        assert depth.nbytes <= 9_000


def _counted(store: SQLiteStore) -> tuple[int, int]:
    def count(db: sqlite3.Connection) -> tuple[int, int]:
        query = "SELECT count(*), total(length(frame)) FROM {}"
        some = [db.execute(query.format(kind)).fetchone() for kind in ("events", "metrics")]
        return sum(one[0] for one in some), int(sum(one[1] for one in some))

    return store._file.read(count)


def test_a_burst_gives_way_by_age(stores: Stores) -> None:
    """Thousands at once, of both kinds in turns: the oldest of either go."""
    store = stores(max_records=500)
    for n in range(20):
        kind = "metrics" if n % 2 else "events"
        some = [pack(one) for one in records(100, kind, start=100 * n, created_at=float(n))]
        store.append({kind: some})  # type: ignore[dict-item]

    found: list[str] = []
    while some_ := claimed(store, 100):
        found += some_

    assert sorted(found) == numbers(500, 1_500)


def test_dead_letters_are_bounded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of them give way."""
    monkeypatch.setattr("guardagent.spool.sqlite_dead._KEPT", 10)
    store = stores()
    put(store, 25)

    for n in range(5):
        claim, _ = store.claim(5, LARGE, "name", NOW)
        assert claim is not None
        store.bury("events", [one[0] for one in claim.entries], f"reason-{n}")

    assert store.count_dead() == 10
    assert {one.reason for one in store.dead(100)} == {"reason-3", "reason-4"}


def test_text_where_bytes_belong_is_put_away(stores: Stores, clock: ManualClock) -> None:
    """Whoever can write to the file can write anything; the rest is delivered."""
    store, lost = stores(), list[Any]()
    put(store, 2)
    with sqlite3.connect(stores.path) as db:
        (last,) = db.execute("SELECT max(id) FROM events").fetchone()
        db.execute("INSERT INTO events VALUES (?, ?)", (last + 1, "a text of no meaning"))
        db.execute("INSERT INTO events VALUES (?, ?)", (last + 2, 5))
        db.execute("UPDATE lanes SET tail = tail + 2, records = records + 2 WHERE kind = 'events'")
    db.close()
    put(store, 1, start=2)
    spool = DurableSpool(
        store,
        MemorySpool(10, LARGE),
        lease=LEASE,
        max_records=100,
        max_bytes=LARGE,
        clock=clock,
        on_lost=lambda *given: lost.append(given),
    )

    batch = spool.claim(10, LARGE, NOW)

    assert batch is not None
    assert keys(batch.bodies) == numbers(3)
    assert lost == [("corrupt", 2)]


# -- processes -----------------------------------------------------------------------------------


def run(method: str, *work: tuple[Any, ...]) -> list[int | None]:
    """Run each function in a process of its own, at the same time; return their exit codes."""
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=target, args=arguments) for target, *arguments in work]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join(PATIENCE)
        process.close()
    return codes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_share_a_file(tmp_path: Path, method: str) -> None:
    """Four of them begin together, with no file there: each record is delivered by one."""
    path, count, many = str(tmp_path / "spool.db"), 500, 4
    reports = [tmp_path / f"{n}.json" for n in range(many)]

    codes = run(
        method,
        *(
            (children.append_and_settle, path, n, count, many * count, str(reports[n]))
            for n in range(many)
        ),
    )

    found = [one for report in reports for one in json.loads(report.read_text())]
    assert codes == [0] * many
    assert sorted(found) == numbers(many * count)


def test_what_a_killed_process_held_is_taken_over(stores: Stores, clock: ManualClock) -> None:
    """The same batch under the same name, after its lease; SIGKILL leaves nothing half done."""
    store, report = stores(), stores.path.with_name("report.json")
    put(store, 10)

    codes = run("spawn", (children.claim_and_die, str(stores.path), str(report)))
    batch_id, created_at, held = json.loads(report.read_text())
    early = claimed(store)
    clock.advance(LEASE + 1)
    claim, _ = store.claim(100, LARGE, "new", NOW)

    assert codes == [-9]
    assert (held, early) == (numbers(7), numbers(3, 7))
    assert claim is not None
    assert (claim.batch_id, claim.created_at) == (batch_id, created_at)
    assert keys(frame[13:] for _, frame in claim.entries) == held


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_whole_appends(stores: Stores) -> None:
    """An append is there with all its records, of both kinds, or not at all."""
    rng, context = random.Random(11), multiprocessing.get_context("spawn")
    before = 0
    for _ in range(4):
        process = context.Process(target=children.append_for_ever, args=(str(stores.path), 400))
        process.start()
        store = stores()
        goal = before + 100 * rng.randrange(3, 30)
        while store.depth().records < goal:
            assert process.exitcode is None
        process.kill()
        process.join(PATIENCE)
        process.close()

        found = _counted(store)
        before = found[0]

        assert found == (store.depth().records, store.depth().nbytes)
        assert found[0] % 100 == 0
        assert store._file.read(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == (
            "ok",
        )
        store.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_leaves_the_file_to_its_parent(stores: Stores) -> None:
    """It opens the file anew; both go on, and the file is sound."""
    store = stores()
    put(store, 5)
    held, _ = store.claim(3, LARGE, "name", NOW)

    def child() -> None:
        store.abandon()
        put(store, 2, start=5)
        store.close()

    codes = run("fork", (child,), (children.one_more, str(stores.path)))
    put(store, 1, start=7)

    assert codes == [0, 0]
    assert held is not None
    assert store.settle("events", [one[0] for one in held.entries])[0] == 3
    assert sorted(claimed(store)) == sorted([*numbers(5, 3), key(99)])
    assert store._file.read(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)


def test_a_record_of_another_process_is_seen_at_once(stores: Stores) -> None:
    """There is nothing between a process and what others have committed."""
    one, other = stores(), stores()
    seen = []

    for n in range(5):
        one.append({"events": [pack(record(n))]})
        seen.append(other.depth().records)

    assert seen == [1, 2, 3, 4, 5]
