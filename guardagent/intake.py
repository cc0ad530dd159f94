"""The bounded queue between the application's threads and the agent's.

Owns: its overflow policies and its wake-up. In: fields copied out of events. Out: the same, in the
order of capture. Never waits for the backend.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs

from guardagent.errors import BufferFull
from guardagent.fields import Item
from guardagent.status import Ledger

__all__ = ["Intake", "Marker", "release"]

_NEVER, _ALWAYS = sys.maxsize, -1


@attrs.define(eq=False)
class Marker:
    """Travels the pipeline behind everything captured before a `flush`.

    Args:
        done: set once all of that is settled.
        ticket: what the spool said had to be settled, once the marker got that far.
    """

    done: threading.Event = attrs.field(factory=threading.Event)
    ticket: Any = None


class Intake(queue.Queue[Any]):
    """A bounded queue that any code may put into at any moment.

    The usual way in, `offer`, takes no lock: `deque.append` is atomic, and the bell is one call
    on a bare lock. So it may interrupt itself (a finalizer or a signal handler in the middle of a
    put, FIELD B2), and a fork can never find it locked. Only `overflow="block"` waits on the
    queue's conditions; their lock is re-entrant.

    The bound may be overrun by as many items as threads are inside `offer` at one moment.

    Args:
        capacity: items held.
        overflow: policy when full.
        block_timeout: seconds that "block" waits at most.
        wake: called when the drain has to look; must be as safe as `Bell.ring`.
    """

    def __init__(
        self,
        capacity: int,
        overflow: str,
        block_timeout: float,
        wake: Callable[[], None],
        ledger: Ledger,
    ) -> None:
        super().__init__(capacity)
        self.mutex = threading.RLock()  # type: ignore[assignment]
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)
        #: Ring when so many items were inside already; 0 while the drain sleeps.
        self.wake_at = 0
        #: Markers still in the queue; they count neither as events nor towards the bound.
        self.markers: set[Marker] = set()
        self._wake = wake
        self._overflowed = ledger.dropped["overflow"].tick
        self._late = ledger.dropped["closed"].add
        self._make_room: Callable[[Any], bool] = {
            "drop_oldest": self._drop_oldest,
            "drop_newest": self._drop_newest,
            "block": self._block,
            "raise": self._raise,
        }[overflow]
        self._blocks = overflow == "block"
        self._block_timeout = block_timeout
        self._drainer: int | None = None
        self._is_closed = False

    def offer(self, item: Item) -> bool:
        """Put an item in, or follow the policy; False when it was not taken.

        Raises:
            BufferFull: full, under "raise".
        """
        waiting = self.queue
        size = len(waiting)
        if size < self.maxsize:
            waiting.append(item)
            taken = True
        elif self.markers and self.depth < self.maxsize:
            waiting.append(item)  # flushes under way take no room from events
            taken = True
        else:
            taken = self._make_room(item)
        # Append first, then look: the drain arms `wake_at` first and then looks into the queue.
        if size >= self.wake_at:
            if self._is_closed:
                return self._turn_away()
            try:
                self.wake_at = _NEVER
                self._wake()
            except BaseException:
                self.wake_at = 0  # a Ctrl-C in between must not silence those who come after
                raise
        return taken

    def mark(self, marker: Marker) -> None:
        """Send a marker behind everything that is inside."""
        self.markers.add(marker)
        self.queue.append(marker)
        self._wake()

    def take(self, limit: int) -> list[Any]:
        """Take up to `limit` items, oldest first; for the drain alone."""
        self._drainer = threading.get_ident()
        waiting = self.queue
        items: list[Any] = []
        with suppress(IndexError):  # a policy dropped the oldest meanwhile, and counted it
            while len(items) < limit:
                items.append(waiting.popleft())
        if self._blocks:
            with self.not_full:
                self.not_full.notify(len(items))
        return items

    def give_up(self) -> list[Item]:
        """Return all events and metrics; without a lock, which a fork may have left held."""
        items: list[Any] = []
        with suppress(IndexError):
            while True:
                items.append(self.queue.popleft())
        return [item for item in items if not isinstance(item, Marker)]

    def arm(self) -> bool:
        """Have the next `offer` ring; False when something is inside already."""
        self.wake_at = _ALWAYS if self._is_closed else 0
        return not self.queue

    def relax(self, enough: int) -> None:
        """Have `offer` ring only when `enough` are inside, or half the queue is in use."""
        self.wake_at = min(enough - 1, self.maxsize // 2)

    def close(self) -> int:
        """Let everything and everybody in it go; return the number of events and metrics lost."""
        self._is_closed = True
        self.wake_at = _ALWAYS  # have every later `offer` look
        left = self.take(len(self.queue))
        with self.not_full:
            self.not_full.notify_all()
        return release(left)

    def _turn_away(self) -> bool:
        """Count what came in after the close; whoever comes first counts for all."""
        self._late(release(self.take(len(self.queue))))
        return False

    @property
    def depth(self) -> int:
        """Events and metrics inside."""
        return max(0, len(self.queue) - len(self.markers))

    def _drop_oldest(self, item: Any) -> bool:
        waiting = self.queue
        for _ in range(len(waiting)):
            try:
                oldest = waiting.popleft()
            except IndexError:
                break  # the drain took them all in this moment
            if not isinstance(oldest, Marker):
                self._overflowed()
                break
            waiting.append(oldest)  # a flush is never dropped; it only waits a little longer
        waiting.append(item)
        return True

    def _drop_newest(self, _item: Any) -> bool:
        self._overflowed()
        return False

    def _raise(self, _item: Any) -> bool:
        self._overflowed()
        raise BufferFull(f"{self.maxsize} events are waiting already (queue_capacity)")

    def _block(self, item: Any) -> bool:
        if threading.get_ident() == self._drainer:
            return self._drop_newest(item)  # whoever makes the room must not wait for it
        self._wake()
        with self.not_full:
            has_room = self.not_full.wait_for(self._has_room, self._block_timeout)
            if has_room and not self._is_closed:
                self.queue.append(item)
                return True
        return self._drop_newest(item)

    def _has_room(self) -> bool:
        return self._is_closed or len(self.queue) < self.maxsize


def release(items: list[Any]) -> int:
    """Let go of items: whoever waits for a marker goes on; return the number of the others."""
    markers = [item for item in items if isinstance(item, Marker)]
    for marker in markers:
        marker.done.set()
    return len(items) - len(markers)
