"""The Prometheus collector, read through the client's own registry and text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import guardagent
from guardagent import Agent
from guardagent.contrib.prometheus import AgentCollector
from tests.conftest import quick_settings
from tests.support.backend import Backend


def registered(agent: Agent | None = None) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(AgentCollector(agent))
    return registry


def test_counters(agent: Agent) -> None:
    """Everything `stats()` counts is told under its own name."""
    registry = registered(agent)
    agent.capture({"event_type": "ip_banned"})
    agent.capture("no event")
    assert agent.flush()

    value = registry.get_sample_value
    stats = agent.stats()
    assert value("guardagent_captured_total") == 2
    assert value("guardagent_delivered_total") == 1
    assert value("guardagent_dropped_total", {"reason": "invalid"}) == 1
    assert value("guardagent_dropped_total", {"reason": "overflow"}) == 0
    assert value("guardagent_bytes_sent_total") == stats.bytes_sent > 0
    assert value("guardagent_pending") == value("guardagent_in_flight") == 0
    assert value("guardagent_threads_alive") == stats.threads_alive
    assert value("guardagent_durable") == 0
    assert value("guardagent_breaker", {"state": "closed"}) == 1
    assert value("guardagent_breaker", {"state": "open"}) == 0
    assert 0 <= (value("guardagent_last_success_age_seconds") or 0) < 60


def test_text_is_strict_openmetrics(agent: Agent) -> None:
    """The strict parser takes what comes out, and every family says what it is."""
    text = generate_openmetrics(registered(agent)).decode()

    families = list(text_string_to_metric_families(text))
    assert len(families) == 11
    assert all(family.documentation for family in families)
    assert agent.stats().captured == 0


def test_the_default_agent_may_come_later(backend: Backend) -> None:
    """Before there is an agent nothing is told; afterwards the one there is."""
    registry = registered()

    before = generate_latest(registry)
    guardagent.init(**quick_settings(backend.url))

    assert before == b""
    assert registry.get_sample_value("guardagent_captured_total") == 0
