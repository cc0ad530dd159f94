"""Report security events from any Python application without slowing it down or losing them."""

from __future__ import annotations

from guardagent._default import capture, get_agent, init
from guardagent._version import __version__
from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.errors import BufferFull, ConfigError, EventError, GuardAgentError
from guardagent.events import SecurityEvent, SecurityMetric
from guardagent.status import Stats

__all__ = [
    "Agent",
    "AgentConfig",
    "BufferFull",
    "ConfigError",
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
