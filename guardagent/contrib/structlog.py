"""The structlog processor: chosen log entries become events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from guardagent._log import say
from guardagent.agent import Agent
from guardagent.contrib._records import DEFAULT_TYPE, RATE_LIMIT, Records, is_own, level_number

__all__ = ["GuardAgentProcessor"]

_log = logging.getLogger(__name__)

#: Methods of structlog's loggers that are no names of levels.
_LEVELS = {"warn": logging.WARNING, "exception": logging.ERROR, "fatal": logging.CRITICAL}
#: What structlog's own processors add; an event has these anyway.
_KNOWN = frozenset({"event", "level", "logger", "timestamp", "exc_info", "exception", "stack"})


class GuardAgentProcessor:
    """Captures entries as events, and hands them on unchanged.

    Put it before the processors that render. Values of the entry fill the event: names of its
    fields (`ip_address`, `endpoint`, `event_type`, ...) those, others its metadata.

    Args:
        level: the lowest level captured.
        agent: report to this one; otherwise to the process-wide one.
        event_type: of entries whose logger is not in `event_types`.
        event_types: event types by the names of loggers, which stand for those below them too.
        to_event: makes the event (or what `Agent.capture` takes) of an entry instead; None for an
            entry that is none.
        rate_limit: how many events in how many seconds; None for no limit. The next event
            tells how many were left out, as `left_out` in its metadata.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        level: int | str = logging.WARNING,
        *,
        agent: Agent | None = None,
        event_type: str = DEFAULT_TYPE,
        event_types: Mapping[str, str] | None = None,
        to_event: Callable[[Mapping[str, Any]], Any] | None = None,
        rate_limit: tuple[int, float] | None = RATE_LIMIT,
    ) -> None:
        self._level = level_number(level)
        self._records = Records(agent, event_type, event_types, rate_limit)
        self._to_event = to_event
        self._has_failed = False

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Capture an entry; whatever goes wrong, it is handed on."""
        if _level_of(method_name) >= self._level:
            try:
                self._capture(logger, method_name, event_dict)
            except Exception as error:  # the application's to_event: its logging must go on
                self._complain(error)
        return event_dict

    def _capture(self, logger: Any, method: str, entry: Mapping[str, Any]) -> None:
        name = entry.get("logger") or getattr(logger, "name", None)
        name = name if isinstance(name, str) else ""
        if is_own(name):
            return
        if self._to_event is not None:
            event = self._to_event(entry)
            if event is not None:
                self._records.hand_on(event)
            return
        extras = {key: value for key, value in entry.items() if key not in _KNOWN}
        level = logging.getLevelName(_level_of(method))
        self._records.capture(name, level, str(entry.get("event", "")), extras)

    def _complain(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            kind = type(error).__name__
            say(_log, logging.WARNING, "A log entry could not be captured (%s).", kind)


def _level_of(method: str) -> int:
    number = _LEVELS.get(method)
    if number is None:
        number = logging.getLevelName(method.upper())
    return number if isinstance(number, int) else logging.INFO
