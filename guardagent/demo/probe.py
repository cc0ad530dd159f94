"""Stands between the application and its agent: times each capture and keeps its key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from guardagent import SecurityEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardagent import Agent, SecurityMetric

__all__ = ["Latency", "Probe"]


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
    """Captures through an agent, from any thread."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()  # guards the three below
        self._seconds: list[float] = []
        self._keys: list[str] = []
        self._types: Counter[str] = Counter()

    def capture(self, item: SecurityEvent | SecurityMetric) -> bool:
        """Capture, and note how long it took and under which key."""
        began = time.perf_counter()
        is_taken = self._agent.capture(item)
        seconds = time.perf_counter() - began
        with self._lock:
            self._seconds.append(seconds)
            self._keys.append(item.idempotency_key)
            if isinstance(item, SecurityEvent):
                self._types[item.event_type] += 1
        return is_taken

    @property
    def count(self) -> int:
        """How often something was captured."""
        return len(self._keys)

    def count_of(self, event_type: str) -> int:
        """Return how often an event of this type was captured."""
        return self._types[event_type]

    def keys(self) -> list[str]:
        """Return the key of everything captured."""
        with self._lock:
            return list(self._keys)

    def latency(self) -> Latency:
        """Return how long the captures took."""
        with self._lock:
            return Latency.of(self._seconds)
