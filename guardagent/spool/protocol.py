"""What delivery needs of a spool, and the batch it hands out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from guardagent.encoding import Record
from guardagent.fields import Kind

__all__ = ["Batch", "Spool", "new_batch_id"]


def new_batch_id(created_at: float) -> str:
    """Return an id that was never used before, for a batch of that unix second."""
    return f"{int(created_at * 1000)}-{os.urandom(4).hex()}"


@attrs.define(kw_only=True, eq=False)
class Batch:
    """Records of one kind that are claimed and sent together.

    Id and time of creation are made once, so every attempt sends the same bytes.

    Args:
        bodies: the records' JSON, oldest first.
        created_at: unix seconds of the first claim.
        batch_id: `<unix ms>-<8 hex>` (WIRE.md 2).
        attempts: answers so far that left it to be offered again (2xx with `"success": false`).
        suspicion: how much speaks for it being the cause of the backend's 5xx (`Suspects`).
        sealed: what it was encrypted with and the payload, once it was made.
        position: the spool's own note of where it came from.
    """

    kind: Kind
    bodies: Sequence[bytes]
    created_at: float
    batch_id: str = attrs.field()
    attempts: int = 0
    suspicion: int = 0
    sealed: tuple[Any, str] | None = None
    position: Any = None

    @batch_id.default
    def _new_id(self) -> str:
        return new_batch_id(self.created_at)

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
            suspicion=self.suspicion,
            position=position,
        )


class Spool(Protocol):
    """Keeps records between encoding and acceptance.

    One thread appends, one claims and settles, any may ask; implementations are thread-safe, and
    raise nothing. Every claimed record is settled once: acknowledged, released or buried. A spool
    that survives the process may be shared: what others put in is handed out like one's own.
    """

    #: Seconds after which to look what other processes left; None: nobody else puts anything in.
    poll_interval: float | None

    @property
    def durable(self) -> bool:
        """Tell whether what is pending would survive the process."""
        ...

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records, in order; return how many were lost to make room or for want of it."""
        ...

    def claim(self, limit: int, max_bytes: int, now: float) -> Batch | None:
        """Hand out the oldest records of one kind, released batches first; None: there are none.

        Bodies with a comma each stay within `max_bytes`; one is handed out whatever its size.
        """
        ...

    def ack(self, batch: Batch) -> int:
        """Forget accepted records; return how many of them nobody else had settled meanwhile."""
        ...

    def release(self, batch: Batch) -> None:
        """Take a batch back to be claimed again, first and whole, with its id."""
        ...

    def is_ours(self, batch: Batch) -> bool:
        """Tell whether a claimed batch is still this process's; asked before it is sent again."""
        ...

    def split(self, batch: Batch) -> None:
        """Take a batch of two records or more back as two halves, to be claimed first."""
        ...

    def expire(self, before: float) -> int:
        """Forget unclaimed records made before that unix second; return how many."""
        ...

    def bury(self, batch: Batch, reason: str) -> int:
        """Put records that will never be accepted away; return how many, as `ack` does."""
        ...

    def pending(self) -> int:
        """Return the number of records kept, claimed ones included, whoever put them in."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of the bodies kept, claimed ones included."""
        ...

    def balance(self) -> int:
        """Return the records that this process put in less those it settled or lost."""
        ...

    def at_risk(self) -> int:
        """Return the number of records that would be gone with the process."""
        ...

    def room(self) -> int:
        """Return how many records can be appended before something is lost."""
        ...

    def ticket(self) -> Any:
        """Return a mark behind everything this process appended so far."""
        ...

    def is_settled(self, ticket: Any) -> bool:
        """Tell whether everything this process appended before the mark is settled."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return the value that was put under a name."""
        ...

    def put(self, name: str, value: bytes) -> None:
        """Keep a small value under a name, as well as the records are kept."""
        ...

    def look(self) -> None:
        """Notice what other processes did, if it is time to."""
        ...

    def tend(self) -> float | None:
        """Do what is due to keep claims and connections alive; return the seconds to the next."""
        ...

    def hand_back(self) -> None:
        """Let other processes have what this one has claimed: it may end at any moment."""
        ...

    def close(self) -> int:
        """Let everything go; return the number of records that are lost by it."""
        ...

    def abandon(self) -> None:
        """Leave what a forked child inherited to its parent."""
        ...
