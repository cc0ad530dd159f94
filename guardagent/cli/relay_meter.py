"""What a relay does and what waits for it, read at a moment."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from guardagent.cli.opening import told
from guardagent.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guardagent import Agent
    from guardagent._clock import Clock
    from guardagent.spool.store import Census, Store
    from guardagent.status import Stats

__all__ = ["Complaints", "Meter", "Reading"]

#: Seconds over which a rate is taken.
_RATE_WINDOW = 10.0


@attrs.frozen(kw_only=True)
class Reading:
    """A relay at a moment.

    Args:
        at: unix seconds.
        delivered: by this relay, since its start; so are bytes_sent, retried and dropped.
        events_per_second: delivered by this relay, over the last ten seconds.
        pending: in the spool, whoever is sending it; as last known while the spool is away.
        oldest_at: when the oldest of them was made, unix seconds; None when it is not known.
        dead_letters: None when the number is not known.
        later: of those pending, written by a later release, which this one does not send.
        durable: False while the spool is away.
        last_error: of the deliveries; None since the last success.
        spool_error: None while the spool answers.
    """

    at: float
    delivered: int
    events_per_second: float
    bytes_sent: int
    bytes_per_second: float
    in_flight: int
    retried: int
    dropped: Mapping[str, int]
    pending: int
    spool_bytes: int
    oldest_at: float | None
    dead_letters: int | None
    later: int
    breaker: str
    durable: bool
    last_error: str | None
    spool_error: str | None
    pid: int

    @property
    def lag(self) -> float | None:
        """Age of the oldest record in seconds; 0.0 when nothing waits, None when not known."""
        if self.oldest_at is None:
            return None if self.pending else 0.0
        return max(0.0, self.at - self.oldest_at)

    @property
    def settled(self) -> int:
        """Records that this relay has done with."""
        return self.delivered + sum(self.dropped.values())


class Complaints:
    """Remembers what is wrong with the spool; its `note` is the agent's `on_error`."""

    def __init__(self) -> None:
        self.spool: str | None = None

    def note(self, stage: str, error: BaseException, _context: Mapping[str, Any]) -> None:
        """Take an error of the agent's; those of deliveries are in its stats."""
        if stage == "spool" and isinstance(error, SpoolError):
            self.spool = told(error)


class Meter:
    """Reads an agent, and the spool behind it through a store of its own."""

    def __init__(self, agent: Agent, store: Store, complaints: Complaints, clock: Clock) -> None:
        self._agent = agent
        self._store = store
        self._complaints = complaints
        self._clock = clock
        self._window: deque[tuple[float, int, int]] = deque()
        self._census: Census | None = None

    def read(self) -> Reading:
        """Read everything; never raises."""
        stats = self._agent.stats()
        events, nbytes = self._rates(stats)
        pending, spool_bytes = stats.spool_pending, stats.spool_bytes
        oldest_at, problem = None, self._complaints.spool or "the spool is away"
        if stats.durable:
            # While the agent cannot reach it, to ask as well would only be one more wait.
            try:
                depth = self._store.depth()
                pending, spool_bytes = depth.records, depth.nbytes
                oldest_at = self._store.oldest_at()
                self._census = self._store.census()
                problem = ""
            except SpoolError as error:
                problem = told(error)
        census = None if problem else self._census
        return Reading(
            at=self._clock.now(),
            delivered=stats.delivered,
            events_per_second=events,
            bytes_sent=stats.bytes_sent,
            bytes_per_second=nbytes,
            in_flight=stats.in_flight,
            retried=stats.retried,
            dropped={reason: n for reason, n in stats.dropped.items() if n},
            pending=pending,
            spool_bytes=spool_bytes,
            # A damaged record does not tell when it was made.
            oldest_at=oldest_at if oldest_at is None or math.isfinite(oldest_at) else None,
            dead_letters=None if census is None else sum(census.dead.values()),
            later=0 if census is None else census.later,
            breaker=stats.breaker,
            durable=stats.durable and not problem,
            last_error=_explained(stats.last_error),
            spool_error=problem or None,
            pid=stats.pid,
        )

    def _rates(self, stats: Stats) -> tuple[float, float]:
        """Return events and bytes a second over the window."""
        now = self._clock.monotonic()
        self._window.append((now, stats.delivered, stats.bytes_sent))
        while len(self._window) > 2 and now - self._window[1][0] >= _RATE_WINDOW:
            self._window.popleft()
        since, delivered, nbytes = self._window[0]
        seconds = now - since
        if seconds <= 0:
            return 0.0, 0.0
        return (stats.delivered - delivered) / seconds, (stats.bytes_sent - nbytes) / seconds


def _explained(error: str | None) -> str | None:
    if error in ("HTTP 401", "HTTP 403"):
        return f"{error}: the key is refused; see GUARDAGENT_API_KEY and --api-key"
    return error
