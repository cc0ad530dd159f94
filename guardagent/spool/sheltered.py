"""A store that may be away, and the shelter that keeps records meanwhile.

Owns: the store's absence, what it has to be told of when it is back, the way out of the shelter.
In: records, questions. Out: answers, or what is said for want of one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from guardagent._clock import Clock
from guardagent.encoding import Record
from guardagent.fields import Kind
from guardagent.spool.absence import Absence
from guardagent.spool.account import Account
from guardagent.spool.frame import pack
from guardagent.spool.memory import MemorySpool
from guardagent.spool.store import Depth, Store
from guardagent.status import DropReason

__all__ = ["ShelteredStore"]

_T = TypeVar("_T")
_U = TypeVar("_U")

#: Records moved out of the shelter at a time: as many as fit into one operation of any store.
_MOVED_AT_A_TIME = 1_000
#: Seconds after which whoever moves them sees to something else first: it may be the intake.
_MOVING = 0.2
#: What proves that a store takes something in: about as large as a small append.
_PROBE = "probe", bytes(16 * 1024)


class ShelteredStore:
    """Reaches a store, or does without it; thread-safe, and raises nothing.

    Args:
        store: closed by `close`.
        shelter: keeps records while the store is away.
        account: learns what the store says and what goes through here.
        max_bytes: the store's bound.
        on_lost: told of records for which there was no room on the way out of the shelter.
        on_error: told of each failure of the store; any exception of its is one.
        wake: called when the store goes away: there will be something to mend.
    """

    def __init__(
        self,
        store: Store,
        shelter: MemorySpool,
        account: Account,
        clock: Clock,
        *,
        max_bytes: int,
        on_lost: Callable[[DropReason, int], object],
        on_error: Callable[[Exception], object],
        wake: Callable[[], object],
    ) -> None:
        self._store = store
        self._shelter = shelter
        self._account = account
        self._clock = clock
        self._max_bytes = max_bytes
        self._on_lost = on_lost
        self._on_error = on_error
        self._wake = wake
        self._absence = Absence(clock)
        self._answers = False  # though it is away: it takes nothing in, and can be emptied
        #: True from `close` on.
        self.is_closed = False
        self._mending = threading.Lock()  # held by whoever tries to reach a store that is away
        self._sheltered_since: int | None = None
        #: Records that are neither in the shelter nor in the store for a moment.
        self.moving = 0
        #: Settlements that the store could not be told of yet.
        self._owed: deque[Callable[[], tuple[int, Depth]]] = deque()

    @property
    def durable(self) -> bool:
        """Tell whether what is pending would survive the process."""
        return (self.is_closed or not self._absence.is_on) and self.at_risk() == 0

    def at_risk(self) -> int:
        """Return the number of records that would go with the process."""
        return self._shelter.pending() + self.moving

    def append(self, records: Sequence[Record]) -> int:
        """Keep the records in the store, or in the shelter while it is away."""
        if not records:
            return 0
        # Behind what is in the shelter still: the order of capture is kept.
        if self.is_reached() and not (self._absence.is_on or self._shelter.can_withdraw):
            try:
                return self._append(records, self._account.spans.add)
            except Exception as error:  # of the store's, whatever it is: the shelter takes them
                self._miss(error)
        if self._sheltered_since is None:
            self._sheltered_since = self._account.spans.late
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
        self._account.see(added.depth)  # first: a store that has begun anew ends all older spans
        note(added.spans)
        self._account.put.add(len(records) - too_large)
        self._account.taken.add(added.lost)
        return added.lost + too_large

    def settle(self, n: int, settle: Callable[[], tuple[int, Depth]]) -> int:
        """Settle records, or promise to do it when the store is back; return how many."""
        settled, depth = self.ask(settle, (n, None))
        if depth is None:
            self._owed.append(settle)
        else:
            self._account.see(depth)
        self._account.taken.add(settled)
        return settled

    def ask(self, question: Callable[[], _T], otherwise: _U) -> _T | _U:
        """Return the store's answer, or the other one while it is away."""
        if not self.is_reached():
            return otherwise
        try:
            return question()
        except Exception as error:  # of the store's, whatever it is; callers lose nothing by it
            self._miss(error)
            return otherwise

    # -- away and back -----------------------------------------------------------------------

    @property
    def retry_at(self) -> float | None:
        """Monotonic second at which to try what there is to mend; None when there is nothing."""
        return self._absence.retry_at if self._needs_mending else None

    @property
    def is_usable(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._answers or not self._absence.is_on

    def is_reached(self) -> bool:
        """Tell whether the store answers; see what there is to mend, when it is time to."""
        if self.is_closed:
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
        return self.is_usable

    def close(self) -> None:
        """Bring everything into the store, if it takes it, and close it."""
        if not self.is_closed and self._mending.acquire(blocking=False):
            try:
                self._save()
            finally:
                self._mending.release()
        self.is_closed = True
        try:
            self._store.close()
        except Exception as error:  # of the store's, whatever it is; nothing is lost by it
            self._on_error(error)

    def _save(self) -> None:
        """Bring everything into the store, if it takes it; also one that was away just now."""
        if not self._absence.is_on or self._owed or self.at_risk():
            self._settle_up()
        while self._shelter.can_withdraw and not self._absence.is_on:
            self._settle_up()

    def _miss(self, error: Exception) -> None:
        """Do without the store for a while."""
        self._answers = False
        self._on_error(error)
        if self._absence.begin(error):
            self._wake()

    @property
    def _needs_mending(self) -> bool:
        return self._absence.is_on or bool(self._owed) or self._shelter.can_withdraw

    def _settle_up(self) -> None:
        """Tell the store what it missed; only one that takes something in is back."""
        answers = False
        try:
            while self._owed:
                self._account.see(self._owed[0]()[1])
                self._owed.popleft()
            self._account.see(self._store.depth())
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
            self.moving = _MOVED_AT_A_TIME  # before the first of them is out
            records = self._shelter.withdraw(_MOVED_AT_A_TIME)
            self.moving = len(records)
            note = partial(self._account.spans.add_late, since=self._sheltered_since or 0)
            lost = len(records)
            try:
                lost = self._append(records, note)
            except BaseException:
                lost = self._shelter.append(records)
                raise
            finally:
                self.moving = 0
                if lost:
                    self._on_lost("overflow", lost)
        return has_moved
