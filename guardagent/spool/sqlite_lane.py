"""The records of one kind in the file: what was leased, and what is next.

    1 ... head ... divide ... fresh ... tail
     leased|  waits  |leased|  waits  |

Usually there is no divide, and everything behind the head waits. When what waits has grown old, a
divide is drawn at the tail: history before it and news behind it are then leased by turns.
"""

from __future__ import annotations

import sqlite3

import attrs

from guardagent.fields import Kind
from guardagent.spool.frame import made_at, weight

__all__ = ["Lane"]

#: A backlog is divided when there are more than so many claims of it.
_LONG = 4


@attrs.define(eq=False)
class Lane:
    """One row of the table `lanes`, within a transaction."""

    kind: Kind
    head: int
    divide: int
    fresh: int
    tail: int

    @classmethod
    def of(cls, db: sqlite3.Connection, kind: Kind) -> Lane:
        """Read it."""
        query = "SELECT kind, head, divide, fresh, tail FROM lanes WHERE kind = ?"
        return cls(*db.execute(query, (kind,)).fetchone())

    @property
    def spans(self) -> list[tuple[int, int]]:
        """What nobody has leased yet: behind the first id of each pair, up to the second."""
        if self.divide:
            return [(self.head, self.divide), (self.fresh, self.tail)]
        return [(self.head, self.tail)]

    @property
    def is_open(self) -> bool:
        """Tell whether something may wait."""
        return any(low < high for low, high in self.spans)

    def next_at(self, db: sqlite3.Connection) -> float:
        """Return when the oldest record that waits was made; infinity when none does."""
        for span in self.spans:
            row = db.execute(
                f"SELECT frame FROM {self.kind} WHERE id > ? AND id <= ? ORDER BY id LIMIT 1", span
            ).fetchone()
            if row is not None:
                return made_at(row[0])
        return float("inf")

    def take(
        self, db: sqlite3.Connection, limit: int, max_bytes: int, *, stale_at: float, fresh: bool
    ) -> list[tuple[int, bytes]]:
        """Move past the next records and return them.

        What was made before the unix second `stale_at` is history; `fresh` says that it is the turn
        of news, if there is a divide.
        """
        history, *news = [self._next(db, span, limit, max_bytes) for span in self.spans]
        if news and not history:
            self.head, self.divide, history, news = self.fresh, 0, news[0], []
        elif history and not news and self._is_long(history, limit, stale_at):
            self.divide = self.fresh = self.tail
        entries = news[0] if fresh and news and news[0] else history
        if entries:
            if entries is history:
                self.head = entries[-1][0]
            else:
                self.fresh = entries[-1][0]
        elif not self.divide:
            self.head = self.tail  # what waited was evicted or has expired
        self._write(db)
        return entries

    def _is_long(self, entries: list[tuple[int, bytes]], limit: int, stale_at: float) -> bool:
        return self.tail - self.head > _LONG * limit and made_at(entries[0][1]) < stale_at

    def _next(
        self, db: sqlite3.Connection, span: tuple[int, int], limit: int, max_bytes: int
    ) -> list[tuple[int, bytes]]:
        entries: list[tuple[int, bytes]] = []
        if span[0] >= span[1]:
            return entries
        rows = db.execute(
            f"SELECT id, frame FROM {self.kind} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (*span, limit),
        )
        for entry in rows:
            max_bytes -= weight(entry[1])
            if max_bytes < 0 and entries:
                break
            entries.append(entry)
        rows.close()
        return entries

    def _write(self, db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE lanes SET head = ?, divide = ?, fresh = ? WHERE kind = ?",
            (self.head, self.divide, self.fresh, self.kind),
        )
