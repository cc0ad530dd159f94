"""Who reported to the collector, how each of them is, and what each of them lost in all."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from guardagent.collector.arrivals import Arrival
    from guardagent.collector.store import Store

__all__ = ["Register", "Row"]

#: Agents kept apart; those that were silent for the longest are forgotten.
_MAX_AGENTS = 1_000
#: Reasons of losses kept apart for one agent; there are a dozen.
_MAX_REASONS = 50
_PAGE = 1_000


@attrs.frozen(kw_only=True)
class Row:
    """One process's agent: its last report, and the losses of all its reports together.

    What its reports do not say is None; guard-agent's say nothing of the last nine.

    Args:
        agent: install id, shared by the processes of one installation.
        reported_at: unix seconds of the last report.
        pending: events and metrics that wait.
        delivered: events and metrics, since the process began.
        failed: events and metrics lost, since the process began.
        lost: losses by reason, added up over the reports.
    """

    agent: str
    project_id: str
    reported_at: float
    reports: int
    status: str
    errors: list[str]
    uptime: float
    pending: int
    delivered: int
    failed: int
    lost: Mapping[str, int] | None
    hostname: str | None
    pid: int | None
    agent_version: str | None
    breaker: str | None
    durable: bool | None
    rules_version: int | None
    rules_age: float | None
    rules_stale: bool | None

    @property
    def loss_account(self) -> str:
        """The losses in words, the greatest first: "overflow 4, rejected 1"."""
        if self.lost is None:
            return str(self.failed)
        ranked = sorted(self.lost.items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{reason} {n}" for reason, n in ranked if n) or "0"


class Register:
    """Lists agents by their status reports; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below; `catch_up` holds it while it reads
        self._rows: dict[tuple[str, ...], Row] = {}
        self._last = 0

    def catch_up(self, store: Store) -> None:
        """Take the reports that came into a store since the last time."""
        with self._lock:
            last = store.last_id
            while arrivals := store.arrivals(after=self._last, kind="status", limit=_PAGE):
                self._add(arrivals)
                self._last = arrivals[-1].id
            self._last = max(self._last, last)

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Take these arrivals; other kinds than reports are left out."""
        with self._lock:
            self._add(arrivals)

    def rows(self) -> list[Row]:
        """Return a row for each agent, who reported last first."""
        with self._lock:
            return list(reversed(self._rows.values()))

    def _add(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            if arrival.kind == "status":
                self._enter(arrival, json.loads(arrival.body))

    def _enter(self, arrival: Arrival, report: Mapping[str, Any]) -> None:
        process = (str(report.get("hostname"))[:200], str(report.get("pid"))[:20])
        key = (arrival.project_id, arrival.agent, *process)
        # Taken out and put in again: the order is that of the last reports.
        self._rows[key] = _row(arrival, report, self._rows.pop(key, None))
        if len(self._rows) > _MAX_AGENTS:
            del self._rows[next(iter(self._rows))]


def _row(arrival: Arrival, report: Mapping[str, Any], before: Row | None) -> Row:
    def told(name: str, *kinds: type) -> Any:
        value = report.get(name)
        return value if type(value) in kinds else None

    return Row(
        agent=arrival.agent,
        project_id=arrival.project_id,
        reported_at=arrival.received_at,
        reports=1 if before is None else before.reports + 1,
        status=report["status"],
        errors=report.get("errors", []),
        uptime=report["uptime"],
        pending=report["buffer_size"],
        delivered=report["events_sent"],
        failed=report["events_failed"],
        lost=_account(told("dropped", dict), before),
        hostname=told("hostname", str),
        pid=told("pid", int),
        agent_version=told("agent_version", str),
        breaker=told("breaker", str),
        durable=told("durable", bool),
        rules_version=told("rules_version", int),
        rules_age=told("rules_age", int, float),
        rules_stale=told("rules_stale", bool),
    )


def _account(new: Mapping[str, int] | None, before: Row | None) -> Mapping[str, int] | None:
    old = None if before is None else before.lost
    if new is None:
        return old
    total = Counter(old or {})
    for reason, n in new.items():
        if reason in total or len(total) < _MAX_REASONS:
            total[reason] += n
    return dict(total)
