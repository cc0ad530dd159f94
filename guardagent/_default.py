"""The process-wide agent, for applications that want just one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.events import SecurityEvent, SecurityMetric

__all__ = ["capture", "get_agent", "init"]

_lock = threading.RLock()  # guards replacing the agent
_agent: Agent | None = None


def init(**settings: Any) -> Agent:
    """Make the process-wide agent, in place of the one there was, which delivers what it has.

    Args:
        settings: fields of `AgentConfig`; those not given come from `GUARDAGENT_<NAME>`.

    Raises:
        ConfigError: a setting is wrong; the agent there was stays.
    """
    agent = Agent(AgentConfig.from_env(**settings))
    former = replace(agent)
    if former is not None:
        former.stop()
    return agent


def replace(agent: Agent | None) -> Agent | None:
    """Put another agent in the place of the process-wide one; return that, still running."""
    global _agent
    with _lock:
        former, _agent = _agent, agent
    return former


def get_agent() -> Agent | None:
    """Return the process-wide agent; None before `init`."""
    return _agent


def capture(event: SecurityEvent | SecurityMetric | Mapping[str, Any] | object) -> bool:
    """Capture with the process-wide agent; False when there is none. See `Agent.capture`."""
    agent = _agent
    return False if agent is None else agent.capture(event)
