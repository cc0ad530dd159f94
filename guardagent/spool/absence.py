"""Whether a store is away, and when it is time to ask for it again."""

from __future__ import annotations

import logging

from guardagent._clock import Clock
from guardagent._log import say
from guardagent.errors import SpoolError

__all__ = ["Absence"]

_log = logging.getLogger(__name__)

#: Seconds between two attempts: after the first failure, and at most.
_FIRST, _MOST = 0.5, 5.0
#: How long a store has to hold until the next failure counts as a first one again.
_STEADY = 10.0
#: At least so many seconds are between two log lines of one kind.
_LOG_INTERVAL = 30.0


class Absence:
    """Begins with a failure and ends with a success; either is told, but not each of many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._retry_in = _FIRST
        #: Monotonic second of the next attempt.
        self.retry_at = 0.0
        #: True from the first failure to the next success.
        self.is_on = False
        self._ended_at = self._told_at = float("-inf")
        self._is_told = False
        self._untold = 0

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self.retry_at - self._clock.monotonic())

    def begin(self, error: Exception) -> bool:
        """Note a failure; True when it is the first one."""
        now = self._clock.monotonic()
        is_first = not self.is_on
        if is_first:
            self.is_on = True
            self._untold += 1
            if now - self._ended_at >= _STEADY:
                self._retry_in = _FIRST
        self.retry_at = now + self._retry_in
        self._retry_in = min(_MOST, self._retry_in * 2)
        if not self._is_told and now - self._told_at >= _LOG_INTERVAL:
            self._tell(error, now)
        return is_first

    def end(self) -> bool:
        """Note a success; True when it is the first one after failures."""
        if not self.is_on:
            return False
        self.is_on = False
        self._ended_at = self._clock.monotonic()
        if self._is_told:  # one line for each of the others, so that the last is always true
            self._is_told = False
            say(_log, logging.INFO, "The spool is back.")
        return True

    def _tell(self, error: Exception, now: float) -> None:
        often = "" if self._untold == 1 else f"; {self._untold} times since this was last said"
        # What any other exception says may quote an event.
        cause = error if isinstance(error, SpoolError) else type(error).__name__
        message = "The spool is away; events stay in memory (%s%s)."
        self._is_told, self._told_at, self._untold = True, now, 0
        say(_log, logging.WARNING, message, cause, often)
