"""sentry-sdk's structured logs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tests.benchmarks.sample import flat_fields

from .subject import Subject

__all__ = ["SentryLogs"]


class SentryLogs(Subject):
    """One log record per event, its fields as attributes."""

    module = "sentry_sdk"
    # Its batcher holds 1,000 and drops what comes after.
    burst = 500
    # What it cannot send it drops.
    capacity = 0

    def setup(self, port: int) -> None:
        self._sdk = import_module("sentry_sdk")
        self._sdk.init(dsn=f"http://key@127.0.0.1:{port}/1", enable_logs=True)
        self._warning = import_module("sentry_sdk.logger").warning
        self.capture = self._log

    def build(self) -> dict[str, Any]:
        return flat_fields()

    def _log(self, event: Any) -> object:
        return self._warning("penetration_attempt", attributes=event)

    def flush(self) -> None:
        self._sdk.flush(timeout=60)

    def close(self) -> None:
        self._sdk.get_client().close(timeout=5)
