"""The records in a spool's file: what comes in behind, and what goes out in front or anywhere.

Owns: the tables of the two kinds, and the counters in their lanes. In: frames, ids, bounds; all of
it within a transaction. Out: what was added or is gone, by number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, get_args

from guardagent.fields import Kind
from guardagent.spool.frame import HEADER_BYTES, made_at
from guardagent.spool.sqlite_lane import Lane
from guardagent.spool.store import PAGE_BYTES, Id

__all__ = [
    "KINDS",
    "append",
    "delete",
    "evict",
    "expire",
    "extent",
    "is_any_overdue",
    "oldest_at",
    "page",
    "purge",
    "runs",
    "totals",
    "waiting",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
_EVICTED_AT_A_TIME, _EXPIRED_AT_A_TIME = 500, 5_000


def append(
    db: sqlite3.Connection, frames: Mapping[Kind, Sequence[bytes]]
) -> dict[Kind, tuple[Id, Id]]:
    """Put frames behind all others; return the first and the last id of each kind."""
    spans: dict[Kind, tuple[Id, Id]] = {}
    for kind, some in frames.items():
        if not some:
            continue
        tail = Lane.of(db, kind).tail
        first, last = tail + 1, tail + len(some)
        db.executemany(f"INSERT INTO {kind} VALUES (?, ?)", zip(count(first), some))
        db.execute(
            "UPDATE lanes SET tail = ?, records = records + ?, nbytes = nbytes + ? WHERE kind = ?",
            (last, len(some), sum(map(len, some)), kind),
        )
        spans[kind] = first, last
    return spans


def delete(db: sqlite3.Connection, kind: Kind, ids: Sequence[Id]) -> int:
    """Delete records, and the leases of which nothing is left; return how many there were."""
    return sum(_delete(db, kind, *run) for run in runs(ids))


def _delete(db: sqlite3.Connection, kind: Kind, first: int, last: int) -> int:
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


def purge(db: sqlite3.Connection) -> int:
    """Empty both lanes and forget all leases."""
    gone, _ = totals(db)
    for kind in KINDS:
        db.execute(f"DELETE FROM {kind}")
    db.execute("DELETE FROM leases")
    db.execute("UPDATE lanes SET head = tail, divide = 0, records = 0, nbytes = 0")
    return gone


# -- what gives way ------------------------------------------------------------------------------


def is_any_overdue(db: sqlite3.Connection, before: float) -> bool:
    """Tell whether `expire` would find any."""
    return any(_overdue(db, kind, before, 1) for kind in KINDS)


def expire(db: sqlite3.Connection, before: float) -> int:
    """Delete from the front of what nobody holds, until a record is young enough, or some."""
    overdue = {kind: _overdue(db, kind, before, _EXPIRED_AT_A_TIME) for kind in KINDS}
    return sum(delete(db, kind, ids) for kind, ids in overdue.items())


def _overdue(db: sqlite3.Connection, kind: Kind, before: float, limit: int) -> list[int]:
    ids: list[int] = []
    for id_, head in _unclaimed(db, kind, f"substr(frame, 1, {HEADER_BYTES})"):
        moment = made_at(head)
        if len(ids) == limit or before <= moment < float("inf"):
            break
        if moment < before:  # one that cannot be told is left, and hides none behind it
            ids.append(id_)
    return ids


def evict(db: sqlite3.Connection, max_records: int, max_bytes: int) -> int:
    """Delete the oldest that nobody holds until the bounds are kept."""
    lost = 0
    while True:
        records, nbytes = totals(db)
        over, over_bytes = records - max_records, nbytes - max_bytes
        if over <= 0 and over_bytes <= 0:
            return lost
        gone = _evict_some(db, over, over_bytes)
        if gone == 0:
            return lost
        lost += gone


def _evict_some(db: sqlite3.Connection, over: int, over_bytes: int) -> int:
    heads = {kind: next(_unclaimed(db, kind), None) for kind in KINDS}
    open_ = {kind: made_at(head[1]) for kind, head in heads.items() if head is not None}
    if not open_:
        return 0
    kind = min(open_, key=lambda one: open_[one])
    until = min((moment for one, moment in open_.items() if one != kind), default=float("inf"))
    ids: list[int] = []
    for id_, frame in _unclaimed(db, kind):
        too_many = len(ids) < over or over_bytes > 0
        if not too_many or len(ids) >= _EVICTED_AT_A_TIME or (ids and made_at(frame) > until):
            break
        ids.append(id_)
        over_bytes -= len(frame)
    return delete(db, kind, ids)


def _unclaimed(
    db: sqlite3.Connection, kind: Kind, what: str = "frame"
) -> Iterator[tuple[int, bytes]]:
    for low, high in Lane.of(db, kind).spans():
        query = f"SELECT id, {what} FROM {kind} WHERE id > ? AND id <= ? ORDER BY id"
        yield from db.execute(query, (low, high))


# -- questions -----------------------------------------------------------------------------------


def totals(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the counters: records, and bytes of their frames."""
    row = db.execute("SELECT total(records), total(nbytes) FROM lanes").fetchone()
    return int(row[0]), int(row[1])


def oldest_at(db: sqlite3.Connection) -> float | None:
    """Return the oldest first record's moment."""
    firsts = [
        db.execute(f"SELECT frame FROM {kind} ORDER BY id LIMIT 1").fetchone() for kind in KINDS
    ]
    return min((made_at(first[0]) for first in firsts if first), default=None)


def extent(db: sqlite3.Connection) -> Mapping[Kind, tuple[Id, Id]]:
    """Look at both ends of the tables."""
    ends = {kind: db.execute(f"SELECT min(id), max(id) FROM {kind}").fetchone() for kind in KINDS}
    return {kind: pair for kind, pair in ends.items() if pair[0] is not None}


def waiting(db: sqlite3.Connection, limit: int, after: tuple[Kind, Id] | None) -> list[Any]:
    """Return records of the first kind, then of the second."""
    kind, id_ = after or (KINDS[0], 0)
    for one in KINDS[KINDS.index(kind) :]:
        rows = db.execute(
            f"SELECT '{one}', id, frame FROM {one} WHERE id > ? ORDER BY id",
            (id_ if one == kind else 0,),
        )
        found = page(rows, limit)
        if found:
            return found
    return []


def page(rows: sqlite3.Cursor, limit: int) -> list[Any]:
    """Return the first rows, no more than memory is for; the last field is the frame."""
    found: list[Any] = []
    nbytes = 0
    while len(found) < limit and nbytes < PAGE_BYTES and (row := rows.fetchone()) is not None:
        found.append(row)
        nbytes += len(row[-1]) if isinstance(row[-1], bytes) else 0
    rows.close()
    return found


def runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
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
