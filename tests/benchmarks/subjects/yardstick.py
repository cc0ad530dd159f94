"""The floor that no agent can pass, and the encoders that the CPU budgets are stated in."""

from __future__ import annotations

import json
import queue
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.benchmarks.sample import wire_fields

from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JSONDumps", "Nothing", "ORJSONDumps", "QueuePut"]


class Nothing(Subject):
    """Take no notice of any event: what an application costs without an agent."""

    delivers = False

    def setup(self, port: int) -> None:
        self.capture = bool

    def build(self) -> None:
        """Make nothing."""


class QueuePut(Subject):
    """Put a dict on a bare queue, the least that a thread-based agent does."""

    delivers = False
    events = 50_000

    def setup(self, port: int) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self.capture = self._queue.put_nowait

    def flush(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()


class JSONDumps(Subject):
    """Encode the event as a dict with the standard library."""

    delivers = False
    events = 50_000

    def setup(self, port: int) -> None:
        self._event = wire_fields()
        self.capture = self._encoder()

    def build(self) -> dict[str, Any]:
        return self._event

    def _encoder(self) -> Callable[[Any], object]:
        return json.dumps


class ORJSONDumps(JSONDumps):
    """Encode the event as a dict with orjson."""

    module = "orjson"

    def _encoder(self) -> Callable[[Any], object]:
        dumps: Callable[[Any], object] = import_module("orjson").dumps
        return dumps
