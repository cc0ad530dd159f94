"""What the first of the agent's threads does: it moves what was captured into the spool.

Owns: what is in hand on that way. In: items out of the queue. Out: encoded records in the spool, in
the order of capture. Never waits for the backend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import attrs

from guardagent._backlog import Backlog
from guardagent._clock import Clock
from guardagent._quiet import quiet
from guardagent.encoding import Encoder, Record
from guardagent.errors import EncodeError, TooLargeError
from guardagent.fields import Item
from guardagent.intake import Intake, Marker, release
from guardagent.spool.protocol import Spool
from guardagent.status import Callbacks, DropReason, Ledger

__all__ = ["LINGER", "LINGER_DURABLE", "SLICE", "TOGETHER", "Drain", "Pace"]

#: Seconds the drain waits for more after the first event, so that one wake-up serves many, and one
#: request to the backend carries many: it costs as much as a hundred events. An event is as safe in
#: the queue as in a spool in memory; on its way to a durable one it must hurry.
LINGER = 1.0
LINGER_DURABLE = 0.02
#: Events encoded before other threads get their turn: about a millisecond of work.
SLICE = 100
#: Records put into a durable spool in one operation, at most, and their bytes but for the last
#: slice's: with a store far away the operations are what takes time, however little is in them.
TOGETHER, _TOGETHER_BYTES = 1_000, 768 * 1024
#: Seconds in the queue, or in hand, after which an event is not on its way to the spool but waits.
_LATE = 1.0
#: How long that turn is at least, in seconds; a wait of 0 would not let the GIL go.
_BREATH = 0.00005
_NEVER = sys.maxsize


@attrs.frozen(kw_only=True)
class Pace:
    """How soon what was captured goes into the spool, and how much of it at a time.

    Args:
        linger: seconds to wait for more after the first event of a burst, and to encode for.
        enough: events that end this wait.
        together: records put into the spool in one operation.
    """

    linger: float = LINGER_DURABLE
    enough: int = _NEVER
    together: int = SLICE


class Drain:
    """Moves what was captured into the spool: hook, redaction, encoding.

    `turn` encodes one slice; a thread repeats it. What is encoded goes into the spool when nothing
    more waits, or when it is a lot. Work in hand is kept on the object, so an
    exception, or the death of the thread, in the middle of a slice loses nothing.

    Args:
        waits_for_room: leave events in the queue while the spool is full.
        on_spooled: called whenever something was put into the spool.
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
        before_send: Callable[[Item], Item | None] | None = None,
        waits_for_room: bool = False,
        pace: Pace,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._encode = encoder.record
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._before_send = before_send
        self._waits_for_room = waits_for_room
        self._on_spooled = on_spooled
        self._on_marker = on_marker
        self._pace = pace
        self._in_hand: list[Any] = []
        self._encoded: list[Record] = []
        self._nbytes = 0  # of these
        self._begun_at = 0.0  # when the first of these was taken
        self._backlog = Backlog()
        self._lingered = False
        self._is_closed = False
        #: True while it waits for room in the spool.
        self.is_held_up = False

    @property
    def depth(self) -> int:
        """Events and metrics taken from the queue and not in the spool yet."""
        in_hand = sum(1 for item in list(self._in_hand) if not isinstance(item, Marker))
        return in_hand + len(self._encoded)

    @property
    def is_late(self) -> bool:
        """Tell whether an event waits for the spool, instead of being on its way there."""
        return self._clock.monotonic() - self._backlog.since > _LATE

    def close(self) -> int:
        """Let go of what is in hand; return the number of events and metrics lost."""
        self._is_closed = True
        left, self._in_hand = self._in_hand, []
        encoded, self._encoded = self._encoded, []
        return release(left) + len(encoded)

    def turn(self) -> float | None:
        """Do one slice; return the seconds to wait before the next, None to wait for the bell."""
        intake, now = self._intake, self._clock.monotonic()
        self._backlog.see(intake.depth + self.depth, now)
        room = self._room() if self._waits_for_room else self._pace.together
        self.is_held_up = room == 0
        if self.is_held_up:
            return 1.0  # delivery rings as soon as it made room
        if not self._in_hand and not self._encoded:
            if not intake.queue:
                self._lingered = False
                return None if intake.arm() else 0.0
            if not self._lingered and len(intake.queue) < SLICE and not intake.markers:
                self._lingered = True
                intake.relax(self._pace.enough)
                return self._pace.linger
            self._begun_at = now
        if not self._in_hand:
            self._in_hand = intake.take(min(SLICE, room - len(self._encoded)))
        self._work()
        if self._is_enough(room):
            self._keep()
            self._on_spooled()
        return _BREATH

    def _is_enough(self, room: int) -> bool:
        """Tell whether what is encoded has to go into the spool now."""
        return (
            not self._intake.queue
            or len(self._encoded) >= min(self._pace.together, room)
            or self._nbytes >= _TOGETHER_BYTES
            or self._clock.monotonic() - self._begun_at >= self._pace.linger
        )

    def _room(self) -> int:
        if self._spool.room() == 0:
            self._spool.look()  # another process may have made some
        return self._spool.room()

    def _work(self) -> None:
        while self._in_hand:
            if isinstance(self._in_hand[0], Marker):
                marker = self._in_hand[0]
                self._keep()  # what was captured before it
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
                self._encoded += records
                self._in_hand = self._in_hand[done:]
                self._nbytes += sum(len(record.body) for record in records)
                self._backlog.leave(done - len(records))

    def _keep(self) -> None:
        """Put what is encoded into the spool; rather twice, under the same keys, than never."""
        records = self._encoded
        if records:
            lost = self._spool.append(records)
            self._encoded, self._nbytes = [], 0
            self._backlog.leave(len(records))
            if lost:
                self._ledger.drop("overflow", lost)

    def _record(self, item: Item, now: float) -> Record | None:
        try:
            if self._before_send is not None:
                given = self._filter(item)
                if given is None or self._is_closed:
                    return None
                item = given
            return self._encode(item, now)
        except TooLargeError as error:
            self._lose("too_large", error)
        except EncodeError as error:
            self._lose("unencodable", error)
        except Exception as error:  # values can be anything; only this event is lost, and counted
            self._lose("unencodable", error)
        return None

    def _filter(self, item: Item) -> Item | None:
        assert self._before_send is not None
        try:
            with quiet():
                given = self._before_send(item)
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
