"""What this process has claimed and not settled: batches being sent, given back, cut in two.

Owns: the batches under this process's leases, and what of their claims no batch was made of yet.
In: claimed records. Out: batches, in the order in which they are to be sent. Pure and local: a
retry or a split asks no store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, get_args

import attrs

from guardagent.fields import Kind
from guardagent.spool.protocol import Batch

__all__ = ["Holding", "Place"]

_KINDS: tuple[Kind, ...] = get_args(Kind)


@attrs.frozen
class Place:
    """Where the records of a batch lie.

    Args:
        ids: in the store, oldest first.
        generation: of the store.
    """

    ids: Sequence[Any]
    generation: str

    def part(self, start: int, stop: int) -> Place:
        """Return the place of some of the records."""
        return Place(self.ids[start:stop], self.generation)


class Holding:
    """Thread-safe; never waits for anything."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards the four below
        self._released: dict[Kind, deque[Batch]] = {kind: deque() for kind in _KINDS}
        self._out: list[Batch] = []
        self._strayed: list[Batch] = []  # those out that are another process's now
        self._records = 0

    def __len__(self) -> int:
        """Return the number of records."""
        return self._records

    def next(self) -> Batch | None:
        """Hand out what was given back, first."""
        with self._lock:
            for batches in self._released.values():
                if batches:
                    batch = batches.popleft()
                    self._out.append(batch)
                    return batch
        return None

    def add(self, batches: Sequence[Batch]) -> None:
        """Take claimed batches in, to be handed out in that order."""
        with self._lock:
            for batch in batches:
                self._released[batch.kind].append(batch)
                self._records += len(batch)

    def remove(self, batch: Batch) -> bool:
        """Let a batch go for good; False when it is not out."""
        with self._lock:
            if batch not in self._out:
                return False
            self._out.remove(batch)
            if batch in self._strayed:
                self._strayed.remove(batch)
            self._records -= len(batch)
            return True

    def has(self, batch: Batch) -> bool:
        """Tell whether it is out, and this process's still."""
        with self._lock:
            return batch in self._out and batch not in self._strayed

    def release(self, batch: Batch) -> None:
        """Take it back, to be the next; one that is another's now goes for good."""
        with self._lock:
            if batch in self._strayed:
                self.remove(batch)
            elif batch in self._out:
                self._out.remove(batch)
                self._released[batch.kind].appendleft(batch)

    def split(self, batch: Batch) -> None:
        """Take it back as two halves."""
        place: Place = batch.position
        middle = len(batch) // 2
        first = batch.part(0, middle, place.part(0, middle))
        second = batch.part(middle, len(batch), place.part(middle, len(batch)))
        with self._lock:
            if batch in self._strayed:
                self.remove(batch)
            elif batch in self._out:
                self._out.remove(batch)
                self._released[batch.kind].extendleft((second, first))

    def expired(self, before: float) -> list[Batch]:
        """Let go of what was given back and first claimed before that unix second."""
        gone: list[Batch] = []
        with self._lock:
            for batches in self._released.values():
                while batches and batches[0].created_at < before:
                    gone.append(batches.popleft())
            self._records -= sum(map(len, gone))
        return gone

    def forgo(
        self, lost: Mapping[Kind, AbstractSet[Any]], generation: str
    ) -> dict[Kind, list[Any]]:
        """Let go of batches of which records are another's now; return the ids of the rest of them.

        What is out cannot be called back, and its answer may settle it all the same.

        Args:
            lost: ids of these records.
            generation: of the store that said so.
        """
        rest: dict[Kind, list[Any]] = {}
        with self._lock:
            for batch in self._all():
                place: Place = batch.position
                gone = lost.get(batch.kind, frozenset())
                if place.generation != generation or gone.isdisjoint(place.ids):
                    continue
                rest.setdefault(batch.kind, []).extend(id_ for id_ in place.ids if id_ not in gone)
                if batch in self._out:
                    self._strayed += [] if batch in self._strayed else [batch]
                else:
                    self._released[batch.kind].remove(batch)
                    self._records -= len(batch)
        return rest

    def is_older_than(self, generation: str) -> bool:
        """Tell whether something is held that another generation of the store knew."""
        with self._lock:
            return any(batch.position.generation != generation for batch in self._all())

    def ids(self) -> dict[Kind, list[Any]]:
        """Return the ids of everything held."""
        with self._lock:
            held: dict[Kind, list[Any]] = {}
            for batch in self._all():
                held.setdefault(batch.kind, []).extend(batch.position.ids)
            return held

    def clear(self) -> dict[Kind, list[Any]]:
        """Let go of everything; return the ids."""
        with self._lock:
            held = self.ids()
            self._out.clear()
            self._strayed.clear()
            for batches in self._released.values():
                batches.clear()
            self._records = 0
            return held

    def _all(self) -> list[Batch]:
        return [*self._out, *(batch for some in self._released.values() for batch in some)]
