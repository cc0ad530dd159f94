"""Whether the agent is well, judged over a recent window so that health recovers."""

from __future__ import annotations

import datetime as dt
import socket
from collections import deque
from collections.abc import Mapping
from typing import Literal

from guardagent._clock import Clock
from guardagent._version import __version__
from guardagent.config import AgentConfig
from guardagent.plain import wire_time
from guardagent.status import EXPECTED, AgentStatus, Stats

__all__ = ["Health"]

_WINDOW = 300.0
_MUCH_LOST = 0.1
_NEARLY_FULL = 0.9


class Health:
    """Judges one process's agent; asked by any thread, at best at regular times."""

    def __init__(self, config: AgentConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._started_at = clock.monotonic()
        #: (when, delivered, lost) at earlier judgements, a second apart; only ever appended to.
        self._marks: deque[tuple[float, int, int]] = deque([(self._started_at, 0, 0)], maxlen=1_000)

    def report(self, stats: Stats, dropped: Mapping[str, int]) -> AgentStatus:
        """Return the status as of now; `dropped` is what the report says of losses."""
        now = self._clock.monotonic()
        errors = self._errors(stats, now)
        age = stats.last_success_age
        return AgentStatus(
            timestamp=self._wire_time(0.0),
            status=self._judge(stats, errors, now),
            uptime=now - self._started_at,
            events_sent=stats.delivered,
            events_failed=_lost(stats),
            buffer_size=stats.pending,
            last_flush=None if age is None else self._wire_time(age),
            errors=errors,
            dropped=dropped,
            breaker=stats.breaker,
            durable=stats.durable,
            spool_bytes=stats.spool_bytes,
            rules_id=stats.rules_id,
            rules_version=stats.rules_version,
            rules_age=stats.rules_age,
            rules_stale=stats.rules_stale,
            agent_version=__version__,
            guard_version=self._config.guard_version,
            guard_core_version=self._config.guard_core_version,
            pid=stats.pid,
            hostname=socket.gethostname(),
        )

    def _judge(
        self, stats: Stats, errors: list[str], now: float
    ) -> Literal["healthy", "degraded", "failed"]:
        age = stats.last_success_age
        idle = now - self._started_at if age is None else age
        fails = stats.breaker != "closed" or (stats.last_error is not None and stats.pending > 0)
        if fails and idle >= _WINDOW:
            return "failed"
        return "degraded" if errors else "healthy"

    def _errors(self, stats: Stats, now: float) -> list[str]:
        delivered, lost = self._recent(stats, now)
        errors = []
        if stats.breaker != "closed":
            errors.append(f"the circuit breaker is {stats.breaker}")
        if stats.last_error is not None:
            errors.append(stats.last_error)
        if lost > _MUCH_LOST * (delivered + lost):
            errors.append(f"{lost} of the last {delivered + lost} events were lost")
        if stats.pending >= _NEARLY_FULL * self._config.spool_max_records:
            errors.append(f"{stats.pending} events are pending")
        return errors

    def _recent(self, stats: Stats, now: float) -> tuple[int, int]:
        """Return what was delivered and lost within the window."""
        marks = tuple(self._marks)
        base = marks[0]
        for mark in marks:
            if mark[0] > now - _WINDOW:
                break
            base = mark
        _, delivered, lost = base
        if now - marks[-1][0] >= 1.0:
            self._marks.append((now, stats.delivered, _lost(stats)))
        return stats.delivered - delivered, _lost(stats) - lost

    def _wire_time(self, age: float) -> str:
        return wire_time(dt.datetime.fromtimestamp(self._clock.now() - age, dt.timezone.utc))


def _lost(stats: Stats) -> int:
    return sum(n for reason, n in stats.dropped.items() if reason not in EXPECTED)
