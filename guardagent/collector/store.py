"""Keeps what arrives in SQLite, each key once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.collector.arrivals import Arrival, Counts, Item, Kind, Origin
from guardagent.collector.database import open_database, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Store"]

_KEPT_REFUSALS = 1_000

_SELECT = (
    "SELECT id, kind, key, type, project_id, agent, agent_version, batch_id, received_at,"
    " deliveries, body FROM arrivals WHERE id > ? AND ? IN (kind, '') ORDER BY id LIMIT ?"
)

_INSERT = (
    "INSERT OR IGNORE INTO arrivals (kind, key, type, project_id, agent, agent_version, batch_id,"
    " received_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_REPEAT = "UPDATE arrivals SET deliveries = deliveries + 1 WHERE kind = ? AND key = ?"

_FORGET_REFUSALS = (
    "DELETE FROM arrivals WHERE kind = 'refusal' AND id <= (SELECT id FROM arrivals"
    " WHERE kind = 'refusal' ORDER BY id DESC LIMIT 1 OFFSET ?)"
)


class Store:
    """Everything that arrived, in one table that other programs may read too.

    Safe to use from any thread. Refused requests are kept as well, the newest 1,000 of them.

    Args:
        path: a file, in WAL mode; without one, a temporary database that ends with `close`.
        max_records: the oldest beyond this number are forgotten, their keys too; None: keep all.
        clock: tells `received_at`.

    Raises:
        StoreError: the file is not a store or cannot be opened.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        max_records: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._max_records = max_records
        self._clock = clock
        # Guards the connection, across the disk too: SQLite has one transaction a connection.
        self._lock = threading.Lock()
        # Guards _last, _repeated and _closed, for those who wait for an arrival.
        self._arrived = threading.Condition()
        self._closed = False
        self._repeated = 0
        self._connection = open_database(path)
        self._last = self._newest()

    @property
    def last_id(self) -> int:
        """The id of the newest arrival, 0 when there is none."""
        return self._last

    @property
    def repeated(self) -> int:
        """How many came through this store that it had already."""
        return self._repeated

    def add(self, kind: Kind, items: Iterable[Item], origin: Origin) -> Counts:
        """Keep all of `items` or, when SQLite fails, none; those known by their key are counted.

        Raises:
            sqlite3.Error: nothing was kept.
        """
        return self.add_all({kind: items}, origin)

    def add_all(self, items: Mapping[Kind, Iterable[Item]], origin: Origin) -> Counts:
        """Keep items of several kinds, together or not at all.

        Raises:
            sqlite3.Error: nothing was kept.
        """
        counts = Counts(0, 0)
        with self._transaction() as connection:
            for kind, some in items.items():
                counts += self._insert(connection, kind, some, origin)
                self._forget(connection, kind)
            last = _newest_id(connection)
        self._announce(last, counts.duplicates)
        return counts

    def arrivals(
        self, *, after: int = 0, kind: Kind | None = None, limit: int = 1_000
    ) -> list[Arrival]:
        """Return at most `limit` arrivals with an id over `after`, oldest first."""
        with self._lock:
            rows = self._connection.execute(_SELECT, (after, kind or "", limit)).fetchall()
        return [Arrival(*row) for row in rows]

    def deliveries(self, kind: Kind) -> dict[str, int]:
        """Return how often each key of a kind came."""
        query = "SELECT key, deliveries FROM arrivals WHERE kind = ?"
        with self._lock:
            return dict(self._connection.execute(query, (kind,)).fetchall())

    def count(self, kind: Kind) -> int:
        """Return how many different ones of a kind are kept."""
        query = "SELECT COUNT(*) FROM arrivals WHERE kind = ?"
        with self._lock:
            (count,) = self._connection.execute(query, (kind,)).fetchone()
        return int(count)

    def wait(self, after: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for an arrival with an id over `after`; True if one came."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._closed or self._last > after, timeout)
            return self._last > after

    def close(self) -> None:
        """Close the file and end every wait; idempotent."""
        with self._lock:
            self._connection.close()
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _insert(
        self, connection: sqlite3.Connection, kind: Kind, items: Iterable[Item], origin: Origin
    ) -> Counts:
        accepted = duplicates = 0
        sender = (origin.project_id, origin.agent, origin.agent_version, origin.batch_id)
        tail = (*map(_storable, sender), self._clock.now())
        for item in items:
            row = (kind, item.key, _storable(item.type), *tail, item.body)
            if connection.execute(_INSERT, row).rowcount:
                accepted += 1
            else:
                connection.execute(_REPEAT, (kind, item.key))
                duplicates += 1
        return Counts(accepted, duplicates)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._connection):
            yield self._connection

    def _forget(self, connection: sqlite3.Connection, kind: Kind) -> None:
        if kind == "refusal":
            connection.execute(_FORGET_REFUSALS, (_KEPT_REFUSALS,))
        if self._max_records is not None:
            oldest = _newest_id(connection) - self._max_records
            connection.execute("DELETE FROM arrivals WHERE id <= ?", (oldest,))

    def _newest(self) -> int:
        with self._lock:
            return _newest_id(self._connection)

    def _announce(self, last: int, duplicates: int) -> None:
        with self._arrived:
            self._last = max(self._last, last)
            self._repeated += duplicates
            self._arrived.notify_all()


def _newest_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'arrivals'").fetchone()
    return int(row[0]) if row else 0


def _storable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and SQLite's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
