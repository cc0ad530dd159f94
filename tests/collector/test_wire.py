"""What the collector finds wrong with a body."""

from __future__ import annotations

from typing import Any

import pytest

from guardagent.collector.wire import MAX_PROBLEMS, batch_problems, status_problems
from guardagent.events import METRIC_TYPES
from tests.collector.parts import batch, event, metric, status

_WITHOUT = object()


def _with(body: dict[str, Any], field: str, value: object) -> dict[str, Any]:
    if value is _WITHOUT:
        return {name: kept for name, kept in body.items() if name != field}
    return {**body, field: value}


def test_complete_bodies_are_right() -> None:
    """Bodies with every key of the wire have no problem."""
    assert batch_problems(batch(events=[event(), event()]), filled="events") == []
    assert batch_problems(batch(metrics=[metric(), metric()]), filled="metrics") == []
    assert status_problems(status()) == []


def test_unknown_keys_are_taken() -> None:
    """Keys that the wire does not name are no problem, in batches, events and reports."""
    body = batch(events=[event(tenant="north", nested={"a": [1]})], shard=3)

    assert batch_problems(body, filled="events") == []
    assert status_problems(status(dropped={"overflow": 2})) == []


def test_keys_with_a_default_may_be_absent() -> None:
    """An event and a metric need only what has no default."""
    needed = ("idempotency_key", "timestamp", "event_type")
    bare_event = {name: value for name, value in event().items() if name in needed}
    bare_metric = {"timestamp": "2026-11-22T17:10:38Z", "metric_type": "block_rate", "value": 1}

    assert batch_problems(batch(events=[bare_event]), filled="events") == []
    assert batch_problems(batch(metrics=[bare_metric]), filled="metrics") == []


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T17:10:38.828369+00:00",
        "2026-11-22 17:10:38.828369+00:00",
        "2026-11-22 17:10:38+00:00",
        "2026-11-22T17:10:38Z",
        "2026-11-22T17:10:38.1z",
        "2026-11-22T17:10:38.123456789-09:30",
        "2026-11-22 17:10:38",
    ],
)
def test_both_forms_of_time_are_right(time: str) -> None:
    """ISO 8601 and Python's own form are taken, with any fraction and offset."""
    assert batch_problems(batch(events=[event(timestamp=time)]), filled="events") == []


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22",
        "2026-13-22T17:10:38Z",
        "2026-11-22T25:10:38Z",
        "2026-11-22T17:10:38+99:00",
        "2026-11-22T17:10:38 +00:00",
        "yesterday",
        "",
        "२०२६-११-२२T१७:१०:३८Z",
        1795367438.8,
        None,
    ],
)
def test_anything_else_is_no_time(time: object) -> None:
    """What is not a date and a time is refused by the index of its event."""
    problems = batch_problems(batch(events=[event(), event(timestamp=time)]), filled="events")

    assert len(problems) == 1
    assert problems[0].startswith("events[1].timestamp: given ")
    assert problems[0].endswith("allowed: an ISO 8601 date and time")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("idempotency_key", _WITHOUT, "idempotency_key: missing, allowed: a string of 1 to 128"),
        ("idempotency_key", "", 'idempotency_key: given "", allowed: a string of 1 to 128'),
        ("idempotency_key", "x" * 129, 'idempotency_key: given "' + "x" * 60 + '"..., allowed'),
        ("idempotency_key", "a\nb", 'idempotency_key: given "a\\nb", allowed'),
        ("event_type", _WITHOUT, "event_type: missing, allowed: a string that is not empty"),
        ("event_type", "", 'event_type: given "", allowed: a string that is not empty'),
        ("ip_address", None, "ip_address: given null, allowed: a string"),
        ("country", 49, "country: given 49, allowed: a string or null"),
        ("reason", ["x"], "reason: given an array of 1, allowed: a string"),
        ("status_code", "403", 'status_code: given "403", allowed: an integer or null'),
        ("status_code", True, "status_code: given true, allowed: an integer or null"),
        ("status_code", 403.0, "status_code: given 403.0, allowed: an integer or null"),
        ("response_time", "fast", 'response_time: given "fast", allowed: a number or null'),
        ("response_time", False, "response_time: given false, allowed: a number or null"),
        ("metadata", None, "metadata: given null, allowed: an object"),
        ("metadata", [], "metadata: given an array of 0, allowed: an object"),
        ("handler_name", {"a": 1}, "handler_name: given an object of 1, allowed: a string or"),
        ("method", 2**80, "method: given an integer of 81 bits, allowed: a string or null"),
    ],
)
def test_each_field_of_an_event_is_checked(field: str, value: object, problem: str) -> None:
    """A wrong field is told by event, name, what was given and what is allowed."""
    body = batch(events=[event(), _with(event(), field, value)])

    problems = batch_problems(body, filled="events")

    assert len(problems) == 1
    assert problems[0].startswith(f"events[1].{problem}")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("metric_type", "weather", 'metric_type: given "weather", allowed: one of bandwidth_usage'),
        ("metric_type", ["block_rate"], "metric_type: given an array of 1, allowed: one of"),
        ("value", "7", 'value: given "7", allowed: a number'),
        ("value", _WITHOUT, "value: missing, allowed: a number"),
        ("tags", {"code": 200}, 'tags["code"]: given 200, allowed: a string'),
        ("tags", {"code": None}, 'tags["code"]: given null, allowed: a string'),
        ("tags", [], "tags: given an array of 0, allowed: an object"),
        ("idempotency_key", 7, "idempotency_key: given 7, allowed: a string of 1 to 128"),
        ("timestamp", 0, "timestamp: given 0, allowed: an ISO 8601 date and time"),
        ("endpoint", 1, "endpoint: given 1, allowed: a string or null"),
    ],
)
def test_each_field_of_a_metric_is_checked(field: str, value: object, problem: str) -> None:
    """A wrong field is told by metric, name, what was given and what is allowed."""
    body = batch(metrics=[_with(metric(), field, value)])

    problems = batch_problems(body, filled="metrics")

    assert len(problems) == 1
    assert problems[0].startswith(f"metrics[0].{problem}")


