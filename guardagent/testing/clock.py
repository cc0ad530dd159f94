"""A clock that stands still until it is told to move."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """Tells the time it was set to; a `guardagent._clock.Clock`.

    Args:
        start: unix seconds at the start; `monotonic` starts at 0.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Return the seconds it was advanced by."""
        return self._elapsed

    def now(self) -> float:
        """Return unix seconds."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass; never backwards.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds: given {seconds}, allowed: 0 or more")
        self._elapsed += seconds
