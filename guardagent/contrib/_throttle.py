"""At most so many in so many seconds, and the number of those left out."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from guardagent import _fork

__all__ = ["Throttle"]


class Throttle:
    """Lets through up to `limit` in each `interval` seconds; any thread may ask.

    Args:
        limit: how many.
        interval: seconds, counted from the first one let through.
        clock: returns monotonic seconds.
    """

    def __init__(self, limit: int, interval: float, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._interval = interval
        self._clock = clock
        self._begin_anew()
        _fork.watch(self)

    def _begin_anew(self) -> None:
        # Guards the three below; re-entrant, for a signal handler may ask as well.
        self._lock = threading.RLock()
        self._ends_at = -math.inf
        self._taken = 0
        self._left_out = 0

    def take(self) -> int | None:
        """Return how many were left out since the last one that was not; None to leave this out."""
        now = self._clock()
        with self._lock:
            if now >= self._ends_at:
                self._ends_at = now + self._interval
                self._taken = 0
            if self._taken >= self._limit:
                self._left_out += 1
                return None
            self._taken += 1
            left_out, self._left_out = self._left_out, 0
            return left_out
