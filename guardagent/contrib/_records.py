"""From a log record to an event: what the logging handler and the structlog processor share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from guardagent._quiet import MUTED
from guardagent.agent import Agent
from guardagent.contrib._agents import Reporting
from guardagent.contrib._throttle import Throttle
from guardagent.errors import ConfigError
from guardagent.events import SecurityEvent
from guardagent.plain import PLAIN_TYPES, describe

__all__ = ["DEFAULT_TYPE", "RATE_LIMIT", "Records", "is_own", "level_number"]

DEFAULT_TYPE = "log_record"
#: Events, and the seconds in which they are let through at most.
RATE_LIMIT = (100, 10.0)

#: Fields of an event that a record may bring along.
_FIELDS = frozenset(
    {
        "action_taken",
        "country",
        "endpoint",
        "event_type",
        "handler_name",
        "ip_address",
        "method",
        "pattern_matched",
        "response_time",
        "rule_type",
        "status_code",
        "user_agent",
    }
)
#: The agent's threads and loggers begin like this.
_OWN = "guardagent"


def is_own(logger: str) -> bool:
    """Tell whether the agent says this, or urllib3 and others on a thread of the agent's.

    A handler asks in its `filter`, never in `emit`: the lock around that one may be held by a
    thread which waits, in `capture`, for the very thread that says this (`overflow="block"`).
    """
    if logger == _OWN or logger.startswith(f"{_OWN}."):
        return True
    if threading.get_ident() in MUTED:
        return True
    return threading.current_thread().name.startswith(f"{_OWN}-")


class Records:
    """Captures records as events.

    Args:
        agent: report to this one; otherwise to the process-wide one.
        event_type: of records whose logger is not in `event_types`.
        event_types: event types by the names of loggers, which stand for those below them too.
        rate_limit: how many events in how many seconds; None for no limit.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        agent: Agent | None,
        event_type: str,
        event_types: Mapping[str, str] | None,
        rate_limit: tuple[int, float] | None,
    ) -> None:
        self._reporting = Reporting(agent)
        self._event_type = event_type
        self._event_types = dict(event_types or {})
        self._throttle = None if rate_limit is None else Throttle(*_checked(rate_limit))

    def capture(
        self, logger: str, level: str, message: str, extras: Mapping[str, Any], **more: Any
    ) -> None:
        """Capture what was logged.

        Args:
            logger: its name.
            level: its name.
            message: as it was written, with its arguments.
            extras: what the record brings along; what is no field of an event is metadata.
            more: further metadata.
        """
        left_out = self._take()
        if left_out is None:
            return
        fields = {name: value for name, value in extras.items() if name in _FIELDS}
        metadata = {
            name: value
            for name, value in extras.items()
            if name not in _FIELDS and _is_plain(value)
        }
        metadata.update(more, logger=logger, level=level.lower())
        if left_out:
            metadata["left_out"] = left_out
        event = {
            "event_type": self._type_of(logger),
            "action_taken": "logged",
            **fields,
            "reason": message,
            "metadata": metadata,
        }
        self._reporting.capture(event)

    def hand_on(self, event: Any) -> None:
        """Capture what the application made of a record."""
        left_out = self._take()
        if left_out is not None:
            if left_out and isinstance(event, SecurityEvent):
                event.metadata["left_out"] = left_out
            self._reporting.capture(event)

    def _take(self) -> int | None:
        return 0 if self._throttle is None else self._throttle.take()

    def _type_of(self, logger: str) -> str:
        types = self._event_types
        while types and logger:
            if logger in types:
                return types[logger]
            logger = logger.rpartition(".")[0]
        return self._event_type


def _checked(rate_limit: Any) -> tuple[int, float]:
    if isinstance(rate_limit, (tuple, list)) and len(rate_limit) == 2:
        limit, interval = rate_limit
        numbers = isinstance(limit, int) and isinstance(interval, (int, float))
        if numbers and limit > 0 and interval > 0:
            return limit, float(interval)
    allowed = "a pair of a number and of seconds, both above 0, or None"
    raise ConfigError(f"rate_limit: given {describe(rate_limit)}, allowed: {allowed}")


def _is_plain(value: object) -> bool:
    return type(value) in PLAIN_TYPES or isinstance(value, (dict, list, tuple))


def level_number(level: int | str) -> int:
    """Return a level's number.

    Raises:
        ConfigError: there is no such level.
    """
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise ConfigError(f"level: given {describe(level)}, allowed: a level of logging")
