"""The structlog processor, in real structlog configurations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from guardagent import Agent, ConfigError, SecurityEvent
from guardagent.contrib.structlog import GuardAgentProcessor
from tests.contrib.conftest import Arrived

Configure = Callable[..., Any]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configure structlog with the processor, and return a logger and what it rendered."""
    rendered: list[dict[str, Any]] = []

    def keep(_logger: Any, _method: str, entry: Any) -> Any:
        rendered.append(dict(entry))
        raise structlog.DropEvent

    def build(*args: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
        processor = GuardAgentProcessor(*args, **options)
        structlog.configure(processors=[structlog.stdlib.add_log_level, processor, keep])
        return structlog.get_logger(), rendered

    yield build
    structlog.reset_defaults()


def test_entries_are_events(agent: Agent, arrived: Arrived, configure: Configure) -> None:
    """An entry of the level, or above, is an event; every entry goes on unchanged."""
    log, rendered = configure(agent=agent)

    log.info("quiet", user="ann")
    log.bind(logger="shop.login").warning(
        "wrong password", ip_address="203.0.113.9", user="ann", password="hunter2"
    )

    (event,) = arrived(agent)
    assert (event["event_type"], event["reason"]) == ("log_record", "wrong password")
    assert event["ip_address"] == "203.0.113.9"
    assert event["metadata"] == {
        "user": "ann", "password": "[REDACTED]", "logger": "shop.login", "level": "warning",
    }  # fmt: skip
    assert rendered[0] == {"event": "quiet", "level": "info", "user": "ann"}
    assert rendered[1]["password"] == "hunter2"


@pytest.mark.parametrize("method", ["warn", "error", "exception", "critical", "fatal"])
def test_every_method_has_a_level(
    agent: Agent, arrived: Arrived, configure: Configure, method: str
) -> None:
    """The names structlog has for levels are known."""
    log, _ = configure("WARNING", agent=agent)

    getattr(log, method)("something")
    log.msg("no level is one of information")

    assert len(arrived(agent)) == 1


def test_stdlib_loggers_have_names(agent: Agent, arrived: Arrived) -> None:
    """Where structlog logs through logging, the logger's name decides on the type."""
    processor = GuardAgentProcessor(agent=agent, event_types={"auth": "authentication_failed"})
    log = structlog.wrap_logger(
        logging.getLogger("auth.web"),
        processors=[processor, structlog.processors.KeyValueRenderer()],
    )

    log.warning("wrong password")

    assert arrived(agent)[0]["event_type"] == "authentication_failed"


def test_the_agent_is_not_heard(agent: Agent, arrived: Arrived) -> None:
    """Not even when the agent's loggers are rendered by structlog."""
    processor = GuardAgentProcessor(agent=agent)
    entry = {"event": "said by the agent", "logger": "guardagent.delivery"}

    assert processor(None, "error", entry) is entry
    assert arrived(agent) == []


def test_an_own_mapping(agent: Agent, arrived: Arrived, configure: Configure) -> None:
    """The application may choose entries, and make the events itself."""
    log, _ = configure(
        agent=agent,
        to_event=lambda entry: SecurityEvent(event_type=entry["kind"]) if "kind" in entry else None,
    )

    log.error("not this")
    log.error("this", kind="ip_banned")

    assert [event["event_type"] for event in arrived(agent)] == ["ip_banned"]


def test_a_mapping_that_raises_costs_no_log_line(
    agent: Agent, arrived: Arrived, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, without the entry, and logging goes on."""
    log, rendered = configure(agent=agent, to_event=lambda entry: entry["missing"])

    log.error("one hunter2")
    log.error("two hunter2")

    assert [entry["event"] for entry in rendered] == ["one hunter2", "two hunter2"]
    assert arrived(agent) == []
    said = [line for line in caplog.messages if "could not be captured" in line]
    assert said == ["A log entry could not be captured (KeyError)."]


def test_rate_limit(agent: Agent, arrived: Arrived, configure: Configure) -> None:
    """A flood is cut to so many events."""
    log, rendered = configure(agent=agent, rate_limit=(3, 3_600))

    for _ in range(10):
        log.warning("again")

    assert len(arrived(agent)) == 3
    assert len(rendered) == 10


def test_wrong_arguments_are_named() -> None:
    """A wrong argument says which one."""
    with pytest.raises(ConfigError, match="level: given 'LOUD'"):
        GuardAgentProcessor("LOUD")
