"""What tests of an application need: an agent that keeps what it is given, and a clock to set."""

from __future__ import annotations

from guardagent.testing.clock import ManualClock
from guardagent.testing.recording import RecordingAgent, RecordingTransport

__all__ = ["ManualClock", "RecordingAgent", "RecordingTransport"]
