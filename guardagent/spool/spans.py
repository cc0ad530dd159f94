"""Which records of a shared spool this process put there: what a flush has to wait for.

Owns: spans of ids. In: what each append returned. Out: the spans that may hold something yet.
Pure and local.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, get_args

import attrs

from guardagent.fields import Kind

__all__ = ["Mark", "Spans"]

_KINDS: tuple[Kind, ...] = get_args(Kind)
#: More spans of a kind than that are joined two by two. The records of other processes between them
#: then count as this one's: a flush may wait for them too, and misses nothing.
_MANY = 512


@attrs.frozen
class Mark:
    """A moment: behind everything that was put in so far.

    Args:
        last: newest id of each kind.
        late: number of late spans so far.
    """

    last: Mapping[Kind, Any]
    late: int


class Spans:
    """Thread-safe; the store is asked by `holds(kind, first, last)` and may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all of it; never held while the store is asked
        self._spans: dict[Kind, deque[tuple[Any, Any]]] = {kind: deque() for kind in _KINDS}
        self._late: deque[tuple[int, Kind, Any, Any]] = deque()
        self._lates = 0

    def add(self, spans: Mapping[Kind, tuple[Any, Any]]) -> None:
        """Note what an append returned."""
        with self._lock:
            for kind, (first, last) in spans.items():
                own = self._spans[kind]
                if own and isinstance(first, int) and own[-1][1] + 1 == first:
                    own[-1] = own[-1][0], last
                else:
                    own.append((first, last))
                if len(own) > _MANY:
                    self._spans[kind] = _joined(own)

    def add_late(self, spans: Mapping[Kind, tuple[Any, Any]], since: int) -> None:
        """Note records that waited elsewhere since `late` was `since`: older than their ids say."""
        with self._lock:
            for kind, (first, last) in spans.items():
                self._lates += 1
                self._late.append((since, kind, first, last))

    @property
    def late(self) -> int:
        """The number of late spans so far."""
        return self._lates

    def mark(self) -> Mark:
        """Return the present moment."""
        with self._lock:
            last = {kind: own[-1][1] for kind, own in self._spans.items() if own}
            return Mark(last, self._lates)

    def is_settled(self, mark: Mark, holds: Callable[[Kind, Any, Any], bool]) -> bool:
        """Tell whether nothing that was put in before the mark is left."""
        return not self._any_late(mark, holds) and not any(
            self._any_of(kind, last, holds) for kind, last in mark.last.items()
        )

    def clear(self) -> None:
        """Forget all: the store has lost everything."""
        with self._lock:
            self._late.clear()
            for own in self._spans.values():
                own.clear()

    def _any_of(self, kind: Kind, mark: Any, holds: Callable[[Kind, Any, Any], bool]) -> bool:
        with self._lock:
            own = self._spans[kind]
            if not own or own[0][0] > mark:
                return False
            oldest, is_one = own[0][0], len(own) == 1
        if not is_one and not holds(kind, oldest, mark):  # nobody's, as usual: one question
            with self._lock:
                while own and own[0][1] <= mark:
                    own.popleft()
            return False
        return self._any_one_of(kind, mark, holds)

    def _any_one_of(self, kind: Kind, mark: Any, holds: Callable[[Kind, Any, Any], bool]) -> bool:
        while True:
            with self._lock:
                own = self._spans[kind]
                if not own or own[0][0] > mark:
                    return False
                first, last = own[0]
            if holds(kind, first, min(last, mark)):
                return True
            if last > mark:
                return False
            with self._lock:
                if own and own[0] == (first, last):
                    own.popleft()

    def _any_late(self, mark: Mark, holds: Callable[[Kind, Any, Any], bool]) -> bool:
        with self._lock:
            late = [span for span in self._late if span[0] <= mark.late]
        for span in late:
            if holds(*span[1:]):
                return True
            with self._lock:
                if span in self._late:
                    self._late.remove(span)
        return False


def _joined(spans: deque[tuple[Any, Any]]) -> deque[tuple[Any, Any]]:
    listed = list(spans)
    pairs = zip(listed[::2], listed[1::2], strict=False)
    joined = deque((one[0], other[1]) for one, other in pairs)
    if len(listed) % 2:
        joined.append(listed[-1])
    return joined
