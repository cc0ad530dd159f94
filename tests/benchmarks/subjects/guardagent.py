"""guardagent, through the names it promises and nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .subject import Subject

__all__ = ["GuardAgent"]


class GuardAgent(Subject):
    """An agent with the default settings, but for the address and the install id."""

    module = "guardagent"
    names = "from guardagent import Agent, AgentConfig, SecurityEvent"
    events = 50_000
    capacity = 50_000

    def setup(self, port: int) -> None:
        package = import_module("guardagent")
        config = package.AgentConfig(
            api_key="bench-key-0123456789",
            endpoint=f"http://127.0.0.1:{port}",
            project_id="bench",
            install_id="8f14e45f-ceea-467f-a9b1-0c4d2b6e5d10",
        )
        self._event = package.SecurityEvent
        self._agent = package.Agent(config)
        self._agent.start()
        self.capture = self._agent.capture

    def build(self) -> Any:
        return self._event(
            event_type="penetration_attempt",
            ip_address="203.0.113.77",
            user_agent="Mozilla/5.0 (X11; Linux x86_64)",
            action_taken="request_blocked",
            reason="SQL injection, bench-marked",
            endpoint="/api/orders/search",
            method="POST",
            status_code=403,
            response_time=0.0123,
            metadata={"rule": "sqli-7", "attempt": 3, "tenant": "acme-eu"},
        )

    def flush(self) -> None:
        self._agent.flush(60.0)

    def close(self) -> None:
        self._agent.stop(5.0)
