"""Fixtures of the shims' tests: what arrived, and no process-wide agent left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardagent import Agent, get_agent
from guardagent._default import replace
from tests.conftest import MakeAgent
from tests.support.backend import Backend

Arrived = Callable[..., list[dict[str, Any]]]


def requests_in(metrics: list[dict[str, Any]]) -> float:
    """Add up the requests that metrics tell of."""
    return sum(one["value"] for one in metrics if one["metric_type"] == "request_count")


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent that hands metrics over when it is flushed, and not in the middle of a test."""
    return make_agent(flush_interval=60.0)


@pytest.fixture(autouse=True)
def no_default(no_leaks: None) -> Iterator[None]:
    """Begin and end without a process-wide agent."""
    replace(None)
    yield
    left = get_agent()
    replace(None)
    if left is not None:
        left.stop(timeout=2.0)


@pytest.fixture
def arrived(backend: Backend) -> Arrived:
    """Flush an agent, and list the events the backend accepted; or its metrics."""

    def look(agent: Agent, kind: str = "events") -> list[dict[str, Any]]:
        assert agent.flush(timeout=10.0)
        bodies = [request.document for request in backend.requests]
        return [record for body in bodies for record in body[kind]]

    return look
