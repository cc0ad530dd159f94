"""What the applications here share: an agent of the test's settings, and a journal of captures.

The journal is a file that every process of a server appends to, one line for what one call
captured, so that a test knows of captures that no answer tells of: those at import, in a master
process, or after a server has been told to end.
"""

from __future__ import annotations

import json
import os
from typing import Any

from guardagent import Agent, AgentConfig, SecurityEvent

#: Of the test: `settings` of the agent, the paths `journal` and `gate`.
GIVEN: dict[str, Any] = json.loads(os.environ["SERVED"])

agent = Agent(AgentConfig(**GIVEN["settings"]))


def capture(count: int, when: str) -> None:
    """Capture events and write their keys down."""
    events = [
        SecurityEvent(event_type="served", metadata={"pid": os.getpid(), "when": when})
        for _ in range(count)
    ]
    note(when, [event.idempotency_key for event in events if agent.capture(event)])


def note(when: str, keys: list[str] | None = None) -> None:
    """Append a line, in one write so that those of several processes never mix."""
    line = json.dumps({"pid": os.getpid(), "when": when, "keys": keys or []})
    file = os.open(GIVEN["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def is_gate_open() -> bool:
    """Tell whether a request that waits may go on."""
    return os.path.exists(GIVEN["gate"])  # noqa: PTH110 - no more imports than needed
