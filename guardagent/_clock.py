"""Time as an argument: what tells it, and the bell that a waiting thread listens to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Bell", "Clock", "SystemClock", "pause"]


class Clock(Protocol):
    """What the agent needs to know of time."""

    def monotonic(self) -> float:
        """Return seconds that never jump; for every interval and deadline."""
        ...

    def now(self) -> float:
        """Return unix seconds that are right at the start and then never jump."""
        ...


class SystemClock:
    """The machine's clock; `now` is anchored once, so a wall clock set anew changes no age."""

    def __init__(self) -> None:
        self._anchor = time.time() - time.monotonic()

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def now(self) -> float:
        """Return unix seconds since the anchor."""
        return self._anchor + time.monotonic()


SYSTEM_CLOCK = SystemClock()


class Bell:
    """Wakes the one thread that waits on it.

    `ring` is a single atomic call on a bare lock: unlike `threading.Event.set` it may interrupt
    itself, so finalizers and signal handlers can ring at any moment (FIELD B2). A ring that comes
    before the wait is not lost.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread, or let its next wait return at once."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # already rung: one wake-up is enough

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a ring; True when it rang, False after `timeout` seconds."""
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


def pause(seconds: float, clock: Clock, bell: Bell, is_over: Callable[[], bool]) -> bool:
    """Wait on the calling thread's own bell; False as soon as `is_over` says so.

    Other rings only make it look again.
    """
    ends_at = clock.monotonic() + seconds
    while not is_over():
        left = ends_at - clock.monotonic()
        if left <= 0:
            return True
        bell.wait(left)
    return False
