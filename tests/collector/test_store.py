"""The store: each key once, whatever happens."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from guardagent.collector import Counts, Item, Origin, Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ORIGIN = Origin(project_id="shop", agent="host-1", agent_version="0.1.0", batch_id="b-1")


def _items(*keys: str) -> list[Item]:
    return [Item(key, "ip_banned", json.dumps({"key": key})) for key in keys]


def _keys(store: Store) -> list[str]:
    return [arrival.key for arrival in store.arrivals()]


class _StoppedClock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> float:
        return 1_795_367_438.5


def test_everything_about_an_arrival_is_kept() -> None:
    """What goes in comes out, with an id, the time and the sender."""
    with Store(clock=_StoppedClock()) as store:
        store.add("event", [Item("k", "ip_banned", '{"a":1}')], _ORIGIN)
        (arrival,) = store.arrivals()

    assert arrival.as_mapping() == {
        "id": 1,
        "kind": "event",
        "key": "k",
        "type": "ip_banned",
        "project_id": "shop",
        "agent": "host-1",
        "agent_version": "0.1.0",
        "batch_id": "b-1",
        "received_at": 1_795_367_438.5,
        "deliveries": 1,
        "body": {"a": 1},
    }


def test_a_known_key_is_a_duplicate(store: Store) -> None:
    """The second of a key is counted, within a batch and over batches, and the first stays."""
    first = store.add("event", _items("a", "b", "a"), _ORIGIN)
    again = store.add("event", [Item("b", "other", "{}"), *_items("c")], _ORIGIN)

    assert first == Counts(2, 1)
    assert again == Counts(1, 1)
    assert _keys(store) == ["a", "b", "c"]
    assert store.deliveries("event") == {"a": 2, "b": 2, "c": 1}
    assert store.arrivals()[1].type == "ip_banned"


def test_kinds_have_keys_of_their_own(store: Store) -> None:
    """An event and a metric may have the same key."""
    store.add("event", _items("a"), _ORIGIN)

    assert store.add("metric", _items("a"), _ORIGIN) == Counts(1, 0)
    assert (store.count("event"), store.count("metric"), store.count("status")) == (1, 1, 0)
    assert [arrival.kind for arrival in store.arrivals(kind="metric")] == ["metric"]


def test_a_batch_is_kept_whole_or_not_at_all(store: Store) -> None:
    """When the third of four fails, none of them stays, and the store goes on."""

    def failing() -> Iterator[Item]:
        yield from _items("a", "b")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        store.add("event", failing(), _ORIGIN)

    assert _keys(store) == []
    assert store.last_id == 0
    assert store.add("event", _items("a"), _ORIGIN) == Counts(1, 0)


def test_threads_that_send_the_same_keys_keep_each_once(store: Store) -> None:
    """Eight threads with the same hundred keys: each key once, every delivery counted."""
    keys = [f"key-{number}" for number in range(100)]
    start = threading.Barrier(8)
    counts: list[Counts] = []

    def send() -> None:
        start.wait()
        counts.extend(
            store.add("event", _items(*keys[at : at + 10]), _ORIGIN) for at in range(0, 100, 10)
        )

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.deliveries("event") == dict.fromkeys(keys, 8)
    assert sum(count.accepted for count in counts) == 100
    assert sum(count.duplicates for count in counts) == 700


def test_arrivals_can_be_followed(store: Store) -> None:
    """Reading on from the last id seen gives each arrival once, in order."""
    store.add("event", _items("a", "b", "c"), _ORIGIN)

    first = store.arrivals(limit=2)
    rest = store.arrivals(after=first[-1].id)

    assert [arrival.key for arrival in [*first, *rest]] == ["a", "b", "c"]
    assert store.last_id == rest[-1].id


def test_waiting_ends_with_an_arrival(store: Store) -> None:
    """A wait is true when there is something new, from another thread too."""
    sender = threading.Thread(target=store.add, args=("event", _items("a"), _ORIGIN))
    sender.start()

    arrived = store.wait(0, timeout=10.0)
    sender.join()

    assert arrived
    assert not store.wait(store.last_id, timeout=0.0)


def test_closing_ends_a_wait() -> None:
    """Nobody waits for a store that is closed."""
    store = Store()
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(store.wait(0, timeout=30.0)))
    waiter.start()

    store.close()
    store.close()
    waiter.join(10.0)

    assert results == [False]
    with pytest.raises(sqlite3.ProgrammingError):
        store.add("event", _items("a"), _ORIGIN)


def test_a_file_remembers(tmp_path: Path) -> None:
    """A store opened again knows its keys, and goes on counting ids."""
    path = tmp_path / "arrivals.db"
    with Store(path) as store:
        store.add("event", _items("a", "b"), _ORIGIN)
    with Store(str(path)) as store:
        last = store.last_id
        again = store.add("event", _items("b", "c"), _ORIGIN)

        assert last == 2
        assert again == Counts(1, 1)
        assert _keys(store) == ["a", "b", "c"]


def test_two_stores_share_a_file(tmp_path: Path) -> None:
    """Two collectors on one file take each key once, and other programs can read it meanwhile."""
    path = tmp_path / "arrivals.db"
    with Store(path) as one, Store(path) as two:
        one.add("event", _items("a"), _ORIGIN)
        counts = two.add("event", _items("a", "b"), _ORIGIN)
        reader = sqlite3.connect(path)
        rows = reader.execute("SELECT key, deliveries FROM arrivals ORDER BY id").fetchall()
        (mode,) = reader.execute("PRAGMA journal_mode").fetchone()
        reader.close()

    assert counts == Counts(1, 1)
    assert rows == [("a", 2), ("b", 1)]
    assert mode == "wal"


def test_the_oldest_are_forgotten_beyond_the_bound() -> None:
    """With a bound the newest stay, and a forgotten key counts as new."""
    with Store(max_records=3) as store:
        store.add("event", _items("a", "b", "c"), _ORIGIN)
        store.add("event", _items("d", "e"), _ORIGIN)
        kept = _keys(store)

        assert kept == ["c", "d", "e"]
        assert store.add("event", _items("a"), _ORIGIN) == Counts(1, 0)


def test_refusals_do_not_pile_up(store: Store) -> None:
    """Only the newest thousand refusals stay; what was accepted stays beside them."""
    store.add("event", _items("a"), _ORIGIN)
    for number in range(1_010):
        store.add("refusal", [Item(f"r-{number}", "401", "{}")], _ORIGIN)

    kept = store.arrivals(kind="refusal", limit=2_000)

    assert store.count("event") == 1
    assert [kept[0].key, kept[-1].key] == ["r-10", "r-1009"]


def test_text_that_is_no_unicode_is_kept_in_part(store: Store) -> None:
    """A lone surrogate in a name becomes a question mark instead of losing the batch."""
    store.add("event", [Item("k", "half\ud800", "{}")], Origin(project_id="\udfff"))

    (arrival,) = store.arrivals()

    assert (arrival.type, arrival.project_id) == ("half?", "?")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's database is refused by name, and nothing in it changes."""
    path = tmp_path / "music.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"music\.db: cannot be used: it is a database of another"):
        Store(path)

    assert path.read_bytes() == before


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not guessed at."""
    path = tmp_path / "later.db"
    Store(path).close()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 2")
    later.close()

    with pytest.raises(StoreError, match="it has format 2, allowed: 1"):
        Store(path)


@pytest.mark.parametrize("name", ["no/such/folder/x.db", "text.db"])
def test_what_is_no_database_is_refused(tmp_path: Path, name: str) -> None:
    """A path that leads nowhere and a file that is no database are told by name."""
    (tmp_path / "text.db").write_text("just some text, and quite long enough " * 40)

    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / name)


def test_a_full_disk_keeps_nothing_of_a_batch(tmp_path: Path) -> None:
    """When SQLite has no room, the batch is undone and the error comes out."""
    with Store(tmp_path / "full.db") as store:
        store._connection.execute("PRAGMA max_page_count = 12")
        big = [Item(f"k-{n}", "ip_banned", '"' + "x" * 4_000 + '"') for n in range(40)]

        with pytest.raises(sqlite3.Error):
            store.add("event", big, _ORIGIN)

        assert store.count("event") == 0
        assert store.add("event", _items("small"), _ORIGIN) == Counts(1, 0)
