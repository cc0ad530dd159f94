"""Whatever is captured, guard-agent's own models find nothing wrong with what is sent of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardagent import Agent, AgentConfig, SecurityEvent
from tests.conftest import MakeAgent, quick_settings
from tests.oracle.values import events, metrics
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.support.ledger import Request

#: An example is a request or two over real HTTP.
_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def _new(backend: Backend, seen: list[Request]) -> Iterator[Request]:
    """Go through the deliveries that are not among `seen` yet."""
    for request in backend.requests[len(seen) :]:
        seen.append(request)
        yield request


def test_each_batch_of_events_validates(
    backend: Backend, make_agent: MakeAgent, models: Any
) -> None:
    """Strictly: no value needs to be converted, not even once it is JSON."""
    agent = make_agent(compression_threshold=10_000)
    seen: list[Request] = []

    @_SETTINGS
    @given(st.lists(events(), min_size=1, max_size=8))
    def check(captured: list[Any]) -> None:
        assert all(map(agent.capture, captured))
        assert agent.flush(20.0)
        for request in _new(backend, seen):
            batch = models.EventBatch.model_validate_json(request.body, strict=True)
            assert [str(event.idempotency_key) for event in batch.events] == request.keys
            assert batch.metrics == []
            for event in batch.events:
                assert event.timestamp.utcoffset() is not None

    check()
    assert backend.unreadable == []
    assert {request.path for request in seen} == {"/api/v1/events"}


def test_each_batch_of_metrics_validates(
    backend: Backend, make_agent: MakeAgent, models: Any
) -> None:
    """Metrics too, whose tags may be nothing but text."""
    agent = make_agent()
    seen: list[Request] = []

    @_SETTINGS
    @given(st.lists(metrics(), min_size=1, max_size=8))
    def check(captured: list[Any]) -> None:
        assert all(map(agent.capture, captured))
        assert agent.flush(20.0)
        for request in _new(backend, seen):
            batch = models.EventBatch.model_validate_json(request.body, strict=True)
            assert [metric.value for metric in batch.metrics] == [
                record["value"] for record in request.records
            ]
            assert batch.events == []

    check()
    assert backend.unreadable == []
    assert {request.path for request in seen} == {"/api/v1/metrics"}


def test_what_validates_is_what_was_captured(
    backend: Backend, make_agent: MakeAgent, models: Any
) -> None:
    """Every field comes out of the model as it went into the event."""
    event = SecurityEvent(
        event_type="ip_banned",
        ip_address="203.0.113.7",
        country="DE",
        user_agent="curl/8",
        action_taken="banned",
        reason="ünlucky",
        endpoint="/login",
        method="POST",
        status_code=403,
        response_time=0.25,
        decorator_type="d",
        rule_type="r",
        pattern_matched="p",
        handler_name="h",
        metadata={"deep": {"list": [1, None, True]}},
    )
    agent = make_agent(guard_version="1.0", guard_core_version="2.0")
    agent.capture(event)
    assert agent.flush()

    batch = models.EventBatch.model_validate_json(backend.requests[0].body, strict=True)

    (found,) = batch.events
    for name in models.SecurityEvent.model_fields:
        if name != "idempotency_key":
            assert getattr(found, name) == getattr(event, name), name
    assert str(found.idempotency_key) == event.idempotency_key
    assert (batch.project_id, batch.compressed) == ("tests", False)
    assert (batch.guard_version, batch.guard_core_version) == ("1.0", "2.0")


def test_a_key_that_is_no_uuid_is_sent_as_one(
    backend: Backend, make_agent: MakeAgent, models: Any
) -> None:
    """An application may choose keys of its own; the wire has a type for them."""
    agent = make_agent()
    for _ in range(2):
        agent.capture(SecurityEvent(event_type="a", idempotency_key="order-17"))
    assert agent.flush()

    batch = models.EventBatch.model_validate_json(backend.requests[0].body, strict=True)
    first, second = batch.events
    assert first.idempotency_key == second.idempotency_key


@pytest.mark.parametrize("is_failing", [False, True])
def test_each_status_report_validates(backend: Backend, models: Any, is_failing: bool) -> None:
    """A healthy agent's, and that of one whose events are lost or wait."""
    if is_failing:
        backend.default = Status(422, body=b'{"detail": "no"}')
    given_ = {**quick_settings(backend.url), "status_interval": 0.05}
    with Agent(AgentConfig(**given_)) as agent:
        agent.capture(SecurityEvent(event_type="a"))
        agent.flush(5.0)
        known = len(backend.status_requests)
        assert backend._ledger.wait(lambda: len(backend.status_requests) > known + 1, 20.0)

    reports = [
        models.AgentStatus.model_validate_json(request.body, strict=True)
        for request in backend.status_requests
    ]
    assert reports[-1].status == ("degraded" if is_failing else "healthy")
    assert reports[-1].events_failed == int(is_failing)
