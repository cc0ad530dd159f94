"""An agent that does all its work but the sending, and shows what would have been sent."""

from __future__ import annotations

import json
import threading
from typing import Any

from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.errors import DeliveryError
from guardagent.spool.protocol import Batch
from guardagent.transport.protocol import Receipt

__all__ = ["RecordingAgent", "RecordingTransport"]


class RecordingTransport:
    """Accepts every batch and keeps its content, or fails as told; uses no network."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()  # guards the three below
        self._records: dict[str, list[dict[str, Any]]] = {"events": [], "metrics": []}
        self._failures: list[DeliveryError] = []
        self.batch_ids: list[str] = []

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        """Keep the batch, or raise the next failure asked for."""
        with self._arrived:
            self.batch_ids.append(batch.batch_id)
            if self._failures:
                raise self._failures.pop(0)
            self._records[batch.kind] += [json.loads(body) for body in batch.bodies]
            self._arrived.notify_all()
        return Receipt(batch.nbytes)

    def fail_with(self, *errors: DeliveryError) -> None:
        """Have the next sends raise these, one each."""
        with self._arrived:
            self._failures += errors

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return the events that arrived, as sent; of one type only when it is given."""
        with self._arrived:
            events = self._records["events"]
            return [one for one in events if event_type in (None, one["event_type"])]

    def metrics(self, metric_type: str | None = None) -> list[dict[str, Any]]:
        """Return the metrics that arrived, as sent; of one type only when it is given."""
        with self._arrived:
            metrics = self._records["metrics"]
            return [one for one in metrics if metric_type in (None, one["metric_type"])]

    def wait_for(self, n: int, timeout: float = 5.0) -> list[dict[str, Any]]:
        """Return the events as soon as there are `n` or more.

        Raises:
            AssertionError: there were fewer after `timeout` seconds.
        """
        with self._arrived:
            events = self._records["events"]
            if not self._arrived.wait_for(lambda: len(events) >= n, timeout):
                raise AssertionError(f"{len(events)} of {n} events arrived in {timeout} s")
            return list(events)

    def abort(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Keep what was recorded."""

    def after_fork(self) -> None:
        """Keep the parent's records; the child adds to its own copy, under a lock of its own."""
        self._arrived = threading.Condition()


class RecordingAgent(Agent):
    """An agent for tests: redacts, encodes and batches as ever, and keeps instead of sending.

    Args:
        settings: fields of `AgentConfig`; by default every event is delivered at once.
    """

    def __init__(self, **settings: Any) -> None:
        quick = {"api_key": "testing", "buffer_size": 1, "backoff_factor": 0.01}
        self.transport = RecordingTransport()
        super().__init__(AgentConfig(**{**quick, **settings}), transport=self.transport)

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return everything captured so far as it would be sent, of one type when it is given."""
        self.flush()
        return self.transport.events(event_type)

    def metrics(self, metric_type: str | None = None) -> list[dict[str, Any]]:
        """Return every metric captured so far as it would be sent, of one type when it is given."""
        self.flush()
        return self.transport.metrics(metric_type)

    def wait_for(self, n: int, timeout: float = 5.0) -> list[dict[str, Any]]:
        """Return the events as soon as other threads have captured `n` or more.

        Raises:
            AssertionError: there were fewer after `timeout` seconds.
        """
        return self.transport.wait_for(n, timeout)
