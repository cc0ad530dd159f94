"""The equation that every fault must leave true, and what tests capture to check it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from guardagent import Agent, SecurityEvent
from tests.support.backend import Backend

__all__ = [
    "Errors",
    "assert_balanced",
    "assert_delivered",
    "bounded",
    "capture",
    "event",
    "repeats",
]

Result = TypeVar("Result")


def event(**fields: Any) -> SecurityEvent:
    """Build an event like those the Guard libraries send."""
    given: dict[str, Any] = {
        "event_type": "penetration_attempt",
        "ip_address": "203.0.113.7",
        "action_taken": "request_blocked",
        "reason": "scripted",
        "endpoint": "/login",
        "method": "POST",
        **fields,
    }
    return SecurityEvent(**given)


def capture(agent: Agent, count: int = 1, **fields: Any) -> list[str]:
    """Capture some events, each of which must be taken; return their keys."""
    events = [event(**fields) for _ in range(count)]
    refused = [one for one in events if agent.capture(one) is not True]

    assert refused == []
    return [one.idempotency_key for one in events]


def assert_balanced(agent: Agent) -> None:
    """Check that everything captured is delivered, pending or counted as dropped; at rest."""
    stats = agent.stats()

    assert stats.captured == stats.delivered + stats.pending + sum(stats.dropped.values()), stats
    assert 0 <= stats.in_flight <= stats.pending, stats


def assert_delivered(
    agent: Agent, backend: Backend, keys: Collection[str], *, dropped: Collection[str] = ()
) -> None:
    """Check the books of both sides, once the agent has stopped and left nothing.

    Args:
        agent: stopped, or flushed.
        backend: where it delivered.
        keys: all that was captured, `dropped` included.
        dropped: those the agent had to give up.
    """
    stats = agent.stats()

    assert_balanced(agent)
    assert backend.unreadable == []
    assert set(keys) - backend.keys == set(dropped)
    assert backend.keys <= set(keys)
    assert (stats.captured, stats.pending) == (len(keys), 0), stats
    assert (stats.delivered, sum(stats.dropped.values())) == (
        len(keys) - len(dropped),
        len(dropped),
    ), stats


def repeats(keys: Iterable[str]) -> list[str]:
    """Name the keys that occur more than once."""
    seen: set[str] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def bounded(call: Callable[[], Result], seconds: float = 8.0) -> Result:
    """Call in a thread, so that a hang fails the test instead of stopping the suite.

    A detector of hangs, not a measurement: `seconds` is far more than the call may take.
    """
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)

    assert results, f"no result after {seconds} s"
    return results[0]


class Errors:
    """An `on_error` that remembers, and that a test can wait for instead of for time to pass."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards _seen
        self._seen: list[tuple[str, BaseException]] = []

    def __call__(self, stage: str, error: BaseException, context: object) -> None:
        with self._changed:
            self._seen.append((stage, error))
            self._changed.notify_all()

    @property
    def seen(self) -> list[tuple[str, BaseException]]:
        """Stage and error of each call so far."""
        with self._changed:
            return list(self._seen)

    def wait(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait for this many calls; False when they did not come."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._seen) >= count, timeout)
