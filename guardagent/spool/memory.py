"""Bounded memory: the default spool, gone with the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal

import attrs

from guardagent.encoding import Record
from guardagent.fields import Kind
from guardagent.spool.protocol import Batch

__all__ = ["MemorySpool", "WhenFull"]

WhenFull = Literal["drop_oldest", "drop_newest", "grow"]
_Ticket = tuple[int, int]


@attrs.define(eq=False)
class _Lane:
    """The records of one kind: they are sent in requests of their own.

    Only their bytes are kept: a hundred thousand of them are then no work for the garbage
    collector, and a pending event costs what it weighs on the wire and 41 bytes.

    Args:
        waiting: bodies not claimed, oldest first.
        ages: pairs of a position and the time before which everything up to it was made.
        released: claimed once and given back, oldest first.
        claimed: batches that somebody is sending.
        appended: how many records ever came in; the position of the next one.
    """

    waiting: deque[bytes] = attrs.field(factory=deque)
    ages: deque[tuple[int, float]] = attrs.field(factory=deque)
    released: deque[Batch] = attrs.field(factory=deque)
    claimed: list[Batch] = attrs.field(factory=list)
    appended: int = 0

    @property
    def head(self) -> int:
        """Position of the oldest record waiting."""
        return self.appended - len(self.waiting)

    @property
    def oldest(self) -> int:
        """Position of the oldest record that is not settled."""
        held: list[int] = [batch.position for batch in (*self.claimed, *self.released)]
        return min(held, default=self.head)

    def oldest_at(self) -> float:
        """When the oldest record waiting was made; infinity when none waits."""
        if not self.waiting:
            return float("inf")
        while self.ages[0][0] <= self.head:
            self.ages.popleft()
        return self.ages[0][1]

    def put(self, records: Sequence[Record]) -> None:
        """Append them; those of one turn of the drain were made at the same time."""
        moments = {record.created_at for record in records}
        if len(moments) > 1:
            for record in records:
                self.put([record])
            return
        self.waiting.extend([record.body for record in records])
        self.appended += len(records)
        for made_at in moments:
            if self.ages and self.ages[-1][1] == made_at:
                self.ages[-1] = self.appended, made_at
            else:
                self.ages.append((self.appended, made_at))


class MemorySpool:
    """Keeps records as bytes, bounded in number and size.

    Args:
        max_records: records kept, claimed ones included.
        max_bytes: bytes of their bodies.
        when_full: who gives way: the oldest that is not being sent, the newcomer, or nobody,
            because whoever appends asks for `room` first.
    """

    durable = False
    poll_interval: float | None = None

    def __init__(
        self, max_records: int, max_bytes: int, *, when_full: WhenFull = "drop_oldest"
    ) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._lanes: dict[Kind, _Lane] = {"events": _Lane(), "metrics": _Lane()}
        self._lock = threading.RLock()  # guards all of the lanes and the two sums below
        self._records = 0
        self._nbytes = 0
        self._values: dict[str, bytes] = {}

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records; return how many were lost to the bounds."""
        lost = 0
        with self._lock:
            size = sum([len(record.body) for record in records])
            if self._fits(size, len(records)):  # as usual: no need to look at each
                self._records += len(records)
                self._nbytes += size
                for kind, lane in self._lanes.items():
                    lane.put([record for record in records if record.kind == kind])
                return 0
            for record in records:
                size = len(record.body)
                if self._when_full == "drop_oldest" and size <= self._max_bytes:
                    while not self._fits(size) and self._evict():
                        lost += 1
                if not self._fits(size) and self._when_full != "grow":
                    lost += 1
                    continue
                self._lanes[record.kind].put([record])
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
            position = lane.head
            bodies = _take(lane.waiting, limit, max_bytes)
            if not bodies:
                return None
            batch = Batch(kind=kind, bodies=bodies, created_at=now, position=position)
            lane.claimed.append(batch)
            return batch

    def ack(self, batch: Batch) -> int:
        """Forget accepted records."""
        with self._lock:
            if not self._unclaim(batch):
                return 0
            self._forget(batch)
            return len(batch)

    def release(self, batch: Batch) -> None:
        """Keep the batch as it is; it is the next to be claimed."""
        with self._lock:
            if self._unclaim(batch):
                self._lanes[batch.kind].released.appendleft(batch)

    def is_ours(self, batch: Batch) -> bool:
        """Return True: there are no others."""
        return True

    def split(self, batch: Batch) -> None:
        """Put two halves in front of everything else of their kind."""
        middle = len(batch) // 2
        first = batch.part(0, middle, batch.position)
        second = batch.part(middle, len(batch), batch.position + middle)
        with self._lock:
            if self._unclaim(batch):
                self._lanes[batch.kind].released.extendleft((second, first))

    def expire(self, before: float) -> int:
        """Forget the oldest records; a released batch by the time it was first claimed."""
        lost = 0
        with self._lock:
            for lane in self._lanes.values():
                while lane.released and lane.released[0].created_at < before:
                    batch = lane.released.popleft()
                    self._forget(batch)
                    lost += len(batch)
                while lane.oldest_at() < before:
                    self._forget_oldest(lane)
                    lost += 1
        return lost

    def bury(self, batch: Batch, reason: str) -> int:
        """Forget the records; memory keeps no dead letters."""
        return self.ack(batch)

    def withdraw(self, limit: int) -> list[Record]:
        """Take the oldest records out that are not being sent, to be kept elsewhere."""
        taken: list[Record] = []
        with self._lock:
            for kind, lane in self._lanes.items():
                while lane.released and len(taken) < limit:
                    batch = lane.released.popleft()
                    self._forget(batch)
                    taken += [Record(kind, body, batch.created_at) for body in batch.bodies]
                while lane.waiting and len(taken) < limit:
                    moment = lane.oldest_at()
                    taken.append(Record(kind, lane.waiting[0], moment))
                    self._forget_oldest(lane)
        return taken

    @property
    def can_withdraw(self) -> bool:
        """Tell whether there is a record that is not being sent."""
        return any(lane.waiting or lane.released for lane in self._lanes.values())

    def pending(self) -> int:
        """Return the number of records kept."""
        return self._records

    def nbytes(self) -> int:
        """Return the bytes of the bodies kept."""
        return self._nbytes

    def balance(self) -> int:
        """Return the number of records kept: nobody else puts anything in."""
        return self._records

    def at_risk(self) -> int:
        """Return the number of records kept: all of them go with the process."""
        return self._records

    def room(self) -> int:
        """Return how many records more are within the bounds; 0 from 7/8 of the bytes on."""
        if self._nbytes > self._max_bytes // 8 * 7:
            return 0
        return max(0, self._max_records - self._records)

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

    def get(self, name: str) -> bytes | None:
        """Return a value of this process's."""
        return self._values.get(name)

    def put(self, name: str, value: bytes) -> None:
        """Keep it as long as the process lives."""
        self._values[name] = value

    def look(self) -> None:
        """Do nothing: there are no others."""

    def tend(self) -> float | None:
        """Do nothing: memory needs no care."""
        return None

    def hand_back(self) -> None:
        """Do nothing: nobody else could take it."""

    def abandon(self) -> None:
        """Do nothing: the memory is a copy."""

    def close(self) -> int:
        """Drop everything; return how many records that were."""
        with self._lock:
            lost = self._records
            self._lanes = {"events": _Lane(), "metrics": _Lane()}
            self._records = self._nbytes = 0
            return lost

    def _fits(self, size: int, count: int = 1) -> bool:
        has_room = self._records + count <= self._max_records
        return has_room and self._nbytes + size <= self._max_bytes

    def _evict(self) -> bool:
        """Forget the oldest record that is not being sent; False when there is none."""
        for lane in self._lanes.values():
            if lane.released:
                self._shorten(lane)
                return True
        lane = min(self._lanes.values(), key=_Lane.oldest_at)
        if lane.waiting:
            self._forget_oldest(lane)
            return True
        return False

    def _shorten(self, lane: _Lane) -> None:
        """Take the oldest record out of a batch that came back, which makes it another batch."""
        batch = lane.released.popleft()
        self._records -= 1
        self._nbytes -= len(batch.bodies[0])
        if len(batch) > 1:
            lane.released.appendleft(batch.part(1, len(batch), batch.position + 1))

    def _forget_oldest(self, lane: _Lane) -> None:
        self._nbytes -= len(lane.waiting.popleft())
        self._records -= 1

    def _forget(self, batch: Batch) -> None:
        self._records -= len(batch)
        self._nbytes -= batch.nbytes

    def _unclaim(self, batch: Batch) -> bool:
        """End a claim; False when the spool was closed meanwhile and has forgotten it."""
        claimed = self._lanes[batch.kind].claimed
        if batch not in claimed:
            return False
        claimed.remove(batch)
        return True


def _take(waiting: deque[bytes], limit: int, max_bytes: int) -> list[bytes]:
    bodies: list[bytes] = []
    room = max_bytes
    while waiting and len(bodies) < limit:
        room -= len(waiting[0]) + 1
        if bodies and room < 0:
            break
        bodies.append(waiting.popleft())
    return bodies
