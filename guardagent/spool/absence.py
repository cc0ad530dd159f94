"""Whether a store is away, and when it is time to ask for it again."""

from __future__ import annotations

import logging

from guardagent._clock import Clock
from guardagent._log import say

__all__ = ["Absence"]

_log = logging.getLogger(__name__)

#: Seconds between two attempts: after the first failure, and at most.
_FIRST, _MOST = 0.5, 5.0


class Absence:
    """Begins with a failure and ends with a success; either is told once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._retry_at = 0.0
        self._retry_in = _FIRST
        #: True from the first failure to the next success.
        self.is_on = False

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self._retry_at - self._clock.monotonic())

    def begin(self, error: Exception) -> bool:
        """Note a failure; True when it is the first one."""
        self._retry_at = self._clock.monotonic() + self._retry_in
        self._retry_in = min(_MOST, self._retry_in * 2)
        if self.is_on:
            return False
        self.is_on = True
        say(_log, logging.WARNING, "The spool is away; events stay in memory (%s).", error)
        return True

    def end(self) -> bool:
        """Note a success; True when it is the first one after failures."""
        if not self.is_on:
            return False
        self.is_on = False
        self._retry_in = _FIRST
        say(_log, logging.INFO, "The spool is back.")
        return True
