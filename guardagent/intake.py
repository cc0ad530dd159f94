"""The queue between the application's threads and the agent's, and the thread that drains it.

Owns: the bounded queue, its overflow policies and its wake-up. In: fields copied out of events.
Out: encoded records in the spool, in the order of capture. Never waits for the backend.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Any

import attrs

from guardagent._clock import Clock
from guardagent._quiet import quiet
from guardagent.encoding import Encoder, Record
from guardagent.errors import BufferFull, EncodeError, TooLargeError
from guardagent.fields import Fields, Item, Kind, named
from guardagent.spool.protocol import Spool
from guardagent.status import Callbacks, DropReason, Ledger

__all__ = ["LINGER", "LINGER_DURABLE", "SLICE", "Drain", "Intake", "Marker", "release"]

#: Seconds the drain waits for more after the first event, so that one wake-up serves many. An event
#: is as safe in the queue as in a spool in memory; on its way to a durable one it must hurry.
LINGER = 0.25
LINGER_DURABLE = 0.02
#: Events encoded before other threads get their turn: about a millisecond of work.
SLICE = 100
#: How long that turn is at least, in seconds; a wait of 0 would not let the GIL go.
_BREATH = 0.00005
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


class Drain:
    """Moves what was captured into the spool: hook, redaction, encoding.

    `turn` does one slice of work; a thread repeats it. Work in hand is kept on the object, so an
    exception, or the death of the thread, in the middle of a slice loses nothing.

    Args:
        linger: seconds to wait for more after the first event of a burst.
        enough: events that end this wait.
        waits_for_room: leave events in the queue while the spool is full.
        on_spooled: called after each slice.
        on_marker: given each marker when all before it is in the spool.
    """

    def __init__(
        self,
        intake: Intake,
        spool: Spool,
        encoder: Encoder,
        ledger: Ledger,
        callbacks: Callbacks,
        clock: Clock,
        *,
        on_spooled: Callable[[], None],
        on_marker: Callable[[Marker], None],
        before_send: Callable[[Kind, Fields], Fields | None] | None = None,
        waits_for_room: bool = False,
        linger: float = LINGER_DURABLE,
        enough: int = _NEVER,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._encode = {"events": encoder.event, "metrics": encoder.metric}
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._before_send = before_send
        self._waits_for_room = waits_for_room
        self._on_spooled = on_spooled
        self._on_marker = on_marker
        self._linger = linger
        self._enough = enough
        self._in_hand: list[Any] = []
        self._lingered = False
        self._is_closed = False
        #: True while it waits for room in the spool.
        self.is_held_up = False

    @property
    def depth(self) -> int:
        """Events and metrics taken from the queue and not in the spool yet."""
        return sum(1 for item in list(self._in_hand) if not isinstance(item, Marker))

    def close(self) -> int:
        """Let go of what is in hand; return the number of events and metrics lost."""
        self._is_closed = True
        left, self._in_hand = self._in_hand, []
        return release(left)

    def turn(self) -> float | None:
        """Do one slice; return the seconds to wait before the next, None to wait for the bell."""
        room = self._room() if self._waits_for_room else SLICE
        self.is_held_up = room == 0
        if self.is_held_up:
            return 1.0  # delivery rings as soon as it made room
        intake = self._intake
        if not self._in_hand:
            if not intake.queue:
                self._lingered = False
                return None if intake.arm() else 0.0
            if not self._lingered and len(intake.queue) < SLICE and not intake.markers:
                self._lingered = True
                intake.relax(self._enough)
                return self._linger
            self._in_hand = intake.take(min(SLICE, room))
        self._work()
        self._on_spooled()
        return _BREATH

    def _room(self) -> int:
        if self._spool.room() == 0:
            self._spool.look()  # another process may have made some
        return self._spool.room()

    def _work(self) -> None:
        while self._in_hand:
            if isinstance(self._in_hand[0], Marker):
                marker = self._in_hand[0]
                self._on_marker(
                    marker
                )  # first: handed on twice it does no harm, forgotten it would
                self._intake.markers.discard(marker)
                self._in_hand = self._in_hand[1:]
            else:
                self._encode_run(list(takewhile(_is_event, self._in_hand)))

    def _encode_run(self, run: list[Item]) -> None:
        now = self._clock.now()
        records: list[Record] = []
        done = 0
        try:
            for item in run:
                record = self._record(item, now)
                if record is not None:
                    records.append(record)
                done += 1
        finally:
            # Whatever happened, what is encoded is kept and what is not is tried again; after
            # `close`, all of it is counted already.
            if not self._is_closed:
                self._append(records)
                self._in_hand = self._in_hand[done:]

    def _append(self, records: list[Record]) -> None:
        if records:
            lost = self._spool.append(records)
            if lost:
                self._ledger.drop("overflow", lost)

    def _record(self, item: Item, now: float) -> Record | None:
        kind = item[0]
        try:
            fields = named(item)
            if self._before_send is not None:
                given = self._filter(kind, fields)
                if given is None or self._is_closed:
                    return None
                fields = given
            return self._encode[kind](fields, now)
        except TooLargeError as error:
            self._lose("too_large", error)
        except EncodeError as error:
            self._lose("unencodable", error)
        except Exception as error:  # values can be anything; only this event is lost, and counted
            self._lose("unencodable", error)
        return None

    def _filter(self, kind: Kind, fields: Fields) -> Fields | None:
        assert self._before_send is not None
        try:
            with quiet():
                given = self._before_send(kind, fields)
        except BaseException as error:  # the application's code, sys.exit() included: fails closed
            self._drop("hook_failed")
            self._callbacks.error("before_send", error)
            return None
        if given is None:
            self._drop("filtered")
        return given

    def _lose(self, reason: DropReason, error: Exception) -> None:
        self._drop(reason)
        self._callbacks.error("encode", error)

    def _drop(self, reason: DropReason) -> None:
        if not self._is_closed:
            self._ledger.drop(reason)


def _is_event(item: Any) -> bool:
    return not isinstance(item, Marker)
