"""One file for all processes of a host: SQLite in WAL mode.

Owns: what is one transaction. In: frames, ids. Out: the same after any crash of the process; after
one of the machine too, at the latest those older than the last checkpoint, or all with `fsync`.

The records of one kind have rising ids. What was leased first is always the oldest, and what nobody
holds yet lies behind the `head`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.fields import Kind
from guardagent.spool import sqlite_records as records
from guardagent.spool.later import Bystander
from guardagent.spool.sqlite_dead import DeadLetters
from guardagent.spool.sqlite_file import SQLiteFile
from guardagent.spool.sqlite_lane import Lane
from guardagent.spool.sqlite_leases import Leases
from guardagent.spool.store import Added, Census, Claim, DeadLetter, Depth, Id, WhenFull

__all__ = ["SQLiteStore"]

#: Claims of what only a later release can read that one claim passes over.
_SKIPPED_AT_A_TIME = 20


class SQLiteStore:
    """Keeps frames in a file; see `Store`.

    Args:
        path: of the file; made when it is missing, readable by its owner only.
        max_records: records kept, leased ones included.
        max_bytes: bytes of their frames.
        lease: seconds for which a claim holds without being renewed.
        owner: differs for every process and every agent in it.
        stale_after: seconds after which what waits is history.
        fsync: wait for the disk with each append, so that a power cut loses nothing either.
        read_only: answer questions and change nothing, not even the file's existence.
        project: whose records these are, "" for nobody's; a file of another's is refused. None
            leaves that open.
        boot: what differs after each start of the machine: leases of another one's are over.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_records: int,
        max_bytes: int,
        when_full: WhenFull = "drop_oldest",
        lease: float = 15.0,
        owner: str,
        clock: Clock = SYSTEM_CLOCK,
        stale_after: float = 30.0,
        fsync: bool = False,
        read_only: bool = False,
        project: str | None = None,
        boot: str = "",
    ) -> None:
        self._file = SQLiteFile(
            Path(path), fsync=fsync, read_only=read_only, project=project, boot=boot
        )
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._leases = Leases(owner, lease, clock)
        self._dead = DeadLetters(max_bytes, clock)
        self._clock = clock
        self._stale_after = stale_after
        self._is_fresh_turn = True
        self._bystander = Bystander(f"The spool {path}")
        self._skipped = 0

    def __repr__(self) -> str:
        return f"<SQLiteStore {str(self._file.path)!r}>"

    # -- records -----------------------------------------------------------------------------

    def append(self, frames: Mapping[Kind, Sequence[bytes]]) -> Added:
        """Keep the frames in one transaction."""
        growth = sum(sum(map(len, some)) for some in frames.values())
        return self._file.transaction(lambda db: self._append(db, frames), growth=growth)

    def _append(self, db: sqlite3.Connection, frames: Mapping[Kind, Sequence[bytes]]) -> Added:
        spans = records.append(db, frames)
        is_bounded = self._when_full == "drop_oldest"
        lost = records.evict(db, self._max_records, self._max_bytes) if is_bounded else 0
        return Added(lost, spans, self._depth(db))

    def claim(
        self,
        limit: int,
        max_bytes: int,
        batch_id: str,
        created_at: float,
        held: Mapping[Kind, Sequence[Id]] | None = None,
    ) -> tuple[Claim | None, Depth]:
        """Lease a lease that ran out, or a new span."""

        def work(db: sqlite3.Connection) -> tuple[Claim | None, Depth]:
            claim = self._leases.take_over(db, held or {}) or self._claim_new(
                db, limit, max_bytes, batch_id, created_at
            )
            return claim, self._depth(db)

        self._skipped = 0
        result = self._file.transaction(work)
        self._bystander.note(self._skipped)
        return result

    def _claim_new(
        self, db: sqlite3.Connection, limit: int, max_bytes: int, batch_id: str, created_at: float
    ) -> Claim | None:
        for _ in range(_SKIPPED_AT_A_TIME):
            lanes, fresh = [Lane.of(db, kind) for kind in records.KINDS], self._is_fresh_turn
            lane = _oldest(lanes, fresh=fresh) or _oldest(lanes, fresh=False)
            if lane is None:
                return None
            self._is_fresh_turn = not fresh
            entries = lane.take(
                limit, max_bytes, now=self._clock.now(), stale_after=self._stale_after, fresh=fresh
            )
            if self._leases.add(db, lane.kind, entries, batch_id, created_at):
                return Claim(lane.kind, entries)
            self._skipped += len(entries)
        return None

    def settle(self, kind: Kind, ids: Sequence[Id]) -> tuple[int, Depth]:
        """Delete records, and the lease of which nothing is left."""
        result = self._file.transaction(lambda db: (records.delete(db, kind, ids), self._depth(db)))
        self._file.shrink()
        return result

    def bury(self, kind: Kind, ids: Sequence[Id], reason: str) -> tuple[int, Depth]:
        """Move records to the table of dead letters; the oldest there give way."""

        def work(db: sqlite3.Connection) -> tuple[int, Depth]:
            self._dead.add(db, kind, ids, reason)
            return records.delete(db, kind, ids), self._depth(db)

        return self._file.transaction(work)

    def renew(self, held: Mapping[Kind, Sequence[Id]]) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
        """Move their deadlines."""
        deadline = self._leases.deadline()  # of now, however long the transaction has to wait
        return self._file.transaction(
            lambda db: (self._leases.renew(db, held, deadline), self._depth(db))
        )

    def give_back(self, held: Mapping[Kind, Sequence[Id]]) -> None:
        """Let the leases end now."""
        self._file.transaction(lambda db: self._leases.give_back(db, held))

    def expire(self, before: float) -> tuple[int, Depth]:
        """Delete from the front of what nobody holds, until a record is young enough."""
        gone = 0
        while True:
            is_overdue, depth = self._file.read(
                lambda db: (records.is_any_overdue(db, before), self._depth(db))
            )
            if not is_overdue:
                return gone, depth
            gone += self._file.transaction(lambda db: records.expire(db, before))
            self._file.shrink()

    # -- questions ---------------------------------------------------------------------------

    def depth(self) -> Depth:
        """Return the counters, which every transaction keeps."""
        return self._file.read(self._depth)

    def _depth(self, db: sqlite3.Connection) -> Depth:
        return Depth(*records.totals(db), self._file.generation)

    def oldest_at(self) -> float | None:
        """Return the oldest first record's moment."""
        return self._file.read(records.oldest_at)

    def holds(self, kind: Kind, first: Id, last: Id) -> bool:
        """Look for one."""
        query = f"SELECT 1 FROM {kind} WHERE id BETWEEN ? AND ? LIMIT 1"
        return self._file.read(lambda db: db.execute(query, (first, last)).fetchone() is not None)

    def extent(self) -> Mapping[Kind, tuple[Id, Id]]:
        """Look at both ends of the tables."""
        return self._file.read(records.extent)

    def waiting(self, limit: int, after: tuple[Kind, Id] | None = None) -> Sequence[Any]:
        """Return records of the first kind, then of the second."""
        return self._file.read(lambda db: records.waiting(db, limit, after))

    def get(self, name: str) -> bytes | None:
        """Look it up."""

        def work(db: sqlite3.Connection) -> bytes | None:
            row = db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
            return None if row is None else bytes(row[0])

        return self._file.read(work)

    def put(self, name: str, value: bytes) -> None:
        """Replace it."""
        statement = "INSERT OR REPLACE INTO kept VALUES (?, ?)"
        self._file.transaction(lambda db: db.execute(statement, (name, value)), growth=len(value))

    # -- what operators do -------------------------------------------------------------------

    def dead(self, limit: int, after: Id | None = None) -> Sequence[DeadLetter]:
        """Return rows of the table of dead letters."""
        return self._file.read(lambda db: self._dead.page(db, limit, after))

    def count_dead(self) -> int:
        """Count them."""
        return self._file.read(self._dead.count)

    def census(self) -> Census:
        """Count rows and lengths."""
        return self._file.read(
            lambda db: Census(
                self._dead.by_reason(db), self._dead.nbytes(db), self._leases.count_later(db)
            )
        )

    def requeue(self, ids: Sequence[Id]) -> int:
        """Append them anew."""

        def work(db: sqlite3.Connection) -> int:
            frames = self._dead.take(db, ids)
            self._append(db, frames)
            return sum(map(len, frames.values()))

        return self._file.transaction(work)

    def discard(self, ids: Sequence[Id]) -> int:
        """Delete them."""
        gone = self._file.transaction(lambda db: self._dead.discard(db, ids))
        self._file.shrink()
        return gone

    def purge(self) -> int:
        """Empty both lanes and forget all leases."""
        gone = self._file.transaction(records.purge)
        self._file.compact()
        return gone

    def abandon(self) -> None:
        """Leave the file to the parent."""
        self._file.abandon()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _oldest(lanes: Sequence[Lane], *, fresh: bool) -> Lane | None:
    """Return the lane in which something waits longest, or news do."""
    found = [(moment, lane) for lane in lanes if (moment := lane.next_at(fresh=fresh)) is not None]
    return min(found, key=lambda one: one[0])[1] if found else None
