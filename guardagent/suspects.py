"""Tells a batch that the backend cannot digest from a backend that is broken.

Owns: batches put aside. In: batches that were answered with 5xx, and word that another one was
accepted. Out: the same batches, back in the spool whole or in halves, or condemned.

A batch that meets a 5xx again and again is put aside, and others are tried in its place. One is
accepted: then what was put aside last is tried again, once as it is, for an outage may just have
ended, and then in halves, until a single record is left that is refused each time while others
pass. None is accepted: then it may be the backend, and nobody is condemned. Or there is such a
record in each of them, so one of them is cut down to a single record; and each round through all
that is aside goes one batch further.

Nothing here asks for a request: when one is made is the breaker's and the back-off's to say.
"""

from __future__ import annotations

from guardagent.errors import DeliveryError, TransientError
from guardagent.spool.protocol import Batch, Spool

__all__ = ["Suspects", "is_evidence"]

#: So many answers of 5xx make a suspect.
_SUSPECTED = 3
#: Others were accepted after it was refused: once this may have been the end of an outage, and
#: after three times a record is condemned.
_CONVICTED, _CONDEMNED = _SUSPECTED + 2, _SUSPECTED + 3
#: Batches that are put aside before the first round through them; this and a batch for each round
#: is what a long outage takes into memory.
_HELD = 8


def is_evidence(error: DeliveryError) -> bool:
    """Tell whether a 5xx may be for the batch's sake; 503, or a time to come back, never is."""
    status = error.status or 0
    asks_for_time = isinstance(error, TransientError) and error.retry_after is not None
    return status >= 500 and status != 503 and not asks_for_time


class Suspects:
    """Not thread-safe: the delivery's thread has it to itself."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._held: list[Batch] = []
        self._has_passed = False  # another one, since one was cut for want of others

    def take(self, batch: Batch, answers: int = 1) -> None:
        """Take a batch that was answered so often with 5xx: it is the next again, or put aside."""
        is_new = batch.suspicion < _SUSPECTED
        if is_new:
            # While one is aside and nothing passes, each further one is tried once.
            batch.suspicion = min(_SUSPECTED, batch.suspicion + answers)
            if self._held:
                batch.suspicion = _SUSPECTED
        if batch.suspicion < _SUSPECTED:
            self._spool.release(batch)
            return
        self._held.append(batch)
        if is_new and len(self._held) > _HELD:
            self.retry()
            self.release()

    def retry(self) -> bool:
        """Have one of them tried again, for want of others; False when there is none.

        The smallest is cut in two; when it cannot be, they have their turns as they are.
        """
        if not self._held:
            return False
        smallest = min(self._held, key=len)
        if len(smallest) == 1 and self._has_passed:
            # No outage: the next one is cut down too, or what is good in it would wait for news.
            self._has_passed = False
            several = [one for one in self._held if len(one) > 1]
            smallest = min(several, key=len, default=smallest)
        is_single = len(smallest) == 1
        batch = self._held[0] if is_single else smallest
        self._held.remove(batch)
        self._give_back(batch, halved=not is_single)
        return True

    def convict(self) -> Batch | None:
        """Take note that another batch was accepted; return a record that is to be buried."""
        if not self._held:
            return None
        self._has_passed = True
        batch = self._held.pop()
        batch.suspicion += 1
        if len(batch) == 1 and batch.suspicion >= _CONDEMNED:
            return batch
        self._give_back(batch, halved=len(batch) > 1 and batch.suspicion >= _CONVICTED)
        return None

    def release(self, before: float = float("inf")) -> None:
        """Give back as it is what was claimed before that unix second: its time is over."""
        for batch in self._let_go(before):
            self._give_back(batch, halved=False)

    def _let_go(self, before: float = float("inf")) -> list[Batch]:
        """Return what was put aside, the last first: what is given back last is the next."""
        gone = [batch for batch in reversed(self._held) if batch.created_at < before]
        self._held = [batch for batch in self._held if batch.created_at >= before]
        return gone

    def _give_back(self, batch: Batch, *, halved: bool) -> None:
        if halved:
            self._spool.split(batch)
        else:
            self._spool.release(batch)
