"""The records of one kind in the file: what was leased, and what is next.

    1 ... head ... divide ... fresh ... tail
     leased|  waits  |leased|  waits  |

Usually there is no divide, and everything behind the head waits. When the oldest of a long backlog
has grown old, a divide is drawn before what is young: history before it and news behind it are then
leased by turns. When news have grown old and long themselves, in an outage after the first, the
divide is drawn anew; history then holds, between its two parts, leases of what was news.
"""

from __future__ import annotations

import sqlite3

import attrs

from guardagent.fields import Kind
from guardagent.spool.frame import later_version, made_at, weight

__all__ = ["Lane"]

#: A backlog is divided when there are more than so many claims of it.
_LONG = 4

_Span = tuple[int, int]


@attrs.define(eq=False)
class Lane:
    """One row of the table `lanes`, within a transaction."""

    db: sqlite3.Connection
    kind: Kind
    head: int
    divide: int
    fresh: int
    tail: int
    #: Bytes of a record.
    average: int

    @classmethod
    def of(cls, db: sqlite3.Connection, kind: Kind) -> Lane:
        """Read it."""
        query = (
            "SELECT kind, head, divide, fresh, tail, nbytes / max(1, records) FROM lanes"
            " WHERE kind = ?"
        )
        row = db.execute(query, (kind,)).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"malformed: nothing is known of {kind}")
        return cls(db, *row)

    @property
    def history(self) -> _Span:
        """What waits before the divide, or all that waits: behind the first id, up to the second.

        Some of it may be leased.
        """
        return self.head, self.divide or self.tail

    @property
    def news(self) -> _Span:
        """What waits behind the divide, or all that waits."""
        return (self.fresh, self.tail) if self.divide else self.history

    def spans(self) -> list[_Span]:
        """Return what nobody has leased yet, oldest first."""
        if not self.divide:
            return [self.history]
        return [*self._without_leases(self.history), self.news]

    def _without_leases(self, span: _Span) -> list[_Span]:
        query = (
            "SELECT first, last FROM leases WHERE kind = ? AND last > ? AND first <= ?"
            " ORDER BY first"
        )
        free, (low, high) = [], span
        for first, last in self.db.execute(query, (self.kind, *span)):
            if low < first - 1:
                free.append((low, first - 1))
            low = max(low, last)
        return [*free, (low, high)] if low < high else free

    def next_at(self, *, fresh: bool) -> float | None:
        """Return when the oldest that waits was made, or the oldest of the news; None: nothing."""
        for span in [self.news] if fresh else self.spans():
            if (moment := self._made_at(span)) is not None:
                return moment
        return None

    def take(
        self, limit: int, max_bytes: int, *, now: float, stale_after: float, fresh: bool
    ) -> list[tuple[int, bytes]]:
        """Move past the next records and return them.

        Args:
            limit: records.
            max_bytes: of the bodies with a comma each; the first is taken in any case.
            now: unix seconds.
            stale_after: seconds after which what waits is old. Half as old is young: so a divide
                holds for a while before the next one is drawn.
            fresh: it is the turn of news, if there is a divide.
        """
        claim_size = min(limit, max_bytes // max(1, self.average))
        self._draw_divide(claim_size, old=now - stale_after, young=now - stale_after / 2)
        entries = self._next(self.news, limit, max_bytes) if fresh and self.divide else []
        if entries:
            self.fresh = entries[-1][0]
        else:
            entries = self._take_oldest(limit, max_bytes)
        self._write()
        return entries

    def _take_oldest(self, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        for span in self.spans():
            entries = self._next(span, limit, max_bytes)
            if self.divide and span == self.news:
                self.head, self.divide = self.fresh, 0  # history has come to its end
            self.head = entries[-1][0] if entries else span[1]
            if entries:
                return entries
        return []

    def _draw_divide(self, claim_size: int, *, old: float, young: float) -> None:
        """Make history of what has grown old among the news, if that is much."""
        low, high = self.news
        if high - low <= _LONG * claim_size:
            return
        oldest = self._made_at(self.news)
        if oldest is None or oldest >= old:
            return
        while high - low > 1:  # what lies behind `high` is young
            middle = (low + high) // 2
            moment = self._made_at((middle, high))
            if moment is not None and moment < young:
                low = middle
            else:
                high = middle
        if high - self.news[0] > _LONG * claim_size:
            self.divide = self.fresh = high

    def _next(self, span: _Span, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        entries: list[tuple[int, bytes]] = []
        version = 0
        rows = self._read(span, limit)
        for entry in rows:
            max_bytes -= weight(entry[1])
            if entries and (max_bytes < 0 or later_version(entry[1]) != version):
                break
            if not entries:
                version = later_version(entry[1])
            entries.append(entry)
        rows.close()
        return entries

    def _made_at(self, span: _Span) -> float | None:
        row = self._read(span, 1).fetchone()
        return None if row is None else made_at(row[1])

    def _read(self, span: _Span, limit: int) -> sqlite3.Cursor:
        query = f"SELECT id, frame FROM {self.kind} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        return self.db.execute(query, (*span, limit))

    def _write(self) -> None:
        self.db.execute(
            "UPDATE lanes SET head = ?, divide = ?, fresh = ? WHERE kind = ?",
            (self.head, self.divide, self.fresh, self.kind),
        )
