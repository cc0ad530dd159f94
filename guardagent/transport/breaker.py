"""The circuit breaker: when the backend is away, ask seldom. Pure: the clock is passed in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from guardagent._ids import chance

__all__ = ["BreakerState", "CircuitBreaker"]

BreakerState = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """Counts failures in a row; opens, waits, lets one probe through, and closes or opens again.

    Thread-safe; the lock is held for a few comparisons and never while anything is called.

    Args:
        threshold: failures in a row that open it.
        cooldown: seconds it stays open the first time; doubled each time a probe fails.
        max_cooldown: bound of that.
        jitter: share by which a cooldown is lengthened at random, so that a fleet does not
            return as one.
        rng: gives a number from 0 to 1 for the jitter.
    """

    def __init__(
        self,
        *,
        threshold: int = 5,
        cooldown: float = 1.0,
        max_cooldown: float = 30.0,
        jitter: float = 0.2,
        rng: Callable[[], float] = chance,
    ) -> None:
        self._threshold = threshold
        self._cooldown = cooldown
        self._max_cooldown = max_cooldown
        self._jitter = jitter
        self._rng = rng
        self._lock = threading.RLock()  # guards the four below
        self._state: BreakerState = "closed"
        self._failures = 0
        self._openings = 0
        self._reopens_at = 0.0

    @property
    def state(self) -> BreakerState:
        """The state as of the last call."""
        return self._state

    def allow(self, now: float) -> bool:
        """Tell whether a request may go out; True in half-open is given once, for the probe."""
        with self._lock:
            if self._state == "open" and now >= self._reopens_at:
                self._state = "half_open"
                return True
            return self._state == "closed"

    def remaining(self, now: float) -> float:
        """Return the seconds until `allow` can be True again, 0 when it may be now."""
        with self._lock:
            return max(0.0, self._reopens_at - now) if self._state == "open" else 0.0

    def succeeded(self) -> None:
        """Note that the backend answered as it should, be it with a refusal of the content."""
        with self._lock:
            self._state = "closed"
            self._failures = self._openings = 0

    def abandoned(self, now: float) -> None:
        """Note that a request ended without a verdict; a probe may be made anew at once."""
        with self._lock:
            if self._state == "half_open":
                self._state = "open"
                self._reopens_at = now

    def failed(self, now: float) -> None:
        """Note that the backend was away (network error) or broken (5xx)."""
        with self._lock:
            self._failures += 1
            if self._state == "half_open" or self._failures >= self._threshold:
                pause = min(self._max_cooldown, self._cooldown * 2**self._openings)
                self._openings = min(self._openings + 1, 32)
                self._reopens_at = now + pause * (1 + self._jitter * self._rng())
                self._state = "open"