def test_every_known_metric_is_taken() -> None:
    """The collector knows the same metrics as the agent."""
    body = batch(metrics=[metric(metric_type=name) for name in sorted(METRIC_TYPES)])

    assert batch_problems(body, filled="metrics") == []


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("project_id", None, "project_id: given null, allowed: a string"),
        ("batch_id", _WITHOUT, "batch_id: missing, allowed: a string of 1 to 128 printable"),
        ("created_at", "now", 'created_at: given "now", allowed: an ISO 8601 date and time'),
        ("compressed", True, "compressed: given true, allowed: false"),
        ("agent_version", 1, "agent_version: given 1, allowed: a string"),
        ("guard_version", 1, "guard_version: given 1, allowed: a string or null"),
        ("events", None, "events: given null, allowed: an array"),
        ("metrics", {}, "metrics: given an object of 0, allowed: an array"),
        ("metrics", [{}], "metrics: given an array of 1, allowed: an empty array at the address"),
        ("events", [7], "events[0]: given 7, allowed: an object"),
    ],
)
def test_each_field_of_a_batch_is_checked(field: str, value: object, problem: str) -> None:
    """A wrong field around the events is told by its name."""
    problems = batch_problems(_with(batch(), field, value), filled="events")

    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize("body", [[], None, 7, "batch", True])
def test_a_body_must_be_an_object(body: object) -> None:
    """Anything but an object is one problem, for batches and for reports."""
    assert batch_problems(body, filled="events")[0].startswith("body: given ")
    assert len(batch_problems(body, filled="metrics")) == 1
    assert len(status_problems(body)) == 1


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("status", "fine", 'status: given "fine", allowed: one of degraded, failed, healthy'),
        ("uptime", _WITHOUT, "uptime: missing, allowed: a number"),
        ("events_sent", 1.5, "events_sent: given 1.5, allowed: an integer"),
        ("buffer_size", True, "buffer_size: given true, allowed: an integer"),
        ("last_flush", "late", 'last_flush: given "late", allowed: an ISO 8601 date and time or'),
        ("errors", ["a", 1], "errors: given an array of 2, allowed: an array of strings"),
        ("errors", "a", 'errors: given "a", allowed: an array of strings'),
    ],
)
def test_each_field_of_a_report_is_checked(field: str, value: object, problem: str) -> None:
    """A wrong field of a status report is told by its name."""
    problems = status_problems(_with(status(), field, value))

    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_many_problems_are_counted_instead_of_listed() -> None:
    """A batch that is wrong everywhere gets a list that ends, and the exact number of the rest."""
    body = batch(events=[event(status_code="x") for _ in range(MAX_PROBLEMS + 5)])

    problems = batch_problems(body, filled="events")

    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[MAX_PROBLEMS - 1].startswith(f"events[{MAX_PROBLEMS - 1}].status_code: ")
    assert problems[-1] == "and 5 more"


def test_the_longest_list_needs_no_number() -> None:
    """Exactly as many problems as fit are all listed."""
    body = batch(events=[event(status_code="x") for _ in range(MAX_PROBLEMS)])

    problems = batch_problems(body, filled="events")

    assert len(problems) == MAX_PROBLEMS
    assert problems[-1].startswith(f"events[{MAX_PROBLEMS - 1}]")
