"""posthog's client."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tests.benchmarks.sample import nested_fields

from .subject import Subject

__all__ = ["Posthog"]


class Posthog(Subject):
    """One capture per event, its fields as properties."""

    module = "posthog"

    def setup(self, port: int) -> None:
        package = import_module("posthog")
        self._client = package.Posthog(
            "bench-key", host=f"http://127.0.0.1:{port}", max_queue_size=65_000
        )
        self.capture = self._capture

    def build(self) -> dict[str, Any]:
        return nested_fields()

    def _capture(self, event: Any) -> object:
        return self._client.capture("penetration_attempt", distinct_id="bench", properties=event)

    def flush(self) -> None:
        self._client.flush()

    def close(self) -> None:
        self._client.shutdown()
