"""The logging handler: chosen log records become events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from guardagent.agent import Agent
from guardagent.contrib._records import DEFAULT_TYPE, RATE_LIMIT, Records, is_own, level_number

__all__ = ["GuardAgentHandler"]

#: What every record has; the rest was given by `extra`.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"asctime", "message", "taskName"}


class GuardAgentHandler(logging.Handler):
    """Captures records as events.

    `extra` of the record fills the event: names of its fields (`ip_address`, `endpoint`,
    `event_type`, ...) those, others its metadata. The message is the event's `reason`. Records of
    the agent's own are never captured, nor those of urllib3 and requests on its threads.

    Args:
        level: the lowest level captured.
        agent: report to this one; otherwise to the process-wide one.
        event_type: of records whose logger is not in `event_types`.
        event_types: event types by the names of loggers, which stand for those below them too.
        to_event: makes the event (or what `Agent.capture` takes) of a record instead; None for a
            record that is none.
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
        to_event: Callable[[logging.LogRecord], Any] | None = None,
        rate_limit: tuple[int, float] | None = RATE_LIMIT,
    ) -> None:
        super().__init__(level_number(level))
        self._records = Records(agent, event_type, event_types, rate_limit)
        self._to_event = to_event

    def filter(self, record: logging.LogRecord) -> Any:
        """Leave the agent's own records out, then ask the filters."""
        return not is_own(record.name) and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Capture a record; what goes wrong is told the way of logging (`handleError`)."""
        try:
            if self._to_event is None:
                self._capture(record)
                return
            event = self._to_event(record)
            if event is not None:
                self._records.hand_on(event)
        except Exception:  # bad arguments of a log line, or the application's to_event
            self.handleError(record)

    def _capture(self, record: logging.LogRecord) -> None:
        given = record.__dict__
        extras = {name: given[name] for name in given.keys() - _STANDARD}
        more: dict[str, Any] = {"place": f"{record.module}:{record.lineno}"}
        if record.exc_info and record.exc_info[0] is not None:
            kind = record.exc_info[0]
            more["exception"] = f"{kind.__module__}.{kind.__qualname__}"
        message = record.getMessage()
        self._records.capture(record.name, record.levelname, message, extras, **more)
