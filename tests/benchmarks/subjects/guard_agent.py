"""guard-agent, the asynchronous agent of the same backend, and its wrapper for threads."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from importlib import import_module
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GuardAgentAsync", "GuardAgentSync"]


class GuardAgentSync(Subject):
    """The wrapper that hands each event to a loop in another thread and waits for it."""

    module = "guard_agent"
    # Each burst is one request, and its rate limit is 100 requests a minute.
    burst = 500

    def setup(self, port: int) -> None:
        package = import_module("guard_agent")
        logging.getLogger("guard_agent").setLevel(logging.CRITICAL)
        self._event = package.SecurityEvent
        self._open(package, self._config(package, port))

    @staticmethod
    def _config(package: Any, port: int) -> Any:
        return package.AgentConfig(
            api_key="bench-key-0123456789",
            endpoint=f"http://127.0.0.1:{port}",
            buffer_size=65_000,
            install_id="8f14e45f-ceea-467f-a9b1-0c4d2b6e5d10",
        )

    def _open(self, package: Any, config: Any) -> None:
        self._handler = package.SyncGuardAgentHandler(config)
        self._handler.start()
        self.capture = self._handler.send_event

    def build(self) -> Any:
        return self._event(
            timestamp=datetime.now(timezone.utc),
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
        self._handler.flush_buffer()

    def close(self) -> None:
        self._handler.stop()


class GuardAgentAsync(GuardAgentSync):
    """The handler awaited in its loop.

    A whole burst runs in the loop at once: an application that awaits is in its loop already.
    """

    threaded = False

    def _open(self, package: Any, config: Any) -> None:
        self._handler = package.GuardAgentHandler(config)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._handler.start())

    def flush(self) -> None:
        self._loop.run_until_complete(self._handler.flush_buffer())

    def close(self) -> None:
        self._loop.run_until_complete(self._handler.stop())
        self._loop.close()

    def time_ready(self, events: Iterable[Any]) -> list[int]:
        return self._loop.run_until_complete(self._timed(events))

    def time_built(self, count: int) -> list[int]:
        return self._loop.run_until_complete(self._timed_built(count))

    def pour(self, count: int) -> None:
        self._loop.run_until_complete(self._poured(count))

    async def _timed(self, events: Iterable[Any]) -> list[int]:
        send, times = self._handler.send_event, []
        for event in events:
            began = perf_counter_ns()
            await send(event)
            times.append(perf_counter_ns() - began)
        return times

    async def _timed_built(self, count: int) -> list[int]:
        send, build, times = self._handler.send_event, self.build, []
        for _ in range(count):
            began = perf_counter_ns()
            await send(build())
            times.append(perf_counter_ns() - began)
        return times

    async def _poured(self, count: int) -> None:
        send, build = self._handler.send_event, self.build
        for _ in range(count):
            await send(build())
