"""Arrivals to be shown."""

from __future__ import annotations

import itertools
import json
from typing import Any

import attrs

from guardagent.collector import Arrival, Kind

__all__ = ["arrival", "refusal", "report"]

_ids = itertools.count(1)


def arrival(
    type_: str = "ip_banned", *, kind: Kind = "event", agent: str = "host-1", at: float = 1_000.0
) -> Arrival:
    """Return an arrival of one type."""
    number = next(_ids)
    return Arrival(
        id=number,
        kind=kind,
        key=f"key-{number}",
        type=type_,
        project_id="shop",
        agent=agent,
        agent_version="0.1.0",
        batch_id="b-1",
        received_at=at,
        deliveries=1,
        body="{}",
    )


def refusal(reason: str, *, status: str = "401") -> Arrival:
    """Return a refused request."""
    body = json.dumps({"request": "POST /api/v1/events", "errors": [reason]})
    number = next(_ids)
    return Arrival(number, "refusal", f"r-{number}", status, "", "", "", "", 1_000.0, 1, body)


def report(name: str = "healthy", **fields: Any) -> Arrival:
    """Return a status report."""
    body = {
        "timestamp": "2026-11-22T17:10:38+00:00",
        "status": name,
        "uptime": 61.5,
        "events_sent": 12,
        "events_failed": 0,
        "buffer_size": 3,
        **fields,
    }
    return attrs.evolve(arrival(name, kind="status"), body=json.dumps(body))
