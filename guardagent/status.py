"""What the agent did: counters, and the snapshots and loss reports made of them.

Owns: every count of the process's agent. In: single counts from all rooms. Out: `Stats`, and word
of losses to the log and to `on_drop`.
"""

from __future__ import annotations

import logging
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice, repeat
from types import MappingProxyType
from typing import Any, Literal, get_args

import attrs

from guardagent._clock import Clock
from guardagent._log import say
from guardagent._quiet import quiet

__all__ = [
    "DROP_REASONS",
    "AgentStatus",
    "Callbacks",
    "DropReason",
    "Ledger",
    "Losses",
    "Stats",
    "Tally",
]

_log = logging.getLogger(__name__)

DropReason = Literal[
    "overflow",  # the queue or the spool was full
    "invalid",  # not an event: nothing could be made of it
    "unencodable",  # it could not be written as JSON
    "too_large",  # larger than a request may be, or refused with 413 by itself
    "filtered",  # before_send returned None
    "hook_failed",  # before_send raised: it fails closed
    "rejected",  # the backend refused it for good
    "expired",  # older than max_event_age
    "closed",  # captured after stop
    "disabled",  # no api_key, or its kind is switched off
    "recursive",  # captured by the agent's own doing
    "shutdown",  # still pending in memory when the agent stopped
    "corrupt",  # could not be read back from a durable spool; kept among its dead letters
    "spool_lost",  # was in a durable spool that came back empty
]
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)

#: Losses are logged at most once in so many seconds for each reason.
_LOG_INTERVAL = 30.0
#: These are what the application asked for, or its own log lines about the agent.
EXPECTED = frozenset({"disabled", "filtered", "recursive"})


class Tally:
    """A count that threads, finalizers and signal handlers may raise at the same moment.

    `x += 1` can be interrupted between its read and its write; taking from a C iterator cannot.
    """

    __slots__ = ("_ticks", "tick")

    def __init__(self) -> None:
        self._ticks = repeat(None, sys.maxsize)
        #: Count one; the fastest way there is.
        self.tick: Callable[[], None] = self._ticks.__next__

    def add(self, n: int) -> None:
        """Count `n`."""
        deque(islice(self._ticks, n), maxlen=0)

    @property
    def value(self) -> int:
        """The count so far."""
        return sys.maxsize - operator.length_hint(self._ticks)


@attrs.frozen(kw_only=True)
class Stats:
    """A snapshot of one process's agent.

    At rest `captured == delivered + pending + sum(dropped.values())` holds exactly for an agent
    with a spool of its own. A spool that processes share holds what others captured, too, and may
    lose to them what this one did; `captured == delivered + (pending - spool_pending) + spooled +
    sum(dropped.values())` holds for each of them.

    Args:
        captured: calls of `capture`, refused ones included.
        pending: neither delivered nor dropped yet: in the process and in its spool, whoever put it
            there; includes in_flight.
        in_flight: in the request that is being sent.
        retried: requests sent again.
        dropped: losses by `DropReason`; every reason is present.
        bytes_sent: bytes of accepted request bodies, as sent.
        breaker: "closed", "open" or "half_open".
        durable: True when what is pending would survive the process.
        spool_bytes: encoded bytes in the spool.
        spool_pending: records in the spool.
        spooled: records this agent put into the spool less those it took out, delivered or lost.
        rules_id: of the rules in force, as are the three below; None without any.
        rules_age: seconds since the backend last confirmed them.
        rules_stale: True when it should have confirmed them and did not.
        last_success_age: seconds since the backend accepted something, None before.
        last_error: one line on the last failure, None when there was none since the last success.
        threads_alive: running threads of the agent.
    """

    captured: int
    pending: int
    in_flight: int
    delivered: int
    retried: int
    dropped: Mapping[str, int]
    bytes_sent: int
    breaker: str
    durable: bool
    spool_bytes: int
    last_success_age: float | None
    last_error: str | None
    pid: int
    threads_alive: int
    spool_pending: int = 0
    spooled: int = 0
    rules_id: str | None = None
    rules_version: int | None = None
    rules_age: float | None = None
    rules_stale: bool = False


