"""A spool that survives the process: a store shared with others, and shelter while it is away.

Owns: this process's claims and leases. In: records, whose bytes the store keeps. Out: batches,
first those that came back, then what was sheltered, then the store's oldest.

Nothing here raises: a store that is away, full or broken is told once, asked again at intervals and
done without meanwhile. One that answers and takes nothing in (Redis out of memory, a full disk) is
emptied all the while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from guardagent._clock import Clock
from guardagent.encoding import Record
from guardagent.fields import Kind
from guardagent.spool.account import Account
from guardagent.spool.claims import batches_of, sort_out
from guardagent.spool.frame import HEADER_BYTES
from guardagent.spool.holding import Holding, Place
from guardagent.spool.memory import MemorySpool
from guardagent.spool.protocol import Batch, new_batch_id
from guardagent.spool.sheltered import ShelteredStore
from guardagent.spool.spans import Mark
from guardagent.spool.store import Claim, Depth, Store
from guardagent.status import DropReason

__all__ = ["DurableSpool"]

#: Seconds between two looks at the age of what is in the store.
_EXPIRED_EVERY = 1.0
_NEVER = float("inf")


@attrs.frozen
class _Ticket:
    mark: Mark
    shelter: Any


class DurableSpool:
    """A `Spool` over a `Store`.

    Args:
        store: where records are kept; closed by `close`.
        shelter: keeps records while the store is away.
        lease: seconds for which the store holds a claim that is not renewed.
        max_records: the store's bound.
        max_bytes: the store's bound.
        poll_interval: seconds after which to look what other processes left.
        hands_over: others deliver, so what is in the store is settled for this process.
        on_lost: told of records that are lost, by reason: damaged ones, and all of them when the
            store came back empty.
        on_error: told of each failure of the store; any exception of its is one.
        wake: has `tend` called soon.
    """

    def __init__(
        self,
        store: Store,
        shelter: MemorySpool,
        *,
        lease: float,
        max_records: int,
        max_bytes: int,
        clock: Clock,
        poll_interval: float = 2.0,
        hands_over: bool = False,
        on_lost: Callable[[DropReason, int], object] = lambda _reason, _n: None,
        on_error: Callable[[Exception], object] = lambda _error: None,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self.poll_interval: float | None = poll_interval
        self._store = store
        self._shelter = shelter
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._clock = clock
        self._hands_over = hands_over
        self._on_lost = on_lost
        self._on_error = on_error
        self._wake = wake
        self._holding = Holding()
        self._account = Account(self._holding, clock, on_lost)
        self._sheltered = ShelteredStore(
            store,
            shelter,
            self._account,
            clock,
            max_bytes=max_bytes,
            on_lost=on_lost,
            on_error=on_error,
            wake=wake,
        )
        self._expired = float("-inf")  # the age that was last asked for
        self._renewal = lease / 3
        self._renew_at = _NEVER

    @property
    def durable(self) -> bool:
        """Tell whether what is pending would survive the process."""
        return self._sheltered.durable

    # -- in and out --------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records in the store, or in the shelter while it is away."""
        return self._sheltered.append(records)

    def claim(self, limit: int, max_bytes: int, now: float) -> Batch | None:
        """Hand out released batches, then what was sheltered, then the store's oldest."""
        self._renew()
        batch = self._holding.next() or self._shelter.claim(limit, max_bytes, now)
        while batch is None:
            name = new_batch_id(now)
            held = self._holding.ids()
            claim, depth = self._sheltered.ask(
                partial(self._store.claim, limit, max_bytes, name, now, held), (None, None)
            )
            if depth is not None:
                self._account.see(depth)
            if claim is None:
                break
            self._take(claim, limit, max_bytes, name, now)
            batch = self._holding.next()  # None when all of it was damaged
        return batch

    def _take(self, claim: Claim, limit: int, max_bytes: int, name: str, now: float) -> None:
        sound = sort_out(claim)
        batches = batches_of(
            claim,
            sound,
            limit=limit,
            max_bytes=max_bytes,
            batch_id=name,
            created_at=now,
            generation=self._account.depth.generation,
        )
        self._holding.add(list(batches))
        if self._renew_at == _NEVER:
            self._renew_at = self._clock.monotonic() + self._renewal
            self._wake()
        if sound.fault is not None:
            bury = partial(self._store.bury, claim.kind, sound.damaged, "corrupt")
            self._sheltered.settle(len(sound.damaged), bury)
            self._on_lost("corrupt", len(sound.damaged))
            self._on_error(sound.fault)

    # -- settling ----------------------------------------------------------------------------

    def ack(self, batch: Batch) -> int:
        """Forget accepted records."""
        return self._end(batch, self._store.settle)

    def bury(self, batch: Batch, reason: str) -> int:
        """Put records among the dead letters."""
        return self._end(batch, lambda kind, ids: self._store.bury(kind, ids, reason))

    def _end(self, batch: Batch, settle: Callable[[Kind, Sequence[Any]], tuple[int, Depth]]) -> int:
        place = batch.position
        if not isinstance(place, Place):
            return self._shelter.ack(batch)
        if not self._holding.remove(batch):
            return 0
        if place.generation != self._account.depth.generation:
            self._account.taken.add(len(batch))
            return len(batch)  # a store that lost everything knows nothing of it
        return self._sheltered.settle(len(batch), lambda: settle(batch.kind, place.ids))

    def release(self, batch: Batch) -> None:
        """Keep the batch, and its lease, as it is."""
        if isinstance(batch.position, Place):
            self._holding.release(batch)
        else:
            self._shelter.release(batch)
            # The store may have come back meanwhile: then the batch is moved there.
            self._sheltered.is_reached()

    def split(self, batch: Batch) -> None:
        """Cut a batch in two."""
        if isinstance(batch.position, Place):
            self._holding.split(batch)
        else:
            self._shelter.split(batch)

    def expire(self, before: float) -> int:
        """Forget what is too old, of anybody's, unless somebody holds it."""
        self._renew()  # what another process has is not this one's to forget
        lost = self._shelter.expire(before)
        for batch in self._holding.expired(before):
            forget = partial(self._store.settle, batch.kind, batch.position.ids)
            lost += self._sheltered.settle(len(batch), forget)
        if abs(before - self._expired) < _EXPIRED_EVERY:
            return lost
        n, depth = self._sheltered.ask(partial(self._store.expire, before), (0, None))
        if depth is not None:
            self._expired = before
            self._account.see(depth)
        self._account.taken.add(n)
        return lost + n

    # -- questions ---------------------------------------------------------------------------

    def pending(self) -> int:
        """Return what the store held when it was last asked, and what is sheltered."""
        return self._account.depth.records + self.at_risk()

    def nbytes(self) -> int:
        """Return the bytes of the bodies."""
        depth = self._account.depth
        return max(0, depth.nbytes - HEADER_BYTES * depth.records) + self._shelter.nbytes()

    def balance(self) -> int:
        """Return what this process put in less what it took out, whoever had put that in."""
        return self._account.balance() + self.at_risk()

    def at_risk(self) -> int:
        """Return the number of records that would go with the process."""
        return self._sheltered.at_risk()

    def room(self) -> int:
        """Return how many records more are within the bounds; 0 from 7/8 of the bytes on."""
        if not self.durable:
            return self._shelter.room()
        if self._account.depth.nbytes > self._max_bytes // 8 * 7:
            return 0
        return max(0, self._max_records - self._account.depth.records)

    def ticket(self) -> _Ticket:
        """Return a mark behind everything this process has appended."""
        return _Ticket(self._account.spans.mark(), self._shelter.ticket())

    def is_settled(self, ticket: _Ticket) -> bool:
        """Tell whether nothing of it is left; for want of an answer it is not."""
        if self._sheltered.moving or not self._shelter.is_settled(ticket.shelter):
            return False
        if self._hands_over:
            return True
        if self._sheltered.is_closed or self._holding.is_older_than(self._account.depth.generation):
            return False
        if not self._sheltered.is_reached():
            return self._account.spans.is_settled(ticket.mark, _may_hold)
        return self._sheltered.ask(
            lambda: self._account.spans.is_settled(ticket.mark, self._store.holds), False
        )

    def get(self, name: str) -> bytes | None:
        """Return a value; None also while the store is away."""
        return self._sheltered.ask(lambda: self._store.get(name), None)

    def put(self, name: str, value: bytes) -> None:
        """Keep a value, if the store can be reached."""
        self._sheltered.ask(lambda: self._store.put(name, value), None)

    def look(self) -> None:
        """Notice what other processes have done, unless the store was heard of just now."""
        if self._clock.monotonic() >= self._look_at:
            depth = self._sheltered.ask(self._store.depth, None)
            if depth is not None:
                self._account.see(depth)

    @property
    def _look_at(self) -> float:
        return self._account.heard_at + (self.poll_interval or 0.0)

    # -- keeping in touch --------------------------------------------------------------------

    def tend(self) -> float | None:
        """Renew leases and look for a store that is away; return the seconds to the next time."""
        if self._sheltered.is_closed:
            return None
        if self._sheltered.is_reached():
            # At the start it tells whether there is a store; who hands over never asks otherwise.
            if self._hands_over or self._account.is_new:
                self.look()
            self._renew()
        retry_at = self._sheltered.retry_at
        due_at = [] if retry_at is None else [retry_at]
        if self._sheltered.is_usable:
            due_at += [self._renew_at, self._look_at if self._hands_over else _NEVER]
        # It may come back, or go away, between two looks: then there is nothing, and a ring comes.
        due_in = min(due_at, default=_NEVER) - self._clock.monotonic()
        return None if due_in == _NEVER else max(0.05, due_in)

    def is_ours(self, batch: Batch) -> bool:
        """Tell whether nobody has taken it over while this process stood still."""
        self._renew()
        return not isinstance(batch.position, Place) or self._holding.has(batch)

    def _renew(self) -> None:
        """Begin the leases on what is held anew, if it is time to; let go of what is not ours.

        Several threads may do it at the same time: none goes on before it has had an answer.
        """
        now = self._clock.monotonic()
        if now < self._renew_at:
            return
        held = self._holding.ids()
        if not held:
            self._renew_at = _NEVER
            held = self._holding.ids()  # clear, then look: a claim sets it only when it is not set
            if not held:
                return
        mine, depth = self._sheltered.ask(partial(self._store.renew, held), ({}, None))
        if depth is not None:
            self._renew_at = now + self._renewal
            self._account.see(depth)
            self._forgo(held, mine)

    def _forgo(
        self, held: Mapping[Kind, Sequence[Any]], mine: Mapping[Kind, Sequence[Any]]
    ) -> None:
        lost = {kind: set(ids).difference(mine.get(kind, ())) for kind, ids in held.items()}
        if any(lost.values()):
            rest = self._holding.forgo(lost, self._account.depth.generation)
            if any(rest.values()):
                self._sheltered.ask(partial(self._store.give_back, rest), None)

    def hand_back(self) -> None:
        """End the leases on what is held: the process may end at any moment from now on."""
        held = self._holding.clear()
        if held:
            self._sheltered.ask(lambda: self._store.give_back(held), None)

    def close(self) -> int:
        """Give everything back; return the number of records that only this process had."""
        self.hand_back()
        self._sheltered.close()
        return self._shelter.close()

    def abandon(self) -> None:
        """Leave the store's connections to the parent of a forked child."""
        self._store.abandon()


def _may_hold(_kind: Kind, _first: Any, _last: Any) -> bool:
    """Answer for a store that cannot be asked."""
    return True
