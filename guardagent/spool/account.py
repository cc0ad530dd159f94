"""What a process knows of a store that it shares: how much lies there, and what of it is its own.

Owns: the store's last word, the spans of what was put there, the counts of what went in and out.
In: each answer of the store. Out: a balance, and what is lost when the store has begun anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from guardagent._clock import Clock
from guardagent.spool.holding import Holding
from guardagent.spool.spans import Spans
from guardagent.spool.store import Depth
from guardagent.status import DropReason, Tally

__all__ = ["Account"]

_UNKNOWN = Depth(0, 0, "")


class Account:
    """Thread-safe; asks nobody.

    Args:
        holding: what this process has claimed.
        on_lost: told how many records went with a store that came back empty.
    """

    def __init__(
        self, holding: Holding, clock: Clock, on_lost: Callable[[DropReason, int], object]
    ) -> None:
        self._holding = holding
        self._clock = clock
        self._on_lost = on_lost
        self._seeing = threading.Lock()  # guards the generation and what follows from a new one
        #: What the store held when it was last heard of.
        self.depth = _UNKNOWN
        #: Monotonic second of that.
        self.heard_at = float("-inf")
        #: Where the records lie that this process put there.
        self.spans = Spans()
        #: Records that this process put into the store, and took out, whoever had put them in.
        self.put, self.taken = Tally(), Tally()

    @property
    def is_new(self) -> bool:
        """Whether the store was never heard of."""
        return self.heard_at == float("-inf")

    def balance(self) -> int:
        """Return what this process put in less what it took out."""
        return self.put.value - self.taken.value

    def see(self, depth: Depth) -> None:
        """Note what the store says of itself; one that has begun anew has lost what was in it."""
        with self._seeing:
            self.heard_at = self._clock.monotonic()
            known, self.depth = self.depth, depth
            if known is _UNKNOWN or depth.generation == known.generation:
                return
            self.spans.clear()
            # What others have delivered is not lost, but this process cannot tell which that was.
            lost = min(self.balance() - len(self._holding), known.records)
            self.taken.add(max(0, lost))
        if lost > 0:
            self._on_lost("spool_lost", lost)
