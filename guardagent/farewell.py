"""The last round before the process or the agent ends: one attempt each, no waiting."""

from __future__ import annotations

import threading

import attrs

from guardagent.intake import Marker
from guardagent.spool.protocol import Batch, Spool

__all__ = ["Farewell"]


@attrs.define(eq=False)
class Farewell:
    """A last round.

    Args:
        deadline: monotonic second at which it is over.
        marker: behind the last event to deliver.
        over: set when there is nothing more to try.
        failed: batches that had their attempt.
    """

    deadline: float
    marker: Marker
    over: threading.Event = attrs.field(factory=threading.Event)
    failed: list[Batch] = attrs.field(factory=list)

    def is_in_vain(self, spool: Spool) -> bool:
        """Tell whether nothing more has to be tried: what is left is safe in the spool."""
        if self.marker.ticket is None or spool.at_risk():
            return False
        return bool(self.failed) or self.marker.done.is_set()

    def give_back(self, spool: Spool) -> None:
        """Let what failed be claimed again, in its order."""
        failed, self.failed = self.failed, []
        for batch in reversed(failed):
            spool.release(batch)
