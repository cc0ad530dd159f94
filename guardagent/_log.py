"""The agent's own log lines: heard by the application's handlers, never captured as events."""

from __future__ import annotations

import logging

from guardagent._quiet import quiet

__all__ = ["say"]

# Without a handler of its own a library's warnings go to standard error.
_root = logging.getLogger("guardagent")
if not _root.handlers:
    _root.addHandler(logging.NullHandler())


def say(log: logging.Logger, level: int, message: str, *args: object) -> None:
    """Log a line without payload, key or header; a handler that captures is not heard meanwhile."""
    try:
        with quiet():
            log.log(level, message, *args)
    except Exception:  # noqa: S110 - a handler of the application's raised: nowhere is left to say it
        pass
