"""What is gathered before it is captured, such as counts of requests: handed over in time.

Owns: when the sources are asked. In: word that one has gathered something. Out: calls of theirs,
which capture; after an interval on the agent's thread, and before each flush, stop and exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from guardagent._clock import Clock
from guardagent._quiet import MUTED

__all__ = ["Sources"]


class Sources:
    """Asks every source; what one raises disturbs neither the others nor the agent.

    Args:
        hand_overs: the sources; the list may grow.
        interval: seconds from `expect` to the call.
        wake: has `turn` called soon.
        on_error: told what a source raised.
    """

    def __init__(
        self,
        hand_overs: Sequence[Callable[[], object]],
        interval: float,
        clock: Clock,
        *,
        wake: Callable[[], object],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self._hand_overs = hand_overs
        self._interval = interval
        self._clock = clock
        self._wake = wake
        self._on_error = on_error
        self._due_at: float | None = None

    def expect(self) -> None:
        """Have the sources asked when the interval is over; told once for each time it is."""
        if self._due_at is None:
            self._due_at = self._clock.monotonic() + self._interval
            self._wake()

    def turn(self) -> float | None:
        """Ask if it is time to; return the seconds until it is, None when nothing is expected."""
        if self._due_at is None:
            return None
        left = self._due_at - self._clock.monotonic()
        if left > 0:
            return left
        self.ask()
        return None

    def ask(self) -> None:
        """Ask now; not on a thread whose captures would be refused."""
        if threading.get_ident() in MUTED:
            return
        self._due_at = None
        for hand_over in list(self._hand_overs):
            try:
                hand_over()
            except Exception as error:  # whatever it is, the others and the flush go on
                self._on_error(error)
