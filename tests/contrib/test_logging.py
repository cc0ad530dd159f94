"""The logging handler, on real loggers with a real backend."""

from __future__ import annotations

import logging
import logging.config
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import guardagent
from guardagent import Agent, ConfigError, SecurityEvent
from guardagent.contrib.logging import GuardAgentHandler
from tests.conftest import MakeAgent, quick_settings
from tests.contrib.conftest import Arrived
from tests.support.accounts import Errors, assert_balanced
from tests.support.backend import Backend

Listen = Callable[..., GuardAgentHandler]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Put a handler on the root logger, which hears everything."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def put(*args: Any, **options: Any) -> GuardAgentHandler:
        handler = GuardAgentHandler(*args, **options)
        root.setLevel(logging.DEBUG)
        root.addHandler(handler)
        return handler

    yield put
    root.setLevel(level)
    root.handlers[:] = handlers


log = logging.getLogger("shop.checkout")


def test_records_are_events(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """A record of the level, or above, is an event with its message, logger, level and place."""
    listen(agent=agent)

    log.info("quiet")
    log.warning("%s tried %d times", "ann", 3)

    (event,) = arrived(agent)
    assert event["event_type"] == "log_record"
    assert event["reason"] == "ann tried 3 times"
    assert event["action_taken"] == "logged"
    place = event["metadata"].pop("place")
    assert place.startswith("test_logging:")
    assert event["metadata"] == {"logger": "shop.checkout", "level": "warning"}


def test_extras_fill_the_event(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """What a record brings along are the event's fields and metadata; secrets are taken out."""
    listen(agent=agent)
    extra = {"ip_address": "203.0.113.9", "status_code": 401, "event_type": "authentication_failed",
             "user": "ann", "password": "hunter2", "request": object()}  # fmt: skip

    log.warning("wrong password", extra=extra)

    (event,) = arrived(agent)
    assert event["event_type"] == "authentication_failed"
    assert (event["ip_address"], event["status_code"]) == ("203.0.113.9", 401)
    assert event["metadata"]["user"] == "ann"
    assert event["metadata"]["password"] == "[REDACTED]"
    assert "request" not in event["metadata"]


def test_exceptions_tell_their_kind(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """An exception's kind is told, not its text and not the traceback."""
    listen("ERROR", agent=agent)

    try:
        int("hunter2")
    except ValueError:
        log.exception("the checkout failed")

    (event,) = arrived(agent)
    assert event["reason"] == "the checkout failed"
    assert event["metadata"]["exception"] == "builtins.ValueError"
    assert "hunter2" not in str(event)


def test_types_by_logger(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """A logger's event type holds for the loggers below it, unless they have their own."""
    types = {"auth": "authentication_failed", "auth.limits": "rate_limited"}
    listen(agent=agent, event_type="other", event_types=types)

    for name in ("auth", "auth.web", "auth.limits.ip", "authors", "shop"):
        logging.getLogger(name).warning("something")

    assert [event["event_type"] for event in arrived(agent)] == [
        "authentication_failed", "authentication_failed", "rate_limited", "other", "other",
    ]  # fmt: skip


def test_an_own_mapping(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """The application may choose records, and make the events itself."""

    def to_event(record: logging.LogRecord) -> Any:
        if record.levelno < logging.CRITICAL:
            return None
        return SecurityEvent(event_type="emergency_mode_activated", reason=record.getMessage())

    listen(agent=agent, to_event=to_event)

    log.warning("not this")
    log.critical("this")

    (event,) = arrived(agent)
    assert (event["event_type"], event["reason"]) == ("emergency_mode_activated", "this")


@pytest.mark.parametrize("own", [False, True], ids=["mapping", "to_event"])
def test_rate_limit(agent: Agent, arrived: Arrived, listen: Listen, own: bool) -> None:
    """A flood is cut to so many events, whoever makes them."""

    def to_event(record: logging.LogRecord) -> SecurityEvent:
        return SecurityEvent(event_type="log_record", reason=record.getMessage())

    listen(agent=agent, rate_limit=(2, 3_600), to_event=to_event if own else None)

    for number in range(10):
        log.warning("line %d", number)

    assert [event["reason"] for event in arrived(agent)] == ["line 0", "line 1"]


@pytest.mark.parametrize("own", [False, True], ids=["mapping", "to_event"])
def test_left_out_records_are_told(
    backend: Backend, agent: Agent, arrived: Arrived, listen: Listen, own: bool
) -> None:
    """The event after those left out tells their number."""

    def to_event(record: logging.LogRecord) -> SecurityEvent:
        return SecurityEvent(event_type="log_record", reason=record.getMessage())

    listen(agent=agent, rate_limit=(1, 0.05), to_event=to_event if own else None)

    logged = 0
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not any(
        "left_out" in e["metadata"] for e in arrived(agent)
    ):
        log.warning("again")
        logged += 1

    events = arrived(agent)
    left_out = sum(event["metadata"].get("left_out", 0) for event in events)
    assert len(events) + left_out == logged
    assert left_out > 0


def test_no_limit(agent: Agent, arrived: Arrived, listen: Listen) -> None:
    """Without a limit everything is captured."""
    listen(agent=agent, rate_limit=None)

    for number in range(150):
        log.warning("line %d", number)

    assert len(arrived(agent)) == 150


def test_the_agent_is_never_heard(backend: Backend, make_agent: MakeAgent, listen: Listen) -> None:
    """On the root logger at DEBUG, with the backend away, nothing of the agent's is an event.

    Neither what it says, nor urllib3 and requests on its threads, nor the application's callbacks.
    """
    errors = Errors()

    def on_error(*given: Any) -> None:
        errors(*given)
        log.error("a callback of the application's")

    agent = make_agent(retry_attempts=1, on_error=on_error)
    listen(logging.DEBUG, agent=agent, rate_limit=None)

    backend.down()
    log.warning("one")
    assert errors.wait(3)
    backend.up()
    logging.getLogger("urllib3").warning("two, on the application's own thread")
    assert agent.flush(timeout=20.0)

    lines = [one["reason"] for request in backend.requests for one in request.records]
    assert sorted(set(lines)) == ["one", "two, on the application's own thread"]
    assert agent.stats().dropped["recursive"] == 0
    assert_balanced(agent)


def test_a_full_queue_does_not_stall(
    make_agent: MakeAgent, backend: Backend, listen: Listen
) -> None:
    """On the root logger at DEBUG, where a full queue blocks: nothing is lost and nobody is stuck.

    The thread that waits for room is inside the handler, and the thread that makes room logs.
    """
    agent = make_agent(
        overflow="block", block_timeout=5.0, queue_capacity=5, buffer_size=5, spool_max_records=5
    )
    listen(logging.DEBUG, agent=agent, rate_limit=None)

    for number in range(50):
        log.info("line %d", number)
    assert agent.flush(timeout=20.0)

    assert len(backend.received) == 50
    assert agent.stats().dropped["overflow"] == 0


def test_a_stopped_agent_starts_no_avalanche(agent: Agent, listen: Listen) -> None:
    """What the agent says of refused events is not captured in turn."""
    listen(logging.DEBUG, agent=agent)
    agent.stop()

    for _ in range(20):
        log.warning("said too late")

    assert agent.stats().dropped["closed"] == 20
    assert_balanced(agent)


def test_bad_lines_are_told_the_way_of_logging(
    agent: Agent, arrived: Arrived, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line whose arguments do not fit raises nothing and costs no other."""
    apart = logging.getLogger("apart")
    apart.propagate = False
    apart.addHandler(GuardAgentHandler(agent=agent))

    apart.warning("%d apples", "many")
    apart.warning("fine")
    apart.handlers.clear()

    assert [event["reason"] for event in arrived(agent)] == ["fine"]
    assert "Logging error" in capsys.readouterr().err


def test_configured_by_a_dictionary(backend: Backend, arrived: Arrived, listen: Listen) -> None:
    """`logging.config` can make it, and then it uses the process-wide agent."""
    listen()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "guard": {
                    "class": "guardagent.contrib.logging.GuardAgentHandler",
                    "level": "ERROR",
                    "event_types": {"shop": "suspicious_request"},
                    "rate_limit": [10, 60],
                }
            },
            "loggers": {"shop": {"handlers": ["guard"], "propagate": False}},
        }
    )
    agent = guardagent.init(**quick_settings(backend.url))

    try:
        log.warning("not this")
        log.error("this")
        (event,) = arrived(agent)
    finally:
        logging.getLogger("shop").handlers.clear()
        logging.getLogger("shop").propagate = True

    assert (event["event_type"], event["reason"]) == ("suspicious_request", "this")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "LOUD"}, "level: given 'LOUD'"),
        ({"level": 1.5}, "level: given 1.5"),
        ({"rate_limit": 5}, "rate_limit: given 5"),
        ({"rate_limit": (0, 1)}, "rate_limit: given"),
        ({"rate_limit": (1, "x")}, "rate_limit: given"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    """A wrong argument says which one, and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        GuardAgentHandler(**options)
