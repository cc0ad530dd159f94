"""The thread that claims batches, sends them and settles them.

Owns: when something is sent, and what becomes of it. In: records in the spool, markers of
`flush`. Out: every record acknowledged, released or buried, and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from guardagent._clock import Bell, Clock, pause
from guardagent._ids import chance
from guardagent._log import say
from guardagent._quiet import quiet
from guardagent.config import AgentConfig
from guardagent.encoding import record_key
from guardagent.errors import (
    DeliveryError,
    RejectedError,
    SetupError,
    TooLargeError,
    TransientError,
)
from guardagent.farewell import Farewell
from guardagent.intake import Marker
from guardagent.spool.protocol import Batch, Spool
from guardagent.status import Callbacks, DropReason, Ledger
from guardagent.suspects import Suspects, is_evidence
from guardagent.transport.breaker import CircuitBreaker
from guardagent.transport.protocol import BACKOFF_MAX, RETRY_AFTER_MAX, Receipt, Transport

__all__ = ["Delivery"]

_log = logging.getLogger(__name__)

_JITTER = 0.2
#: How often to ask whether another process has settled what a `flush` waits for.
_MARKER_INTERVAL = 0.05
#: A failure that lasts is logged again after so many seconds.
_COMPLAIN_INTERVAL = 300.0


class Delivery:
    """Sends what is due; `turn` makes at most one request, a thread repeats it.

    Something is due when `buffer_size` records are pending, when one has waited for
    `flush_interval`, or when a marker arrived; then everything pending at that moment is sent.
    """

    def __init__(
        self,
        config: AgentConfig,
        spool: Spool,
        ledger: Ledger,
        callbacks: Callbacks,
        clock: Clock,
        bell: Bell,
        *,
        max_bytes: int,
        is_filling: Callable[[], bool] = lambda: False,
        breaker: CircuitBreaker | None = None,
        rng: Callable[[], float] = chance,
    ) -> None:
        self._config = config
        self._spool = spool
        self._suspects = Suspects(spool)
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._bell = bell
        self._max_bytes = max_bytes
        self._is_filling = is_filling
        self._rng = rng
        self.breaker = breaker or CircuitBreaker(rng=rng)
        self._transport: Transport | None = None
        self._arrived: deque[Marker] = deque()
        self._farewell: Farewell | None = None
        self._since: float | None = None
        #: Records still to be settled of those that were pending when something became due.
        self._goal = 0
        self._resume_at = 0.0
        self._failures = 0
        self._complained_at: float | None = None
        self._sending: Batch | None = None
        #: Records in the request that is being sent.
        self.in_flight = 0
        #: Set when nothing is to be sent any more.
        self.is_closing = False
        #: Set when the spool is gone; what a request still out there brings counts no more.
        self.is_closed = False

    def use(self, transport: Transport) -> None:
        """Set the transport; before the first turn."""
        self._transport = transport

    def look(self) -> None:
        """Have the thread look at the spool, when there is reason to."""
        if self._config.deliver:
            if self._since is None or self._is_plenty(self._spool.pending()):
                self._bell.ring()

    def receive(self, marker: Marker) -> None:
        """Take a marker that everything before it has reached the spool."""
        marker.ticket = self._spool.ticket()
        self._arrived.append(marker)
        self._bell.ring()

    def hurry(self, deadline: float, marker: Marker) -> threading.Event:
        """Begin the last round; return the event that is set when it is over."""
        farewell = Farewell(deadline, marker)
        self._farewell = farewell
        self._bell.ring()
        return farewell.over

    def relax(self) -> None:
        """Go back to ordinary work, after a last round that was not the end."""
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            farewell.give_back(self._spool)

    def release_markers(self) -> None:
        """Let whoever waits for a flush go on: what it waits for is counted as lost."""
        while self._arrived:
            self._arrived.popleft().done.set()

    def pause(self, seconds: float) -> bool:
        """Wait before a retry; False when there is none.

        That is as soon as the last round begins or is over, and when another process has the batch.
        """
        has_waited = pause(seconds, self._clock, self._bell, self._is_ending)
        return has_waited and (self._sending is None or self._spool.is_ours(self._sending))

    def _is_ending(self) -> bool:
        return self.is_closing or self._farewell is not None

    def turn(self) -> float | None:
        """Send one batch if one is due; return the seconds to the next turn, None for the bell."""
        if self._config.max_event_age is not None:
            before = self._clock.now() - self._config.max_event_age
            self._suspects.release(before)
            self._drop("expired", self._spool.expire(before))
        self._spool.look()
        self._settle_markers()
        farewell = self._farewell
        if farewell is not None:
            return self._last_turn(farewell)
        if not self._config.deliver:
            return _MARKER_INTERVAL if self._arrived else None
        now = self._clock.monotonic()
        wait = self._until_due(now)
        if wait != 0:
            return wait
        wait = max(self._resume_at - now, self.breaker.remaining(now))
        if wait > 0 or not self.breaker.allow(now):
            return max(wait, 0.01)
        if self._send_next(None):
            return 0.0
        self.breaker.abandoned(now)
        return self._idle()

    def _last_turn(self, farewell: Farewell) -> float | None:
        if farewell.over.is_set():
            return None
        self._suspects.release()
        # First asked, then looked: what comes into the spool in between is not passed over.
        is_complete = farewell.marker.ticket is not None
        if self._clock.monotonic() < farewell.deadline and not farewell.is_in_vain(self._spool):
            if self._config.deliver and self._send_next(farewell):
                return 0.0
            if not is_complete:
                return 0.01  # the drain is still encoding; it rings when the marker comes through
        farewell.give_back(self._spool)
        self._settle_markers()
        farewell.over.set()
        return None

    def _until_due(self, now: float) -> float | None:
        """Return 0 when something is due, else the seconds until it is; None: nothing pending."""
        pending = self._spool.pending()
        if pending == 0:
            self._goal, self._since = 0, None
            pending = self._spool.pending()  # clear, then look: whoever appends asks for `_since`
        if pending == 0:
            return self._idle()
        if self._goal <= 0:
            if self._since is None:
                self._since = now
            due_in = self._since + self._config.flush_interval - now
            if not (self._arrived or due_in <= 0 or self._is_plenty(pending)):
                return due_in
            self._goal = pending
        return 0

    def _progress(self, n: int) -> None:
        """Count records that were settled; what came meanwhile has its own time."""
        self._goal -= n
        if self._goal <= 0:
            self._since = None

    def _idle(self) -> float | None:
        """Return how long to wait when nothing can be claimed."""
        self._goal, self._since = 0, None
        wait = self._spool.poll_interval
        if wait is not None and self._arrived:
            return min(wait, _MARKER_INTERVAL)  # another process is sending what is waited for
        return wait

    def _is_plenty(self, pending: int) -> bool:
        """Tell whether enough is pending; while more streams in, a full batch is awaited."""
        if self._spool.room() == 0 or pending >= max(
            self._config.max_batch_size, self._config.buffer_size
        ):
            return True
        return pending >= self._config.buffer_size and not self._is_filling()

    def _settle_markers(self) -> None:
        while self._arrived and self._spool.is_settled(self._arrived[0].ticket):
            self._arrived.popleft().done.set()

    def _send_next(self, farewell: Farewell | None) -> bool:
        """Send the next batch; False when there is none."""
        batch = self._claim()
        if batch is None and self._suspects.retry():
            batch = self._claim()
        if batch is None:
            return False
        self._sending, self.in_flight = batch, len(batch)
        try:
            self._attempt(batch, farewell)
        finally:
            self._sending, self.in_flight = None, 0
        return True

    def _claim(self) -> Batch | None:
        return self._spool.claim(self._config.max_batch_size, self._max_bytes, self._clock.now())

    def _attempt(self, batch: Batch, farewell: Farewell | None) -> None:
        assert self._transport is not None
        try:
            with quiet():
                receipt = self._transport.send(batch, self._deadline(batch, farewell))
        except TooLargeError as error:
            self._answered()
            self._split(batch, error)
        except RejectedError as error:
            self._answered()
            self._refused(batch, error, farewell)
        except DeliveryError as error:
            self._keep(batch, error, farewell)
        except Exception as error:  # a transport of the application's own may raise anything
            self._keep(batch, TransientError(f"{type(error).__name__}"), farewell, cause=error)
        except BaseException:
            self._spool.release(batch)
            self.breaker.abandoned(self._clock.monotonic())
            raise
        else:
            self._answered()
            self._accepted(batch, receipt, farewell)

    def _deadline(self, batch: Batch, farewell: Farewell | None) -> float | None:
        """Return the end of the one attempt that a last round or a suspect gets; None: several."""
        if farewell is not None:
            return farewell.deadline
        if batch.suspicion:  # each failed attempt holds up the others, and more of them say nothing
            return self._clock.monotonic() + self._config.timeout
        return None

    def _accepted(self, batch: Batch, receipt: Receipt, farewell: Farewell | None) -> None:
        refused = 0
        if receipt.rejected:
            refused = sum(record_key(body) in receipt.rejected for body in batch.bodies)
        if receipt.is_doubtful and not refused:
            message = "not successful, but no record of the batch is named"
            self._refused(batch, RejectedError(message, final=False), farewell)
            return
        if self.is_closed:
            return  # counted as left behind already
        # What another process has settled meanwhile, it has counted, too.
        settled = self._spool.ack(batch)
        self._progress(len(batch))
        refused = min(refused, settled)
        self._ledger.delivered.add(settled - refused)
        self._drop("rejected", refused)
        self._ledger.bytes_sent += receipt.bytes_sent
        self._ledger.last_success_at = self._clock.monotonic()
        self._ledger.last_error = None
        if self._complained_at is not None:
            say(_log, logging.INFO, "Delivery works again.")
        self._failures = 0
        self._complained_at = None
        condemned = self._suspects.convict()
        if condemned is not None:
            message = "HTTP 5xx again and again, while others are accepted"
            self._bury(condemned, "rejected", RejectedError(message))

    def _answered(self) -> None:
        self.breaker.succeeded()

    def _split(self, batch: Batch, error: TooLargeError) -> None:
        if len(batch) > 1:
            self._spool.split(batch)
        else:
            self._bury(batch, "too_large", error)

    def _refused(self, batch: Batch, error: RejectedError, farewell: Farewell | None) -> None:
        batch.attempts += 1
        if error.final or batch.attempts > self._config.retry_attempts:
            self._bury(batch, "rejected", error)
        else:
            self._keep(batch, error, farewell)

    def _bury(self, batch: Batch, reason: DropReason, error: DeliveryError) -> None:
        if self.is_closed:
            return
        self._drop(reason, self._spool.bury(batch, reason))
        self._progress(len(batch))
        self._ledger.last_error = _brief(error)
        self._callbacks.error("transport_send", error, batch_id=batch.batch_id, events=len(batch))

    def _keep(
        self,
        batch: Batch,
        error: DeliveryError,
        farewell: Farewell | None,
        cause: BaseException | None = None,
    ) -> None:
        """Keep a batch for later and decide when later is."""
        if farewell is not None:
            farewell.failed.append(batch)
            if self._farewell is not farewell:
                farewell.give_back(self._spool)  # that round ended while this request hung
        elif self._farewell is not None:
            self._spool.release(batch)
            self.breaker.abandoned(self._clock.monotonic())
            return  # interrupted for the last round: the attempt does not count
        elif is_evidence(error):
            self._suspects.take(batch, 1 if batch.suspicion else 1 + self._config.retry_attempts)
        else:
            self._spool.release(batch)
        self._failures += 1
        now = self._clock.monotonic()
        if isinstance(error, TransientError) and error.outage:
            self.breaker.failed(now)
        else:
            self.breaker.succeeded()
        self._resume_at = now + self._patience(error) * (1 + _JITTER * self._rng())
        self._complain(batch, error, cause)

    def _patience(self, error: DeliveryError) -> float:
        """Return the seconds until the next request: as asked, or more with each failure."""
        if isinstance(error, TransientError) and error.retry_after is not None:
            return error.retry_after
        if isinstance(error, TransientError) and error.outage:
            return self._config.backoff_factor  # the retries have waited longer; then the breaker
        doubled = 2.0 ** min(self._failures - 1, 32)
        if isinstance(error, SetupError):
            return min(RETRY_AFTER_MAX, doubled)
        return min(BACKOFF_MAX, self._config.backoff_factor * doubled)

    def _complain(self, batch: Batch, error: DeliveryError, cause: BaseException | None) -> None:
        """Log the start of a streak of failures; tell `on_error` of each."""
        level = logging.ERROR if isinstance(error, SetupError) else logging.WARNING
        self.note_failure(_brief(error), level)
        self._callbacks.error(
            "transport_send", cause or error, batch_id=batch.batch_id, events=len(batch)
        )

    def note_failure(self, cause: str, level: int = logging.WARNING) -> None:
        """Remember what went wrong; say it when a streak begins, and again while it lasts."""
        self._ledger.last_error = cause
        now = self._clock.monotonic()
        if self._complained_at is None or now - self._complained_at >= _COMPLAIN_INTERVAL:
            self._complained_at = now
            say(
                _log,
                level,
                "Delivery to %s fails (%s); %d events are kept meanwhile.",
                self._config.endpoint,
                cause,
                self._spool.pending(),
            )

    def _drop(self, reason: DropReason, n: int) -> None:
        if n:
            self._ledger.drop(reason, n)


def _brief(error: DeliveryError) -> str:
    """Return one line without what the backend wrote: it may quote an event or a key."""
    if error.summary is None and error.status is not None:
        return f"HTTP {error.status}"
    return (error.summary or str(error))[:200]
