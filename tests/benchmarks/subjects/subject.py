"""What a benchmark needs of whatever it measures."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from tests.benchmarks.sample import nested_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["NotApplicableError", "Subject"]


class NotApplicableError(Exception):
    """The subject has no such quantity, for the reason given."""


class Subject:
    """One way to hand over events; subclasses wrap a peer's public calls.

    Each measurement makes one subject in a fresh process: ``setup``, then ``capture`` and
    ``flush`` in turns, then ``close``.

    Attributes:
        capture: The peer's own call that hands over one event, set by ``setup``.
        module: What has to be importable; None for the standard library.
        imports: What an application imports to use it, where that is not ``module``.
        names: A statement that takes from it what an application uses.
        burst: How many events the peer holds without loss between two flushes.
        events: How many events a delivery measurement sends; fewer for slow peers.
        delivers: Whether events leave the process.
        threaded: Whether many threads may capture at once.
        reads_requests: Whether it makes its events of a served application's requests.
        capacity: How many events the peer can be made to hold while the backend is away.
    """

    capture: Callable[[Any], object]
    module: str | None = None
    imports: str | None = None
    names: str = "pass"
    burst = 5_000
    events = 10_000
    delivers = True
    threaded = True
    reads_requests = False
    capacity = 20_000

    def setup(self, port: int) -> None:
        """Make the peer ready to deliver to 127.0.0.1:``port``; imports belong here."""

    def build(self) -> Any:
        """Make the event of ten fields in the form the peer takes."""
        return nested_fields()

    def flush(self) -> None:
        """Wait until everything captured is delivered."""

    def close(self) -> None:
        """End the peer's threads."""

    def join_flask(self, application: Any) -> None:
        """Add to a Flask application what reports its requests, where the subject is that."""

    def django_settings(self) -> dict[str, Any]:
        """Give the settings of a Django application whose requests the subject reports."""
        return {}

    def spool(self, port: int) -> Any:
        """Make the spool alone, with ``append``, ``pending`` and ``close``."""
        raise NotApplicableError("no spool to measure")

    def records(self, count: int) -> list[Any]:
        """Make encoded events for that spool."""
        raise NotApplicableError("no spool to measure")

    def time_ready(self, events: Iterable[Any]) -> list[int]:
        """Capture ``events``, and give the nanoseconds of each call."""
        capture, clock, times = self.capture, perf_counter_ns, []
        for event in events:
            began = clock()
            capture(event)
            times.append(clock() - began)
        return times

    def time_built(self, count: int) -> list[int]:
        """Build and capture ``count`` events, and give the nanoseconds of each pair of calls."""
        build, capture, clock, times = self.build, self.capture, perf_counter_ns, []
        for _ in range(count):
            began = clock()
            capture(build())
            times.append(clock() - began)
        return times

    def pour(self, count: int) -> None:
        """Build and capture ``count`` events with no clock in the way."""
        build, capture = self.build, self.capture
        for _ in range(count):
            capture(build())
