"""libhoney, Honeycomb's older client of the same shape: a queue, a thread, requests."""

from __future__ import annotations

from importlib import import_module
from operator import methodcaller
from typing import Any

from tests.benchmarks.sample import nested_fields

from .subject import Subject

__all__ = ["Libhoney"]


class Libhoney(Subject):
    """One event object per event, its fields added as they are."""

    module = "libhoney"
    # What it cannot send it drops.
    capacity = 0

    def setup(self, port: int) -> None:
        package = import_module("libhoney")
        transmission = import_module("libhoney.transmission").Transmission
        self._event = import_module("libhoney.event").Event
        self._client = package.Client(
            writekey="0" * 32,
            dataset="bench",
            api_host=f"http://127.0.0.1:{port}",
            transmission_impl=transmission(max_pending=65_000),
        )
        self.capture = methodcaller("send")

    def build(self) -> Any:
        return self._event(data=nested_fields(), client=self._client)

    def flush(self) -> None:
        self._client.flush()

    def close(self) -> None:
        self._client.close()
