"""A spool that survives the process: a store shared with others, and shelter while it is away.

Owns: this process's claims and leases, and what waits in memory while the store is away. In:
records, whose bytes the store keeps. Out: batches, first those that came back, then the oldest.

Nothing here raises: a store that is away, full or broken is told once, asked again at intervals and
done without meanwhile. One that answers and takes nothing in (Redis out of memory, a full disk) is
emptied all the while.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs

from guardagent._clock import Clock
from guardagent.encoding import Record
from guardagent.fields import Kind
from guardagent.spool.absence import Absence
from guardagent.spool.claims import batches_of, sort_out
from guardagent.spool.frame import HEADER_BYTES, pack
from guardagent.spool.holding import Holding, Place
from guardagent.spool.memory import MemorySpool
from guardagent.spool.protocol import Batch, new_batch_id
from guardagent.spool.spans import Mark, Spans
from guardagent.spool.store import Claim, Depth, Store
from guardagent.status import DropReason, Tally

__all__ = ["DurableSpool"]

_T = TypeVar("_T")
_U = TypeVar("_U")

#: Records moved out of the shelter at a time: as many as fit into one operation of any store.
_MOVED_AT_A_TIME = 1_000
#: Seconds after which whoever moves them sees to something else first: it may be the intake.
_MOVING = 0.2
#: Seconds between two looks at the age of what is in the store.
_EXPIRED_EVERY = 1.0
_UNKNOWN = Depth(0, 0, "")
#: What proves that a store takes something in: about as large as a small append.
_PROBE = "probe", bytes(16 * 1024)
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
        self._spans = Spans()
        self._depth = _UNKNOWN
        self._heard_at = float("-inf")  # when the store last said how much it holds
        self._expired = float("-inf")  # the age that was last asked for
        self._put, self._taken = Tally(), Tally()  # by this process, of the store's records
        self._seeing = threading.Lock()  # guards the generation and what follows from a new one
        self._renewal = lease / 3
        self._renew_at = _NEVER
        self._absence = Absence(clock)
        self._answers = False  # though it is away: it takes nothing in, and can be emptied
        self._is_closed = False
        self._mending = threading.Lock()  # held by whoever tries to reach a store that is away
        self._sheltered_since: int | None = None
        self._moving = 0  # records that are neither in the shelter nor in the store for a moment
        #: Settlements that the store could not be told of yet.
        self._owed: deque[Callable[[], tuple[int, Depth]]] = deque()

    @property
    def durable(self) -> bool:
        """Tell whether what is pending would survive the process."""
        return (self._is_closed or not self._absence.is_on) and self.at_risk() == 0

    # -- in and out --------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records in the store, or in the shelter while it is away."""
        if not records:
            return 0
        # Behind what is in the shelter still: the order of capture is kept.
        if self._is_reached() and not (self._absence.is_on or self._shelter.can_withdraw):
            try:
                return self._append(records, self._spans.add)
            except Exception as error:  # of the store's, whatever it is: the shelter takes them
                self._miss(error)
        if self._sheltered_since is None:
            self._sheltered_since = self._spans.late
        return self._shelter.append(records)

    def _append(self, records: Sequence[Record], note: Callable[[Any], None]) -> int:
        frames: dict[Kind, list[bytes]] = {}
        too_large = 0  # for the whole spool: they alone go, rather than all others for them
        for record in records:
            frame = pack(record)
            if len(frame) > self._max_bytes:
                too_large += 1
            else:
                frames.setdefault(record.kind, []).append(frame)
        if too_large == len(records):
            return too_large
        added = self._store.append(frames)
        self._see(added.depth)  # first: a store that has begun anew ends all older spans
        note(added.spans)
        self._put.add(len(records) - too_large)
        self._taken.add(added.lost)
        return added.lost + too_large

    def claim(self, limit: int, max_bytes: int, now: float) -> Batch | None:
        """Hand out released batches, then what was sheltered, then the store's oldest."""
        self._renew()
        batch = self._holding.next() or self._shelter.claim(limit, max_bytes, now)
        while batch is None:
            name = new_batch_id(now)
            held = self._holding.ids()
            claim, depth = self._ask(
                partial(self._store.claim, limit, max_bytes, name, now, held), (None, None)
            )
            if depth is not None:
                self._see(depth)
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
            generation=self._depth.generation,
        )
        self._holding.add(list(batches))
        if self._renew_at == _NEVER:
            self._renew_at = self._clock.monotonic() + self._renewal
            self._wake()
        if sound.fault is not None:
            bury = partial(self._store.bury, claim.kind, sound.damaged, "corrupt")
            self._settle(len(sound.damaged), bury)
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
        if place.generation != self._depth.generation:
            self._taken.add(len(batch))
            return len(batch)  # a store that lost everything knows nothing of it
        return self._settle(len(batch), lambda: settle(batch.kind, place.ids))

    def _settle(self, n: int, settle: Callable[[], tuple[int, Depth]]) -> int:
        """Settle records, or promise to do it when the store is back; return how many."""
        settled, depth = self._ask(settle, (n, None))
        if depth is None:
            self._owed.append(settle)
        else:
            self._see(depth)
        self._taken.add(settled)
        return settled

    def release(self, batch: Batch) -> None:
        """Keep the batch, and its lease, as it is."""
        if isinstance(batch.position, Place):
            self._holding.release(batch)
        else:
            self._shelter.release(batch)
            self._is_reached()  # it may have come back meanwhile: then the batch is moved there

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
            lost += self._settle(len(batch), forget)
        if abs(before - self._expired) < _EXPIRED_EVERY:
            return lost
        n, depth = self._ask(partial(self._store.expire, before), (0, None))
        if depth is not None:
            self._expired = before
            self._see(depth)
        self._taken.add(n)
        return lost + n

    # -- questions ---------------------------------------------------------------------------

    def pending(self) -> int:
        """Return what the store held when it was last asked, and what is sheltered."""
        return self._depth.records + self.at_risk()

    def nbytes(self) -> int:
        """Return the bytes of the bodies."""
        depth = self._depth
        return max(0, depth.nbytes - HEADER_BYTES * depth.records) + self._shelter.nbytes()

    def balance(self) -> int:
        """Return what this process put in less what it took out, whoever had put that in."""
        return self._put.value - self._taken.value + self.at_risk()

    def at_risk(self) -> int:
        """Return the number of records that would go with the process."""
        return self._shelter.pending() + self._moving

    def room(self) -> int:
        """Return how many records more are within the bounds; 0 from 7/8 of the bytes on."""
        if not self.durable:
            return self._shelter.room()
        if self._depth.nbytes > self._max_bytes // 8 * 7:
            return 0
        return max(0, self._max_records - self._depth.records)

    def ticket(self) -> _Ticket:
        """Return a mark behind everything this process has appended."""
        return _Ticket(self._spans.mark(), self._shelter.ticket())

    def is_settled(self, ticket: _Ticket) -> bool:
        """Tell whether nothing of it is left; for want of an answer it is not."""
        if self._moving or not self._shelter.is_settled(ticket.shelter):
            return False
        if self._hands_over:
            return True
        if self._is_closed or self._holding.is_older_than(self._depth.generation):
            return False
        if not self._is_reached():
            return self._spans.is_settled(ticket.mark, _may_hold)
        return self._ask(lambda: self._spans.is_settled(ticket.mark, self._store.holds), False)

    def get(self, name: str) -> bytes | None:
        """Return a value; None also while the store is away."""
        return self._ask(lambda: self._store.get(name), None)

    def put(self, name: str, value: bytes) -> None:
        """Keep a value, if the store can be reached."""
        self._ask(lambda: self._store.put(name, value), None)

    def look(self) -> None:
        """Notice what other processes have done, unless the store was heard of just now."""
        if self._clock.monotonic() >= self._look_at:
            depth = self._ask(self._store.depth, None)
            if depth is not None:
                self._see(depth)

    @property
    def _look_at(self) -> float:
        return self._heard_at + (self.poll_interval or 0.0)

    def _ask(self, question: Callable[[], _T], otherwise: _U) -> _T | _U:
        if not self._is_reached():
            return otherwise
        try:
            return question()
        except Exception as error:  # of the store's, whatever it is; callers lose nothing by it
            self._miss(error)
            return otherwise

    # -- keeping in touch --------------------------------------------------------------------

    def tend(self) -> float | None:
        """Renew leases and look for a store that is away; return the seconds to the next time."""
        if self._is_closed:
            return None
        if self._is_reached():
            # At the start it tells whether there is a store; who hands over never asks otherwise.
            if self._hands_over or self._heard_at == float("-inf"):
                self.look()
            self._renew()
        due_at = [self._absence.retry_at] if self._needs_mending else []
        if self._is_usable:
            due_at += [self._renew_at, self._look_at if self._hands_over else _NEVER]
        due_in = min(due_at) - self._clock.monotonic()
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
        mine, depth = self._ask(partial(self._store.renew, held), ({}, None))
        if depth is not None:
            self._renew_at = now + self._renewal
            self._see(depth)
            self._forgo(held, mine)

    def _forgo(
        self, held: Mapping[Kind, Sequence[Any]], mine: Mapping[Kind, Sequence[Any]]
    ) -> None:
        lost = {kind: set(ids).difference(mine.get(kind, ())) for kind, ids in held.items()}
        if any(lost.values()):
            rest = self._holding.forgo(lost, self._depth.generation)
            if any(rest.values()):
                self._ask(partial(self._store.give_back, rest), None)

    def hand_back(self) -> None:
        """End the leases on what is held: the process may end at any moment from now on."""
        held = self._holding.clear()
        if held:
            self._ask(lambda: self._store.give_back(held), None)

    def close(self) -> int:
        """Give everything back; return the number of records that only this process had."""
        self.hand_back()
        if not self._is_closed and self._mending.acquire(blocking=False):
            try:
                self._save()
            finally:
                self._mending.release()
        self._is_closed = True
        try:
            self._store.close()
        except Exception as error:  # of the store's, whatever it is; nothing is lost by it
            self._on_error(error)
        return self._shelter.close()

    def _save(self) -> None:
        """Bring everything into the store, if it takes it; also one that was away just now."""
        if not self._absence.is_on or self._owed or self.at_risk():
            self._settle_up()
        while self._shelter.can_withdraw and not self._absence.is_on:
            self._settle_up()

    def abandon(self) -> None:
        """Leave the store's connections to the parent of a forked child."""
        self._store.abandon()

    def _see(self, depth: Depth) -> None:
        with self._seeing:
            self._heard_at = self._clock.monotonic()
            known, self._depth = self._depth, depth
            if known is _UNKNOWN or depth.generation == known.generation:
                return
            self._spans.clear()
            # What others have delivered is not lost, but this process cannot tell which that was.
            lost = self._put.value - self._taken.value - len(self._holding)
            lost = min(lost, known.records)
            self._taken.add(max(0, lost))
        if lost > 0:
            self._on_lost("spool_lost", lost)

    def _miss(self, error: Exception) -> None:
        """Do without the store for a while."""
        self._answers = False
        self._on_error(error)
        if self._absence.begin(error):
            self._wake()

    @property
    def _needs_mending(self) -> bool:
        return self._absence.is_on or bool(self._owed) or self._shelter.can_withdraw

    def _is_reached(self) -> bool:
        """Tell whether the store answers; see what there is to mend, when it is time to."""
        if self._is_closed:
            return False
        if (
            self._needs_mending
            and self._absence.left == 0
            and self._mending.acquire(blocking=False)
        ):
            try:
                self._settle_up()
            finally:
                self._mending.release()
        return self._is_usable

    @property
    def _is_usable(self) -> bool:
        return self._answers or not self._absence.is_on

    def _settle_up(self) -> None:
        """Tell the store what it missed; only one that takes something in is back."""
        answers = False
        try:
            while self._owed:
                self._see(self._owed[0]()[1])
                self._owed.popleft()
            self._see(self._store.depth())
            answers = True
            if not self._move() and self._absence.is_on:
                self._store.put(*_PROBE)
        except Exception as error:  # of the store's, whatever it is; it is tried again
            self._miss(error)
            self._answers = answers
        else:
            self._absence.end()
            if not self._shelter.pending():
                self._sheltered_since = None

    def _move(self) -> bool:
        """Move what was sheltered into the store, or much of it; False when that was nothing."""
        over_at, has_moved = self._clock.monotonic() + _MOVING, False
        while self._shelter.can_withdraw and self._clock.monotonic() < over_at:
            has_moved = True
            self._moving = _MOVED_AT_A_TIME  # before the first of them is out
            records = self._shelter.withdraw(_MOVED_AT_A_TIME)
            self._moving = len(records)
            note = partial(self._spans.add_late, since=self._sheltered_since or 0)
            lost = len(records)
            try:
                lost = self._append(records, note)
            except BaseException:
                lost = self._shelter.append(records)
                raise
            finally:
                self._moving = 0
                if lost:
                    self._on_lost("overflow", lost)
        return has_moved


def _may_hold(_kind: Kind, _first: Any, _last: Any) -> bool:
    """Answer for a store that cannot be asked."""
    return True
