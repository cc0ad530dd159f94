"""Stands between the application and its agent: times each capture and keeps its key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from guardagent import Agent, EventError, SecurityEvent, SecurityMetric
from guardagent.events import coerce

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guardagent import AgentConfig

__all__ = ["Latency", "Probe", "ProbedAgent"]


@attrs.frozen
class Latency:
    """How long captures took, in seconds."""

    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Return the percentiles (nearest rank); zeros for no captures."""
        ranked = sorted(seconds) or [0.0]

        def percentile(share: float) -> float:
            return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

        return cls(percentile(0.50), percentile(0.99), ranked[-1])


class Probe:
    """Watches captures, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._seconds: list[float] = []
        self._keys: list[str] = []
        self._types: Counter[str] = Counter()

    def watch(self, capture: Callable[[Any], bool], item: object) -> bool:
        """Capture, and note how long it took and under which key."""
        given = _with_key(item)
        began = time.perf_counter()
        is_taken = capture(given)
        seconds = time.perf_counter() - began
        if isinstance(given, (SecurityEvent, SecurityMetric)):  # the agent refuses all else
            with self._lock:
                self._seconds.append(seconds)
                self._keys.append(given.idempotency_key)
                if isinstance(given, SecurityEvent):
                    self._types[given.event_type] += 1
        return is_taken

    @property
    def count(self) -> int:
        """How often something was captured."""
        return len(self._keys)

    def count_of(self, event_type: str) -> int:
        """Return how often an event of this type was captured."""
        return self._types[event_type]

    def types(self) -> Mapping[str, int]:
        """Return the types of the events captured, and how often."""
        with self._lock:
            return dict(self._types.most_common())

    def keys(self) -> list[str]:
        """Return the key of everything captured."""
        with self._lock:
            return list(self._keys)

    def latency(self) -> Latency:
        """Return how long the captures took."""
        with self._lock:
            return Latency.of(self._seconds)


class ProbedAgent(Agent):
    """An agent whose captures are watched, whoever makes them."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        self.probe = Probe()

    def capture(self, event: object) -> bool:
        """Take a copy of an event or metric for delivery; noted by the probe."""
        return self.probe.watch(super().capture, event)


def _with_key(item: object) -> object:
    """Make an event of what only looks like one, as the agent would: that one's key is seen.

    guard-core has such objects, where it reports on its own patterns.
    """
    if isinstance(item, (SecurityEvent, SecurityMetric)):
        return item
    try:
        return coerce(item)
    except EventError:
        return item  # the agent counts it as invalid
