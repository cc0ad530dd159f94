"""Bounded memory: the default spool, gone with the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import attrs

from guardagent.encoding import Kind, Record
from guardagent.spool.protocol import Batch

__all__ = ["MemorySpool"]

_Ticket = tuple[int, int]


@attrs.define(eq=False)
class _Lane:
    """The records of one kind: they are sent in requests of their own.

    Args:
        waiting: not claimed, oldest first.
        released: claimed once and given back, oldest first.
        claimed: batches that somebody is sending.
        appended: how many records ever came in; the position of the next one.
    """

    waiting: deque[Record] = attrs.field(factory=deque)
    released: deque[Batch] = attrs.field(factory=deque)
    claimed: list[Batch] = attrs.field(factory=list)
    appended: int = 0

    @property
    def oldest(self) -> int:
        """Position of the oldest record that is not settled."""
        held = [batch.position for batch in (*self.claimed, *self.released)]
        return min(held, default=self.appended - len(self.waiting))

    def oldest_at(self) -> float:
        """When the oldest record that could be evicted was made."""
        return self.waiting[0].created_at if self.waiting else float("inf")


class MemorySpool:
    """Keeps records in lists of bytes, bounded in number and size.

    Args:
        max_records: records kept, claimed ones included.
        max_bytes: bytes of their bodies.
        drops_oldest: who gives way when it is full: the oldest that is not being sent, or the
            newcomer.
    """

    durable = False

    def __init__(self, max_records: int, max_bytes: int, *, drops_oldest: bool = True) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._drops_oldest = drops_oldest
        self._lanes: dict[Kind, _Lane] = {"events": _Lane(), "metrics": _Lane()}
        self._lock = threading.RLock()  # guards all of the lanes and the two sums below
        self._records = 0
        self._nbytes = 0

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records; return how many were lost to the bounds."""
        lost = 0
        with self._lock:
            for record in records:
                size = len(record.body)
                while not self._fits(size) and self._drops_oldest and self._evict():
                    lost += 1
                if not self._fits(size):
                    lost += 1
                    continue
                lane = self._lanes[record.kind]
                lane.waiting.append(record)
                lane.appended += 1
                self._records += 1
                self._nbytes += size
        return lost

    def claim(self, limit: int, max_bytes: int, now: float) -> Batch | None:
        """Hand out released batches first, then the kind whose oldest record waits longest."""
        with self._lock:
            for lane in self._lanes.values():
                if lane.released:
                    batch = lane.released.popleft()
                    lane.claimed.append(batch)
                    return batch
            kind = min(self._lanes, key=lambda name: self._lanes[name].oldest_at())
            lane = self._lanes[kind]
            position = lane.appended - len(lane.waiting)
            records = _take(lane.waiting, limit, max_bytes)
            if not records:
                return None
            batch = Batch(kind=kind, records=records, created_at=now, position=position)
            lane.claimed.append(batch)
            return batch

    def ack(self, batch: Batch) -> None:
        """Forget accepted records."""
        with self._lock:
            if self._unclaim(batch):
                self._records -= len(batch)
                self._nbytes -= batch.nbytes

    def release(self, batch: Batch) -> None:
        """Keep the batch as it is; it is the next to be claimed."""
        with self._lock:
            if self._unclaim(batch):
                self._lanes[batch.kind].released.appendleft(batch)

    def split(self, batch: Batch) -> None:
        """Put two halves in front of everything else of their kind."""
        middle = len(batch) // 2
        first = batch.part(0, middle, batch.position)
        second = batch.part(middle, len(batch), batch.position + middle)
        with self._lock:
            if self._unclaim(batch):
                self._lanes[batch.kind].released.extendleft((second, first))

    def expire(self, before: float) -> int:
        """Forget the oldest records; a released batch only when its youngest is too old."""
        lost = 0
        with self._lock:
            for lane in self._lanes.values():
                while lane.released and lane.released[0].records[-1].created_at < before:
                    batch = lane.released.popleft()
                    self._records -= len(batch)
                    self._nbytes -= batch.nbytes
                    lost += len(batch)
                while lane.oldest_at() < before:
                    self._forget_oldest(lane)
                    lost += 1
        return lost

    def bury(self, batch: Batch, reason: str) -> None:
        """Forget the records; memory keeps no dead letters."""
        self.ack(batch)

    def pending(self) -> int:
        """Return the number of records kept."""
        return self._records

    def nbytes(self) -> int:
        """Return the bytes of the bodies kept."""
        return self._nbytes

    def is_full(self) -> bool:
        """Tell whether one more record of ordinary size would not fit."""
        return not self._fits(1)

    def ticket(self) -> _Ticket:
        """Return the positions behind the newest event and the newest metric."""
        with self._lock:
            events, metrics = self._lanes.values()
            return events.appended, metrics.appended

    def is_settled(self, ticket: _Ticket) -> bool:
        """Tell whether nothing before those positions is left."""
        with self._lock:
            lanes = self._lanes.values()
            return all(lane.oldest >= mark for lane, mark in zip(lanes, ticket, strict=True))

    def close(self) -> int:
        """Drop everything; return how many records that were."""
        with self._lock:
            lost = self._records
            for lane in self._lanes.values():
                lane.waiting.clear()
                lane.released.clear()
                lane.claimed.clear()
            self._records = self._nbytes = 0
            return lost

    def _fits(self, size: int) -> bool:
        return self._records < self._max_records and self._nbytes + size <= self._max_bytes

    def _evict(self) -> bool:
        lane = min(self._lanes.values(), key=_Lane.oldest_at)
        if not lane.waiting:
            return False  # all that is left is being sent
        self._forget_oldest(lane)
        return True

    def _forget_oldest(self, lane: _Lane) -> None:
        self._nbytes -= len(lane.waiting.popleft().body)
        self._records -= 1

    def _unclaim(self, batch: Batch) -> bool:
        """End a claim; False when the spool was closed meanwhile and has forgotten it."""
        claimed = self._lanes[batch.kind].claimed
        if batch not in claimed:
            return False
        claimed.remove(batch)
        return True


def _take(waiting: deque[Record], limit: int, max_bytes: int) -> list[Record]:
    records: list[Record] = []
    room = max_bytes
    while waiting and len(records) < limit:
        room -= len(waiting[0].body) + 1
        if records and room < 0:
            break
        records.append(waiting.popleft())
    return records
