"""The dead letters in a spool's file, and how many of them are kept.

Owns: their table. In: records to be buried, ids of letters; all of it within a transaction. Out:
letters, counts, frames to be sent once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from guardagent._clock import Clock
from guardagent.fields import Kind
from guardagent.spool.sqlite_records import KINDS, page, runs
from guardagent.spool.store import DeadLetter, Id

__all__ = ["DeadLetters"]

_KEPT = 10_000
#: The part of the store's bound in bytes that they may take beside it.
_PART = 10


class DeadLetters:
    """The table of dead letters.

    Args:
        max_bytes: the store's bound.
        clock: tells when a letter was buried.
    """

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._most_bytes = max_bytes // _PART
        self._clock = clock

    def add(self, db: sqlite3.Connection, kind: Kind, ids: Sequence[Id], reason: str) -> None:
        """Copy records; the oldest letters give way."""
        for first, last in runs(ids):
            db.execute(
                "INSERT INTO dead (kind, reason, buried_at, frame)"
                f" SELECT ?, ?, ?, frame FROM {kind} WHERE id BETWEEN ? AND ? ORDER BY id",
                (kind, reason, self._clock.now(), first, last),
            )
        self._evict(db)

    def _evict(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?", (_KEPT,))
        over = self.nbytes(db) - self._most_bytes
        if over <= 0:
            return
        rows = db.execute("SELECT id, length(frame) FROM dead ORDER BY id").fetchall()
        for id_, nbytes in rows[:-1]:
            db.execute("DELETE FROM dead WHERE id = ?", (id_,))
            over -= nbytes
            if over <= 0:
                break

    def take(self, db: sqlite3.Connection, ids: Sequence[Id]) -> dict[Kind, list[bytes]]:
        """Delete letters and return their frames; those of no kind stay."""
        frames: dict[Kind, list[bytes]] = {kind: [] for kind in KINDS}
        for id_ in ids:
            row = db.execute("SELECT kind, frame FROM dead WHERE id = ?", (id_,)).fetchone()
            if row is not None and row[0] in frames:
                frames[row[0]].append(row[1])
                db.execute("DELETE FROM dead WHERE id = ?", (id_,))
        return frames

    def discard(self, db: sqlite3.Connection, ids: Sequence[Id]) -> int:
        """Delete letters; return how many there were."""
        return sum(db.execute("DELETE FROM dead WHERE id = ?", (id_,)).rowcount for id_ in ids)

    def page(self, db: sqlite3.Connection, limit: int, after: Id | None) -> list[DeadLetter]:
        """Return the oldest of them, those after that one."""
        query = "SELECT id, kind, reason, buried_at, frame FROM dead WHERE id > ? ORDER BY id"
        return [DeadLetter(*row) for row in page(db.execute(query, (after or 0,)), limit)]

    def count(self, db: sqlite3.Connection) -> int:
        """Return their number."""
        return int(db.execute("SELECT count(*) FROM dead").fetchone()[0])

    def by_reason(self, db: sqlite3.Connection) -> dict[str, int]:
        """Return their number, by reason."""
        return dict(db.execute("SELECT reason, count(*) FROM dead GROUP BY reason").fetchall())

    def nbytes(self, db: sqlite3.Connection) -> int:
        """Return the bytes of their frames."""
        return int(db.execute("SELECT total(length(frame)) FROM dead").fetchone()[0])
