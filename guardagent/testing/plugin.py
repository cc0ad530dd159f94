"""The pytest plugin: a fixture that puts a recording agent in the place of the process-wide one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from guardagent.testing.recording import RecordingAgent

__all__ = ["guardagent_agent"]


@pytest.fixture
def guardagent_agent() -> Iterator[RecordingAgent]:
    """An agent whose events can be listed and waited for; also behind `guardagent.capture`.

    No network is used. It is drained and stopped at the end, and the former agent is put back.
    """
    # Imported here: every pytest run of an application loads this plugin, few use it.
    from guardagent import _default
    from guardagent.testing.recording import RecordingAgent

    agent = RecordingAgent()
    former = _default.replace(agent)
    try:
        yield agent
    finally:
        _default.replace(former)
        agent.stop()