@attrs.frozen(kw_only=True)
class AgentStatus:
    """How the agent is: the report that also goes to the backend (WIRE.md 3).

    Args:
        timestamp: when, as on the wire.
        status: "healthy"; "degraded": losing some or delayed; "failed": delivering nothing.
        uptime: seconds since the agent was made in this process.
        events_sent: events and metrics delivered.
        events_failed: events and metrics lost.
        buffer_size: events and metrics pending.
        last_flush: when the backend accepted something last, as on the wire.
        errors: why it is not healthy, one line each.
        dropped: losses by reason since the last report the backend accepted.
    """

    timestamp: str
    status: Literal["healthy", "degraded", "failed"]
    uptime: float
    events_sent: int
    events_failed: int
    buffer_size: int
    last_flush: str | None
    errors: list[str]
    dropped: Mapping[str, int]
    breaker: str
    durable: bool
    spool_bytes: int
    rules_id: str | None
    rules_version: int | None
    rules_age: float | None
    rules_stale: bool
    agent_version: str
    guard_version: str | None
    guard_core_version: str | None
    pid: int
    hostname: str


class Ledger:
    """The counters of one agent in one process."""

    def __init__(self) -> None:
        self.captured = Tally()
        self.delivered = Tally()
        self.retried = Tally()
        self.bytes_sent = 0  # written by whoever delivers, one thread at a time
        self.dropped: dict[DropReason, Tally] = {reason: Tally() for reason in DROP_REASONS}
        self.last_success_at: float | None = None
        self.last_error: str | None = None

    def drop(self, reason: DropReason, n: int = 1) -> None:
        """Count a loss."""
        self.dropped[reason].add(n)

    def losses(self) -> dict[DropReason, int]:
        """Return the losses so far, every reason included."""
        return {reason: tally.value for reason, tally in self.dropped.items()}

    def snapshot(self, *, now: float, **live: Any) -> Stats:
        """Combine the counters with what only the rooms themselves know."""
        success = self.last_success_at
        return Stats(
            captured=self.captured.value,
            delivered=self.delivered.value,
            retried=self.retried.value,
            bytes_sent=self.bytes_sent,
            dropped=MappingProxyType({str(k): v for k, v in self.losses().items()}),
            last_success_age=None if success is None else max(0.0, now - success),
            last_error=self.last_error,
            **live,
        )


class Callbacks:
    """The application's `on_error` and `on_drop`, called so that they can break nothing."""

    def __init__(
        self,
        on_error: Callable[[str, BaseException, Mapping[str, Any]], object] | None = None,
        on_drop: Callable[[str, int], object] | None = None,
    ) -> None:
        self._on_error = on_error
        self._on_drop = on_drop

    def error(self, stage: str, error: BaseException, **context: Any) -> None:
        """Tell the application of an error."""
        self.call("on_error", self._on_error, stage, error, context)

    def drop(self, reason: str, n: int) -> None:
        """Tell the application of a loss."""
        self.call("on_drop", self._on_drop, reason, n)

    @staticmethod
    def call(name: str, callback: Callable[..., object] | None, *args: Any) -> None:
        """Call a function of the application's, which can break nothing."""
        if callback is None:
            return
        try:
            with quiet():
                callback(*args)
        except BaseException as error:  # the application's code, sys.exit() included: all goes on
            kind = type(error).__name__
            say(_log, logging.WARNING, "The callback %s raised %s.", name, kind)


class Losses:
    """Tells the log and the application of losses, without flooding either."""

    def __init__(self, ledger: Ledger, callbacks: Callbacks, clock: Clock) -> None:
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._lock = threading.RLock()  # guards the three below; never held during a callback
        self._reported: dict[DropReason, int] = dict.fromkeys(DROP_REASONS, 0)
        self._logged: dict[DropReason, int] = dict.fromkeys(DROP_REASONS, 0)
        self._logged_at: dict[DropReason, float] = {}

    def report(self) -> None:
        """Report what was lost since the last call."""
        now = self._clock.monotonic()
        for reason, total in self._ledger.losses().items():
            if total == 0:
                continue
            new, unlogged, ended = self._advance(reason, total, now)
            if new:
                self._callbacks.drop(reason, new)
            if unlogged and reason not in EXPECTED:
                say(
                    _log,
                    logging.WARNING,
                    "%d events were lost (%s), %d since the start.",
                    unlogged,
                    reason,
                    total,
                )
            if ended and reason not in EXPECTED:
                say(_log, logging.INFO, "No more events are being lost (%s).", reason)

    def _advance(self, reason: DropReason, total: int, now: float) -> tuple[int, int, bool]:
        with self._lock:
            new = total - self._reported[reason]
            self._reported[reason] = total
            unlogged = total - self._logged[reason]
            logged_at = self._logged_at.get(reason)
            if logged_at is not None and now - logged_at < _LOG_INTERVAL:
                return new, 0, False
            if not unlogged:
                return new, 0, self._logged_at.pop(reason, None) is not None
            self._logged[reason] = total
            self._logged_at[reason] = now
            return new, unlogged, False
