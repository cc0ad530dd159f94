"""The one event that every subject builds, captures and delivers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

__all__ = ["MARK", "flat_fields", "nested_fields", "wire_fields"]

# Stands once in each event, whatever the format around it, so that the sink can count events.
MARK = b"bench-marked"


def nested_fields() -> dict[str, Any]:
    """Build the ten fields of the event, flat metadata among them."""
    return {
        "event_type": "penetration_attempt",
        "ip_address": "203.0.113.77",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "action_taken": "request_blocked",
        "reason": "SQL injection, bench-marked",
        "endpoint": "/api/orders/search",
        "method": "POST",
        "status_code": 403,
        "response_time": 0.0123,
        "metadata": {"rule": "sqli-7", "attempt": 3, "tenant": "acme-eu"},
    }


def flat_fields() -> dict[str, Any]:
    """Build the same fields for peers whose attributes do not nest."""
    return {
        "event_type": "penetration_attempt",
        "ip_address": "203.0.113.77",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "action_taken": "request_blocked",
        "reason": "SQL injection, bench-marked",
        "endpoint": "/api/orders/search",
        "method": "POST",
        "status_code": 403,
        "response_time": 0.0123,
        "rule": "sqli-7",
        "attempt": 3,
        "tenant": "acme-eu",
    }


def wire_fields() -> dict[str, Any]:
    """Build the event as it stands in a batch (WIRE.md 2): every key present, times as text."""
    return {
        "idempotency_key": "6f1cf1c1-9c5c-4d3e-8a52-0d9a5b8a7a11",
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "country": None,
        "decorator_type": None,
        "rule_type": None,
        "pattern_matched": None,
        "handler_name": None,
        **nested_fields(),
    }
