"""How long what waits has been waiting, without a note of the time on each piece."""

from __future__ import annotations

__all__ = ["Backlog"]


class Backlog:
    """First in, first out: a mark is put behind all that waits, and moved on when it is reached."""

    def __init__(self) -> None:
        #: Monotonic second since when something has been waiting, at least; infinity: nothing is.
        self.since = float("inf")
        self._before_mark = 0

    def see(self, waiting: int, now: float) -> None:
        """Note how many wait."""
        if not waiting:
            self.since = float("inf")
        elif self._before_mark <= 0 or self.since == float("inf"):
            self.since, self._before_mark = now, waiting

    def leave(self, count: int) -> None:
        """Note how many have gone."""
        self._before_mark -= count
