"""One file for all processes of a host: SQLite in WAL mode.

Owns: the file and its schema. In: frames, ids. Out: the same after any crash of the process; after
one of the machine too, at the latest those older than the last checkpoint, or all with `fsync`.

The records of one kind have rising ids. What was leased first is always the oldest, so a lease is
a span of ids and one row, whatever it holds, and what nobody holds yet lies behind the `head`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, get_args

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.fields import Kind
from guardagent.spool.frame import HEADER_BYTES, VERSION, later_version, made_at
from guardagent.spool.later import Bystander
from guardagent.spool.sqlite_file import SQLiteFile
from guardagent.spool.sqlite_lane import Lane
from guardagent.spool.store import (
    PAGE_BYTES,
    Added,
    Census,
    Claim,
    DeadLetter,
    Depth,
    Id,
    WhenFull,
)

__all__ = ["SQLiteStore"]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_DEAD_KEPT = 10_000
#: The part of the bound in bytes that dead letters may take beside it.
_DEAD_PART = 10
_EVICTED_AT_A_TIME, _EXPIRED_AT_A_TIME = 500, 5_000
#: Holds what is of a later release; with the version behind it.
_LATER = "later-"
_SKIPPED_AT_A_TIME = 20
#: No lease is longer, whoever gave it.
_LEASE_MAX = 7_200.0


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
        self._lease = lease
        self._owner = owner
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
        spans: dict[Kind, tuple[Id, Id]] = {}
        for kind, some in frames.items():
            if not some:
                continue
            tail = Lane.of(db, kind).tail
            first, last = tail + 1, tail + len(some)
            db.executemany(f"INSERT INTO {kind} VALUES (?, ?)", zip(count(first), some))
            db.execute(
                "UPDATE lanes SET tail = ?, records = records + ?, nbytes = nbytes + ?"
                " WHERE kind = ?",
                (last, len(some), sum(map(len, some)), kind),
            )
            spans[kind] = first, last
        lost = self._evict(db) if self._when_full == "drop_oldest" else 0
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
            claim = self._take_over(db, held or {}) or self._claim_new(
                db, limit, max_bytes, batch_id, created_at
            )
            return claim, self._depth(db)

        self._skipped = 0
        result = self._file.transaction(work)
        self._bystander.note(self._skipped)
        return result

    def settle(self, kind: Kind, ids: Sequence[Id]) -> tuple[int, Depth]:
        """Delete records, and the lease of which nothing is left."""

        def work(db: sqlite3.Connection) -> tuple[int, Depth]:
            return sum(self._delete(db, kind, *span) for span in _spans(ids)), self._depth(db)

        result = self._file.transaction(work)
        self._file.shrink()
        return result

    def bury(self, kind: Kind, ids: Sequence[Id], reason: str) -> tuple[int, Depth]:
        """Move records to the table of dead letters; the oldest there give way."""

        def work(db: sqlite3.Connection) -> tuple[int, Depth]:
            gone = 0
            for first, last in _spans(ids):
                db.execute(
                    "INSERT INTO dead (kind, reason, buried_at, frame)"
                    f" SELECT ?, ?, ?, frame FROM {kind} WHERE id BETWEEN ? AND ? ORDER BY id",
                    (kind, reason, self._clock.now(), first, last),
                )
                gone += self._delete(db, kind, first, last)
            self._bound_dead(db)
            return gone, self._depth(db)

        return self._file.transaction(work)

    def _bound_dead(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?", (_DEAD_KEPT,))
        over = _dead_bytes(db) - self._max_bytes // _DEAD_PART
        if over <= 0:
            return
        rows = db.execute("SELECT id, length(frame) FROM dead ORDER BY id").fetchall()
        for id_, nbytes in rows[:-1]:
            db.execute("DELETE FROM dead WHERE id = ?", (id_,))
            over -= nbytes
            if over <= 0:
                break

    def renew(self, held: Mapping[Kind, Sequence[Id]]) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
        """Move their deadlines."""
        deadline = self._clock.monotonic() + self._lease

        def work(db: sqlite3.Connection) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
            self._touch(db, held, self._owner, deadline)
            mine = {kind: self._leased(db, kind, ids) for kind, ids in held.items()}
            return mine, self._depth(db)

        return self._file.transaction(work)

    def _leased(self, db: sqlite3.Connection, kind: Kind, ids: Sequence[Id]) -> list[Id]:
        query = "SELECT first, last FROM leases WHERE owner = ? AND kind = ?"
        spans = db.execute(query, (self._owner, kind)).fetchall()
        return [id_ for id_ in ids if any(first <= id_ <= last for first, last in spans)]

    def give_back(self, held: Mapping[Kind, Sequence[Id]]) -> None:
        """Let the leases end now."""
        self._file.transaction(lambda db: self._touch(db, held, "", 0.0))

    def _touch(
        self,
        db: sqlite3.Connection,
        held: Mapping[Kind, Sequence[Id]],
        owner: str,
        deadline: float,
    ) -> None:
        for kind, ids in held.items():
            for first, last in _spans(ids):
                db.execute(
                    "UPDATE leases SET owner = ?, deadline = ?"
                    " WHERE owner = ? AND kind = ? AND first <= ? AND last >= ?",
                    (owner, deadline, self._owner, kind, last, first),
                )

    def expire(self, before: float) -> tuple[int, Depth]:
        """Delete from the front of what nobody holds, until a record is young enough."""
        gone = 0
        while True:
            is_overdue, depth = self._file.read(
                lambda db: (
                    any(self._overdue(db, kind, before, 1) for kind in _KINDS),
                    self._depth(db),
                )
            )
            if not is_overdue:
                return gone, depth
            gone += self._file.transaction(lambda db: self._expire(db, before))
            self._file.shrink()

    def _expire(self, db: sqlite3.Connection, before: float) -> int:
        overdue = {kind: self._overdue(db, kind, before, _EXPIRED_AT_A_TIME) for kind in _KINDS}
        return sum(
            self._delete(db, kind, *span) for kind, ids in overdue.items() for span in _spans(ids)
        )

    def _overdue(self, db: sqlite3.Connection, kind: Kind, before: float, limit: int) -> list[int]:
        ids: list[int] = []
        for id_, head in self._unclaimed(db, kind, f"substr(frame, 1, {HEADER_BYTES})"):
            moment = made_at(head)
            if len(ids) == limit or before <= moment < float("inf"):
                break
            if moment < before:  # one that cannot be told is left, and hides none behind it
                ids.append(id_)
        return ids

    # -- questions ---------------------------------------------------------------------------

    def depth(self) -> Depth:
        """Return the counters, which every transaction keeps."""
        return self._file.read(self._depth)

    def oldest_at(self) -> float | None:
        """Return the oldest first record's moment."""

        def work(db: sqlite3.Connection) -> float | None:
            firsts = [
                db.execute(f"SELECT frame FROM {kind} ORDER BY id LIMIT 1").fetchone()
                for kind in _KINDS
            ]
            return min((made_at(first[0]) for first in firsts if first), default=None)

        return self._file.read(work)

    def holds(self, kind: Kind, first: Id, last: Id) -> bool:
        """Look for one."""
        query = f"SELECT 1 FROM {kind} WHERE id BETWEEN ? AND ? LIMIT 1"
        return self._file.read(lambda db: db.execute(query, (first, last)).fetchone() is not None)

    def extent(self) -> Mapping[Kind, tuple[Id, Id]]:
        """Look at both ends of the tables."""

        def work(db: sqlite3.Connection) -> Mapping[Kind, tuple[Id, Id]]:
            ends = {
                kind: db.execute(f"SELECT min(id), max(id) FROM {kind}").fetchone()
                for kind in _KINDS
            }
            return {kind: pair for kind, pair in ends.items() if pair[0] is not None}

        return self._file.read(work)

    def waiting(self, limit: int, after: tuple[Kind, Id] | None = None) -> Sequence[Any]:
        """Return records of the first kind, then of the second."""
        kind, id_ = after or (_KINDS[0], 0)

        def work(db: sqlite3.Connection) -> list[Any]:
            found: list[Any] = []
            for one in _KINDS[_KINDS.index(kind) :]:
                rows = db.execute(
                    f"SELECT '{one}', id, frame FROM {one} WHERE id > ? ORDER BY id",
                    (id_ if one == kind else 0,),
                )
                found += _page(rows, limit - len(found))
                if found:
                    break
            return found

        return self._file.read(work)

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
        query = "SELECT id, kind, reason, buried_at, frame FROM dead WHERE id > ? ORDER BY id"
        return self._file.read(
            lambda db: [DeadLetter(*row) for row in _page(db.execute(query, (after or 0,)), limit)]
        )

    def count_dead(self) -> int:
        """Count them."""
        query = "SELECT count(*) FROM dead"
        return int(self._file.read(lambda db: db.execute(query).fetchone()[0]))

    def census(self) -> Census:
        """Count rows and lengths."""
        query = "SELECT reason, count(*) FROM dead GROUP BY reason"
        return self._file.read(
            lambda db: Census(dict(db.execute(query).fetchall()), _dead_bytes(db), _later(db))
        )

    def requeue(self, ids: Sequence[Id]) -> int:
        """Append them anew."""

        def work(db: sqlite3.Connection) -> int:
            frames: dict[Kind, list[bytes]] = {kind: [] for kind in _KINDS}
            for id_ in ids:
                row = db.execute("SELECT kind, frame FROM dead WHERE id = ?", (id_,)).fetchone()
                if row is not None and row[0] in frames:
                    frames[row[0]].append(row[1])
                    db.execute("DELETE FROM dead WHERE id = ?", (id_,))
            self._append(db, frames)
            return sum(map(len, frames.values()))

        return self._file.transaction(work)

    def discard(self, ids: Sequence[Id]) -> int:
        """Delete them."""
        statement = "DELETE FROM dead WHERE id = ?"

        def work(db: sqlite3.Connection) -> int:
            return sum(db.execute(statement, (id_,)).rowcount for id_ in ids)

        gone = self._file.transaction(work)
        self._file.shrink()
        return gone

    def purge(self) -> int:
        """Empty both lanes and forget all leases."""

        def work(db: sqlite3.Connection) -> int:
            gone = self._depth(db).records
            for kind in _KINDS:
                db.execute(f"DELETE FROM {kind}")
            db.execute("DELETE FROM leases")
            db.execute("UPDATE lanes SET head = tail, divide = 0, records = 0, nbytes = 0")
            return gone

        gone = self._file.transaction(work)
        self._file.compact()
        return gone

    def abandon(self) -> None:
        """Leave the file to the parent."""
        self._file.abandon()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- leases ------------------------------------------------------------------------------

    def _take_over(self, db: sqlite3.Connection, held: Mapping[Kind, Sequence[Id]]) -> Claim | None:
        """Take a lease that ran out: somebody was killed, or has given it back."""
        now = self._clock.monotonic()
        # The clock begins anew when the machine does: a deadline far ahead is of another life.
        query = (
            "SELECT id, kind, first, last, size, batch_id, created_at FROM leases"
            " WHERE (deadline <= ? OR deadline > ?) AND NOT (owner GLOB ? AND"
            " CAST(substr(owner, ?) AS INTEGER) > ?) ORDER BY id"
        )
        later = (f"{_LATER}*", len(_LATER) + 1, VERSION)
        late = db.execute(query, (now, now + _LEASE_MAX, *later)).fetchall()
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
                (self._owner, now + self._lease, lease),
            )
            if len(entries) == size:
                return Claim(kind, entries, batch_id, created_at)
            return Claim(kind, entries)
        return None

    def _claim_new(
        self, db: sqlite3.Connection, limit: int, max_bytes: int, batch_id: str, created_at: float
    ) -> Claim | None:
        for _ in range(_SKIPPED_AT_A_TIME):
            lanes, fresh = [Lane.of(db, kind) for kind in _KINDS], self._is_fresh_turn
            lane = _oldest(lanes, fresh=fresh) or _oldest(lanes, fresh=False)
            if lane is None:
                return None
            self._is_fresh_turn = not fresh
            entries = lane.take(
                limit, max_bytes, now=self._clock.now(), stale_after=self._stale_after, fresh=fresh
            )
            version = later_version(entries[0][1])
            holder = self._owner, self._clock.monotonic() + self._lease
            if version:
                holder = f"{_LATER}{version}", 0.0
            span = entries[0][0], entries[-1][0]
            db.execute(
                "INSERT INTO leases (kind, first, last, size, owner, deadline, batch_id,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (lane.kind, *span, len(entries), *holder, batch_id, created_at),
            )
            if not version:
                return Claim(lane.kind, entries)
            self._skipped += len(entries)
        return None

    def _unclaimed(
        self, db: sqlite3.Connection, kind: Kind, what: str = "frame"
    ) -> Iterator[tuple[int, bytes]]:
        for low, high in Lane.of(db, kind).spans():
            query = f"SELECT id, {what} FROM {kind} WHERE id > ? AND id <= ? ORDER BY id"
            yield from db.execute(query, (low, high))

    def _evict(self, db: sqlite3.Connection) -> int:
        """Delete the oldest that nobody holds until the bounds are kept."""
        lost = 0
        while True:
            depth = self._depth(db)
            over = depth.records - self._max_records
            over_bytes = depth.nbytes - self._max_bytes
            if over <= 0 and over_bytes <= 0:
                return lost
            gone = self._evict_some(db, over, over_bytes)
            if gone == 0:
                return lost
            lost += gone

    def _evict_some(self, db: sqlite3.Connection, over: int, over_bytes: int) -> int:
        heads = {kind: next(self._unclaimed(db, kind), None) for kind in _KINDS}
        open_ = {kind: made_at(head[1]) for kind, head in heads.items() if head is not None}
        if not open_:
            return 0
        kind = min(open_, key=lambda one: open_[one])
        until = min((moment for one, moment in open_.items() if one != kind), default=float("inf"))
        ids: list[int] = []
        for id_, frame in self._unclaimed(db, kind):
            too_many = len(ids) < over or over_bytes > 0
            if not too_many or len(ids) >= _EVICTED_AT_A_TIME or (ids and made_at(frame) > until):
                break
            ids.append(id_)
            over_bytes -= len(frame)
        return sum(self._delete(db, kind, *span) for span in _spans(ids))

    def _delete(self, db: sqlite3.Connection, kind: Kind, first: int, last: int) -> int:
        span = (first, last)
        nbytes, gone = db.execute(
            f"SELECT total(length(frame)), count(*) FROM {kind} WHERE id BETWEEN ? AND ?", span
        ).fetchone()
        if gone:
            db.execute(f"DELETE FROM {kind} WHERE id BETWEEN ? AND ?", span)
            db.execute(
                "UPDATE lanes SET records = records - ?, nbytes = nbytes - ? WHERE kind = ?",
                (gone, int(nbytes), kind),
            )
        db.execute(
            "DELETE FROM leases WHERE kind = ? AND first <= ? AND last >= ? AND NOT EXISTS"
            f" (SELECT 1 FROM {kind} WHERE id BETWEEN leases.first AND leases.last)",
            (kind, last, first),
        )
        return int(gone)

    def _depth(self, db: sqlite3.Connection) -> Depth:
        row = db.execute("SELECT total(records), total(nbytes) FROM lanes").fetchone()
        return Depth(int(row[0]), int(row[1]), self._file.generation)


