"""The threads that together get something done, and whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from guardagent._clock import Bell, Clock
from guardagent._loop import Loop

__all__ = ["Crew"]

#: How often whoever waits for the threads looks whether they live.
_LOOK_INTERVAL = 0.5
_IDLE = 0.05


class Crew:
    """Waits for its loops to get something done; does their work itself where they cannot.

    Args:
        loops: in the order in which work goes through them.
        on_error: told what a turn raised.
    """

    def __init__(
        self, loops: Sequence[Loop], clock: Clock, on_error: Callable[[BaseException], object]
    ) -> None:
        self._loops = loops
        self._clock = clock
        self._on_error = on_error
        self._inline = threading.RLock()  # guards turns in a calling thread

    def see_to(self, done: threading.Event, deadline: float) -> bool:
        """Wait until it is done, at most until that monotonic second; True when it is."""
        while not done.is_set() and self._left(deadline) > 0:
            # Asked again and again: a thread may die while it is waited for.
            if not all(loop.ensure() for loop in self._loops):
                self._work_here(done.is_set, deadline)
            done.wait(min(_LOOK_INTERVAL, self._left(deadline)))
        return done.is_set()

    def _work_here(self, is_done: Callable[[], bool], deadline: float) -> None:
        """Do the threads' work in the calling thread, where none can be started (any more)."""
        if not self._inline.acquire(timeout=self._left(deadline)):
            return
        try:
            bell = Bell()
            while not is_done() and self._left(deadline) > 0:
                waits = [self._turn_of(loop) for loop in self._loops]
                wait = min(_IDLE if one is None else one for one in waits)
                if wait > 0 and not is_done():
                    bell.wait(min(wait, self._left(deadline)))
        finally:
            self._inline.release()

    def _turn_of(self, loop: Loop) -> float | None:
        try:
            return loop.turn()
        except Exception as error:  # as in its own thread: told, and gone on
            self._on_error(error)
            return _IDLE

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock.monotonic())
