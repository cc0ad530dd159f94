"""What the scripts share: settings from the argument, reports as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from guardagent import Agent, AgentConfig, SecurityEvent

#: The script's argument: `settings` for the agent, and whatever else the test says.
ARGUMENTS: dict[str, Any] = json.loads(sys.argv[1])


def build(**changes: Any) -> Agent:
    """Build an agent as the test wants it."""
    return Agent(AgentConfig(**{**ARGUMENTS["settings"], **changes}))


def capture(agent: Agent, count: int = 1, **metadata: Any) -> list[str]:
    """Capture events that carry this process's id; return the keys of those taken."""
    metadata = {"pid": os.getpid(), **metadata}
    events = [SecurityEvent(event_type="scripted", metadata=metadata) for _ in range(count)]
    return [event.idempotency_key for event in events if agent.capture(event)]


def report(**values: Any) -> None:
    """Print one line of JSON, in a single write so that lines of several processes never mix."""
    os.write(1, (json.dumps(values) + "\n").encode())


def books(agent: Agent) -> dict[str, Any]:
    """Return the counters that the ledger equation is made of."""
    stats = agent.stats()
    return {
        "total": stats.captured,
        "delivered": stats.delivered,
        "pending": stats.pending,
        "dropped": dict(stats.dropped),
        "balanced": stats.captured == stats.delivered + stats.pending + sum(stats.dropped.values()),
    }


def heard() -> str:
    """Wait for a word from the test."""
    return sys.stdin.readline().strip()