def _dead_bytes(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT total(length(frame)) FROM dead").fetchone()[0])


def _later(db: sqlite3.Connection) -> int:
    query = "SELECT total(size) FROM leases WHERE owner GLOB ?"
    return int(db.execute(query, (f"{_LATER}*",)).fetchone()[0])


def _page(rows: sqlite3.Cursor, limit: int) -> list[Any]:
    """Return the first rows, no more than memory is for; the last field is the frame."""
    found: list[Any] = []
    nbytes = 0
    while len(found) < limit and nbytes < PAGE_BYTES and (row := rows.fetchone()) is not None:
        found.append(row)
        nbytes += len(row[-1]) if isinstance(row[-1], bytes) else 0
    rows.close()
    return found


def _oldest(lanes: Sequence[Lane], *, fresh: bool) -> Lane | None:
    """Return the lane in which something waits longest, or news do."""
    found = [(moment, lane) for lane in lanes if (moment := lane.next_at(fresh=fresh)) is not None]
    return min(found, key=lambda one: one[0])[1] if found else None


def _spans(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the first and the last of each run of consecutive ids."""
    if not ids:
        return
    ordered = sorted(ids)
    first = last = ordered[0]
    for id_ in ordered:
        if id_ > last + 1:
            yield first, last
            first = id_
        last = id_
    yield first, last
