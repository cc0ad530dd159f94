"""The leases in a spool's file: who holds which records, and until when.

Owns: their table. In: records that are claimed, held or given back; all of it within a transaction.
Out: claims of what nobody holds any more, or the ids that are held still.

A lease is a span of ids and one row, whatever it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from guardagent._clock import Clock
from guardagent.fields import Kind
from guardagent.spool.frame import VERSION, later_version
from guardagent.spool.sqlite_records import runs
from guardagent.spool.store import Claim, Id

__all__ = ["Leases"]

#: Holds what is of a later release; with the version behind it.
_LATER = "later-"
#: No lease is longer, whoever gave it.
_LONGEST = 7_200.0


class Leases:
    """The table of leases, as one owner sees it.

    Args:
        owner: differs for every process and every agent in it.
        seconds: for which a lease holds without being renewed.
    """

    def __init__(self, owner: str, seconds: float, clock: Clock) -> None:
        self._owner = owner
        self._seconds = seconds
        self._clock = clock

    def deadline(self) -> float:
        """Return when a lease ends that begins now."""
        return self._clock.monotonic() + self._seconds

    def add(
        self,
        db: sqlite3.Connection,
        kind: Kind,
        entries: Sequence[tuple[Id, bytes]],
        batch_id: str,
        created_at: float,
    ) -> bool:
        """Lease records; False when only a later release can read them, which nobody holds then."""
        version = later_version(entries[0][1])
        holder = (f"{_LATER}{version}", 0.0) if version else (self._owner, self.deadline())
        span = entries[0][0], entries[-1][0]
        db.execute(
            "INSERT INTO leases (kind, first, last, size, owner, deadline, batch_id,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (kind, *span, len(entries), *holder, batch_id, created_at),
        )
        return not version

    def take_over(self, db: sqlite3.Connection, held: Mapping[Kind, Sequence[Id]]) -> Claim | None:
        """Take a lease that ran out: somebody was killed, or has given it back."""
        now = self._clock.monotonic()
        # The clock begins anew when the machine does: a deadline far ahead is of another life.
        query = (
            "SELECT id, kind, first, last, size, batch_id, created_at FROM leases"
            " WHERE (deadline <= ? OR deadline > ?) AND NOT (owner GLOB ? AND"
            " CAST(substr(owner, ?) AS INTEGER) > ?) ORDER BY id"
        )
        later = (f"{_LATER}*", len(_LATER) + 1, VERSION)
        late = db.execute(query, (now, now + _LONGEST, *later)).fetchall()
        for lease, kind, first, last, size, batch_id, created_at in late:
            if any(first <= id_ <= last for id_ in held.get(kind, ())):
                continue
            entries = db.execute(
                f"SELECT id, frame FROM {kind} WHERE id BETWEEN ? AND ? ORDER BY id", (first, last)
            ).fetchall()
            if not entries:
                db.execute("DELETE FROM leases WHERE id = ?", (lease,))
                continue
            db.execute(
                "UPDATE leases SET owner = ?, deadline = ? WHERE id = ?",
                (self._owner, now + self._seconds, lease),
            )
            if len(entries) == size:
                return Claim(kind, entries, batch_id, created_at)
            return Claim(kind, entries)
        return None

    def renew(
        self, db: sqlite3.Connection, held: Mapping[Kind, Sequence[Id]], deadline: float
    ) -> Mapping[Kind, Sequence[Id]]:
        """Move the deadlines of what is held; return the ids that are held still."""
        self._touch(db, held, self._owner, deadline)
        return {kind: self._mine(db, kind, ids) for kind, ids in held.items()}

    def give_back(self, db: sqlite3.Connection, held: Mapping[Kind, Sequence[Id]]) -> None:
        """Let them end now."""
        self._touch(db, held, "", 0.0)

    def count_later(self, db: sqlite3.Connection) -> int:
        """Return the number of records that only a later release can read."""
        query = "SELECT total(size) FROM leases WHERE owner GLOB ?"
        return int(db.execute(query, (f"{_LATER}*",)).fetchone()[0])

    def _touch(
        self,
        db: sqlite3.Connection,
        held: Mapping[Kind, Sequence[Id]],
        owner: str,
        deadline: float,
    ) -> None:
        for kind, ids in held.items():
            for first, last in runs(ids):
                db.execute(
                    "UPDATE leases SET owner = ?, deadline = ?"
                    " WHERE owner = ? AND kind = ? AND first <= ? AND last >= ?",
                    (owner, deadline, self._owner, kind, last, first),
                )

    def _mine(self, db: sqlite3.Connection, kind: Kind, ids: Sequence[Id]) -> list[Id]:
        query = "SELECT first, last FROM leases WHERE owner = ? AND kind = ?"
        spans = db.execute(query, (self._owner, kind)).fetchall()
        return [id_ for id_ in ids if any(first <= id_ <= last for first, last in spans)]
