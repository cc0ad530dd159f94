"""The agent's own log lines: few, and never events."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import (
    Errors,
    assert_balanced,
    assert_delivered,
    capture,
    event,
)
from tests.support.answers import Status
from tests.support.backend import Backend


def test_logging_everything_through_the_agent(backend: Backend, make_agent: MakeAgent) -> None:
    """With a handler on the root logger that captures, an outage makes no event of its own."""
    errors = Errors()
    agent = make_agent(retry_attempts=1, on_error=errors)
    refused: list[str] = []

    class Capturing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            mapping = {"event_type": "log", "reason": record.getMessage()}
            if not agent.capture(mapping):
                refused.append(record.name)

    handler = Capturing(logging.DEBUG)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        backend.down()
        keys = capture(agent, 5)
        assert errors.wait(3)
        logging.getLogger("application").warning("said by the application")
        backend.up()
        assert agent.flush(timeout=20.0)
        assert agent.stop(timeout=10.0)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)

    stats = agent.stats()
    assert_balanced(agent)
    lines = [one["reason"] for request in backend.requests for one in request.records
             if one["event_type"] == "log" and one["idempotency_key"] in backend.keys]  # fmt: skip
    assert lines == ["said by the application"]
    assert stats.delivered == len(keys) + 1
    assert refused
    assert stats.dropped["recursive"] > 0


@pytest.mark.parametrize("state", ["stopped", "disabled"])
def test_logging_everything_through_an_agent_that_takes_nothing(
    backend: Backend, make_agent: MakeAgent, state: str
) -> None:
    """A handler that captures into a stopped or disabled agent starts no avalanche."""
    agent = make_agent(api_key=None) if state == "disabled" else make_agent()
    agent.stop(timeout=5.0)
    emitted: list[str] = []

    class Capturing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emitted.append(record.getMessage())
            agent.capture({"event_type": "log", "reason": record.getMessage()})

    handler = Capturing(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        for _ in range(20):
            logging.getLogger("application").warning("said by the application")
    finally:
        logging.getLogger().removeHandler(handler)

    assert emitted.count("said by the application") == 20
    assert len(emitted) < 25
    assert_balanced(agent)
    assert agent.stats().captured >= 20
    assert backend.connections == 0


def test_outage_is_two_lines_in_the_log(
    backend: Backend, make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when a row of failures begins, one when it is over, none in between."""
    caplog.set_level(logging.INFO, "guardagent")
    errors = Errors()
    backend.script(*[Status(500, body=b"<html>" + b"x" * 5_000)] * 6)
    agent = make_agent(retry_attempts=0, on_error=errors)
    keys = capture(agent, 3)
    assert errors.wait(5)

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    lines = [line.getMessage() for line in caplog.records if line.name.startswith("guardagent")]
    assert len(lines) == 2
    assert max(map(len, lines)) < 300


def test_losses_are_one_line_in_the_log(
    backend: Backend, make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    """However many events are lost, the log hears of it once in a while, `on_drop` of each."""
    losses: list[int] = []
    agent = make_agent(on_drop=lambda _, n: losses.append(n))
    agent.stop(timeout=5.0)

    for _ in range(1_000):
        agent.capture(event())

    lines = [line for line in caplog.records if line.name.startswith("guardagent")]
    assert len(lines) == 1
    assert sum(losses) == agent.stats().dropped["closed"] == 1_000
