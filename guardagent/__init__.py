"""Report security events from any Python application without slowing it down or losing them.

The names load when they are first used, so that `import guardagent` costs a millisecond.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from guardagent._version import __version__

if TYPE_CHECKING:
    from guardagent._default import capture, get_agent, init
    from guardagent.agent import Agent
    from guardagent.config import AgentConfig
    from guardagent.errors import BufferFull, ConfigError, EventError, GuardAgentError
    from guardagent.events import SecurityEvent, SecurityMetric
    from guardagent.rules import DynamicRules
    from guardagent.status import AgentStatus, Stats

_HOMES = {
    "Agent": "agent",
    "AgentConfig": "config",
    "AgentStatus": "status",
    "BufferFull": "errors",
    "ConfigError": "errors",
    "DynamicRules": "rules",
    "EventError": "errors",
    "GuardAgentError": "errors",
    "SecurityEvent": "events",
    "SecurityMetric": "events",
    "Stats": "status",
    "capture": "_default",
    "get_agent": "_default",
    "init": "_default",
}

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentStatus",
    "BufferFull",
    "ConfigError",
    "DynamicRules",
    "EventError",
    "GuardAgentError",
    "SecurityEvent",
    "SecurityMetric",
    "Stats",
    "__version__",
    "capture",
    "get_agent",
    "init",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
