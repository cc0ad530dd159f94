"""What a capture takes out of an event or a metric: everything, under its wire name, copied."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from guardagent import SecurityEvent, SecurityMetric
from guardagent.fields import Fields, named, take_event, take_metric

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.timezone.utc)
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"

#: WIRE.md 2: the keys of an event, in the order in which it lists the fields of the models.
EVENT_KEYS = [
    "idempotency_key", "timestamp", "event_type", "ip_address", "country", "user_agent",
    "action_taken", "reason", "endpoint", "method", "status_code", "response_time",
    "decorator_type", "rule_type", "pattern_matched", "handler_name", "metadata", "extra",
]  # fmt: skip
METRIC_KEYS = ["idempotency_key", "timestamp", "metric_type", "value", "endpoint", "tags"]


def fields_of(value: SecurityEvent | SecurityMetric) -> Fields:
    """What a capture takes, as the agent's thread names it."""
    return named(take_event(value) if isinstance(value, SecurityEvent) else take_metric(value))


def test_every_field_of_an_event_is_taken() -> None:
    """Each is there, in the order of the wire protocol, the key first."""
    event = SecurityEvent(
        event_type="e", timestamp=NOON, reason="r", status_code=403, idempotency_key=KEY
    )

    fields = fields_of(event)

    assert list(fields) == EVENT_KEYS
    assert fields["idempotency_key"] == KEY
    assert (fields["timestamp"], fields["event_type"]) == (NOON, "e")
    assert (fields["reason"], fields["status_code"], fields["country"]) == ("r", 403, None)


def test_every_field_of_a_metric_is_taken() -> None:
    """Metrics have a key as well."""
    metric = SecurityMetric(metric_type="block_rate", value=1, endpoint="/a", idempotency_key=KEY)

    fields = fields_of(metric)

    assert list(fields) == METRIC_KEYS
    assert list(fields.values())[2:] == ["block_rate", 1.0, "/a", {}]
    assert fields["idempotency_key"] == KEY


@pytest.mark.parametrize("name", ["metadata", "extra"])
def test_later_changes_of_an_event_are_not_seen(name: str) -> None:
    """Mappings are copied, nested ones included, also when they were assigned later."""
    inner = {"list": [1, {"deep": 1}], "set": {1}}
    event = SecurityEvent(event_type="e")
    setattr(event, name, {"inner": inner})

    fields = fields_of(event)
    inner["list"][1]["deep"] = 2  # type: ignore[index]
    inner["more"] = []
    getattr(event, name)["more"] = 1

    assert fields[name] == {"inner": {"list": [1, {"deep": 1}], "set": [1]}}


def test_later_changes_of_a_metric_are_not_seen() -> None:
    """Tags are copied."""
    metric = SecurityMetric(metric_type="block_rate", value=1, tags={"a": "b"})

    fields = fields_of(metric)
    metric.tags["a"] = "c"

    assert fields["tags"] == {"a": "b"}


@pytest.mark.parametrize("name", ["metadata", "extra"])
@pytest.mark.parametrize("spoilt", [5, "text", [1]])
def test_a_spoilt_mapping_costs_nothing(name: str, spoilt: Any) -> None:
    """What is no mapping any more is kept in one; no capture fails for it."""
    event = SecurityEvent(event_type="e")
    setattr(event, name, spoilt)

    assert fields_of(event)[name] == {"given": spoilt}


def test_a_mapping_that_was_taken_away() -> None:
    """None is no mapping, but nothing is lost by it."""
    event = SecurityEvent(event_type="e", extra={"a": 1})
    event.metadata, event.extra = None, None  # type: ignore[assignment]

    fields = fields_of(event)

    assert (fields["metadata"], fields["extra"]) == ({}, None)


def test_fields_of_a_subclass_are_taken() -> None:
    """An application's own kind of event is an event."""

    class Incident(SecurityEvent):
        pass

    assert fields_of(Incident(event_type="e"))["event_type"] == "e"
