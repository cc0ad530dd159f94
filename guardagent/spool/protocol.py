"""What delivery needs of a spool, and the batch it hands out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from guardagent.encoding import Record
from guardagent.fields import Kind

__all__ = ["Batch", "Spool"]


@attrs.define(kw_only=True, eq=False)
class Batch:
    """Records of one kind that are claimed and sent together.

    Id and time of creation are made once, so every attempt sends the same bytes.

    Args:
        bodies: the records' JSON, oldest first.
        created_at: unix seconds of the first claim.
        batch_id: `<unix ms>-<8 hex>` (WIRE.md 2).
        attempts: answers so far that left it to be offered again (2xx with `"success": false`).
        sealed: the encrypted payload, once it was made.
        position: the spool's own note of where it came from.
    """

    kind: Kind
    bodies: Sequence[bytes]
    created_at: float
    batch_id: str = attrs.field()
    attempts: int = 0
    sealed: str | None = None
    position: Any = None

    @batch_id.default
    def _new_id(self) -> str:
        return f"{int(self.created_at * 1000)}-{os.urandom(4).hex()}"

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def nbytes(self) -> int:
        """Bytes of all bodies."""
        return sum(map(len, self.bodies))

    def part(self, start: int, stop: int, position: Any) -> Batch:
        """Return a batch of some of the records, with an id of its own."""
        return Batch(
            kind=self.kind,
            bodies=self.bodies[start:stop],
            created_at=self.created_at,
            attempts=self.attempts,
            position=position,
        )


class Spool(Protocol):
    """Keeps records between encoding and acceptance.

    One thread appends, one claims and settles, any may ask; implementations are thread-safe.
    Every claimed record is settled once: acknowledged, released or buried.
    """

    #: True when records survive the process.
    durable: bool

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records, in order; return how many were lost to make room or for want of it."""
        ...

    def claim(self, limit: int, max_bytes: int, now: float) -> Batch | None:
        """Hand out the oldest records of one kind, released batches first; None: there are none.

        Bodies with a comma each stay within `max_bytes`; one is handed out whatever its size.
        """
        ...

    def ack(self, batch: Batch) -> None:
        """Forget accepted records."""
        ...

    def release(self, batch: Batch) -> None:
        """Take a batch back to be claimed again, first and whole, with its id."""
        ...

    def split(self, batch: Batch) -> None:
        """Take a batch of two records or more back as two halves, to be claimed first."""
        ...

    def expire(self, before: float) -> int:
        """Forget unclaimed records made before that unix second; return how many."""
        ...

    def bury(self, batch: Batch, reason: str) -> None:
        """Forget records that will never be accepted."""
        ...

    def pending(self) -> int:
        """Return the number of records kept, claimed ones included."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of the bodies kept, claimed ones included."""
        ...

    def room(self) -> int:
        """Return how many records can be appended before something is lost."""
        ...

    def ticket(self) -> Any:
        """Return a mark behind everything appended so far."""
        ...

    def is_settled(self, ticket: Any) -> bool:
        """Tell whether everything before the mark is settled."""
        ...

    def close(self) -> int:
        """Let everything go; return the number of records that are lost by it."""
        ...
