"""What tests of an application need: an agent that keeps what it is given, and a clock to set.

The names load when they are first used: every pytest run loads the plugin beside them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardagent.testing.clock import ManualClock
    from guardagent.testing.recording import RecordingAgent, RecordingTransport

__all__ = ["ManualClock", "RecordingAgent", "RecordingTransport"]

_HOMES = {"ManualClock": "clock", "RecordingAgent": "recording", "RecordingTransport": "recording"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
