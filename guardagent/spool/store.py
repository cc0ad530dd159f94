"""What a durable spool needs of the place where it keeps records.

A store knows frames, ids and leases; batches, order of retries and what to do when it is away are
`DurableSpool`'s. Each operation is one transaction: a process that is killed in the middle of it
has done it, or not begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import attrs

from guardagent.fields import Kind

__all__ = [
    "PAGE_BYTES",
    "Added",
    "Census",
    "Claim",
    "DeadLetter",
    "Depth",
    "Id",
    "Store",
    "WhenFull",
]

#: Orders the records of one kind by their arrival.
Id = Any
#: Who gives way in a full spool: the oldest that nobody is sending, or nobody, because whoever
#: appends asks for room first.
WhenFull = Literal["drop_oldest", "grow"]


#: A page of `waiting` or `dead` ends when it is so large, however few they are.
PAGE_BYTES = 8 * 1024 * 1024


@attrs.frozen
class Depth:
    """What a store holds, whoever put it there.

    Args:
        records: neither settled nor buried; leased ones included.
        nbytes: bytes of their frames.
        generation: changes when a store has lost everything and begun anew.
    """

    records: int
    nbytes: int
    generation: str


@attrs.frozen
class Added:
    """What came of an append.

    Args:
        lost: records that had to go, old or new.
        spans: first and last id of the new records of each kind.
    """

    lost: int
    spans: Mapping[Kind, tuple[Id, Id]]
    depth: Depth


@attrs.frozen
class Claim:
    """Frames of one kind that are leased to this process, oldest first.

    Args:
        entries: pairs of id and frame; more than was asked for are leased all the same.
        batch_id: the name under which exactly these were leased before, if the store remembers.
        created_at: unix seconds that go with that name.
    """

    kind: Kind
    entries: Sequence[tuple[Id, bytes]]
    batch_id: str | None = None
    created_at: float | None = None


@attrs.frozen
class DeadLetter:
    """A record that will not be sent, kept for whoever looks after the spool.

    Args:
        id: its id among the dead letters.
        reason: the `DropReason` under which it was counted.
        buried_at: unix seconds.
        frame: as it lay in the spool; possibly damaged, when that is the reason.
    """

    id: Id
    kind: Kind
    reason: str
    buried_at: float
    frame: bytes


@attrs.frozen
class Census:
    """What a store keeps beside the records to be sent.

    Args:
        dead: number of dead letters by reason.
        dead_bytes: bytes of their frames.
        later: records kept that only a later release can read. They are leased to nobody and left
            to processes of that release, within the bounds of the store.
    """

    dead: Mapping[str, int]
    dead_bytes: int
    later: int


class Store(Protocol):
    """Keeps frames for all processes that share it.

    Thread-safe. Constructing it touches nothing; the first operation opens it, and one after a
    failure opens it again. Every operation is bounded in time, and every one may raise SpoolError,
    with a message that shows no credentials.
    """

    def append(self, frames: Mapping[Kind, Sequence[bytes]]) -> Added:
        """Keep the frames, in order, within the bounds."""
        ...

    def claim(
        self,
        limit: int,
        max_bytes: int,
        batch_id: str,
        created_at: float,
        held: Mapping[Kind, Sequence[Id]] | None = None,
    ) -> tuple[Claim | None, Depth]:
        """Lease the oldest records of one kind: first those whose lease ran out, then new ones.

        While a long backlog drains, every other claim takes from what is young or was not long ago,
        so that news do not wait for history.

        Args:
            limit: records.
            max_bytes: of the bodies with a comma each, which is `weight` of their frames; the first
                record is leased whatever its size, and a store that cannot tell beforehand may
                lease more.
            batch_id: the name to remember for records that are leased for the first time.
            created_at: unix seconds, to be remembered with it.
            held: what this process has in hand already; it is not leased to it again, however late
                the lease is. Any other lease that ran out is, also one of its own: the answer to
                that claim was lost.
        """
        ...

    def settle(self, kind: Kind, ids: Sequence[Id]) -> tuple[int, Depth]:
        """Forget records; return how many of them were still there."""
        ...

    def bury(self, kind: Kind, ids: Sequence[Id], reason: str) -> tuple[int, Depth]:
        """Put records among the dead letters; return how many of them were still there.

        The oldest dead letters give way when there are more than 10,000 of them, or more bytes than
        a tenth of the store's bound.
        """
        ...

    def renew(self, held: Mapping[Kind, Sequence[Id]]) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
        """Begin the leases of these records anew; return those that are leased to this process."""
        ...

    def give_back(self, held: Mapping[Kind, Sequence[Id]]) -> None:
        """End the leases of these records: whoever claims next gets them."""
        ...

    def expire(self, before: float) -> tuple[int, Depth]:
        """Forget records that nobody holds and that were made before that unix second."""
        ...

    def depth(self) -> Depth:
        """Return what is kept."""
        ...

    def oldest_at(self) -> float | None:
        """Return when the oldest record kept was made, unix seconds; None when there is none."""
        ...

    def holds(self, kind: Kind, first: Id, last: Id) -> bool:
        """Tell whether a record with an id in that span is kept."""
        ...

    def extent(self) -> Mapping[Kind, tuple[Id, Id]]:
        """Return the first and the last id kept, of each kind that there is any of."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return the value put under a name."""
        ...

    def put(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        ...

    def waiting(self, limit: int, after: tuple[Kind, Id] | None = None) -> Sequence[Any]:
        """Return up to `limit` triples (kind, id, frame) of records kept, those after that one.

        All are of one kind. Fewer when they are large; none only when there are none.
        """
        ...

    def dead(self, limit: int, after: Id | None = None) -> Sequence[DeadLetter]:
        """Return up to `limit` dead letters, oldest first, those after that one.

        Fewer when they are large; none only when there are none.
        """
        ...

    def count_dead(self) -> int:
        """Return the number of dead letters."""
        ...

    def census(self) -> Census:
        """Count what is kept beside the records, without reading any."""
        ...

    def requeue(self, ids: Sequence[Id]) -> int:
        """Make records of these dead letters again, newest of all; return how many."""
        ...

    def discard(self, ids: Sequence[Id]) -> int:
        """Forget these dead letters; return how many."""
        ...

    def purge(self) -> int:
        """Forget every record kept, leased ones included, but no dead letter; return how many."""
        ...

    def abandon(self) -> None:
        """Let go of everything in a forked child without touching what the parent uses."""
        ...

    def close(self) -> None:
        """Let go of connections; the store can be used again."""
        ...
