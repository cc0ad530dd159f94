"""Agent: what an application holds. Takes events, hands them to the process's pipeline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from os import getpid
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from guardagent import _fork, _signals, _uwsgi
from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent._log import say
from guardagent._quiet import MUTED
from guardagent.config import AgentConfig
from guardagent.errors import BufferFull, EventError, SetupError
from guardagent.events import SecurityEvent, SecurityMetric, coerce
from guardagent.fields import take_event, take_metric
from guardagent.spool.protocol import Batch
from guardagent.status import AgentStatus, Stats
from guardagent.transport.protocol import Receipt, Transport, TransportFactory

if TYPE_CHECKING:
    from guardagent._pipeline import Pipeline
    from guardagent.control import OnRules
    from guardagent.rules import DynamicRules

__all__ = ["Agent"]

_log = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="Agent")  # typing.Self is younger than Python 3.10


class Agent:
    """Reports security events and metrics from any thread, coroutine, finalizer or signal handler.

    Constructing it starts nothing; the first capture in a process, or `start`, does. A forked
    child begins with an empty agent of its own.

    Args:
        config: the settings.
        transport: where batches go instead of `config.endpoint`; see
            `guardagent.transport.Transport`.
        clock: tells the time; for tests.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self._clock = clock
        self._has_own_transport = transport is not None
        self._listeners: list[OnRules] = []
        self._sources: list[Callable[[], object]] = []
        self._wants_rules = False
        self._make_transport = _transport_factory(config, transport, clock)
        self._pipeline = self._new_pipeline()
        self._starting = threading.RLock()  # guards the first start; replaced after a fork
        self._is_started = False
        self._was_started = False  # by the process this one was forked from
        self._takes_events = config.enable_events
        self._warned: set[str] = set()
        _fork.watch(self)
        if not config.is_enabled:
            say(_log, logging.WARNING, "guardagent is disabled: there is no api_key.")

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019 - see _Self
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Agent endpoint={self.config.endpoint!r} pid={self._pipeline.pid}>"

    def start(self) -> None:
        """Start the threads of this process now rather than at the first capture; idempotent."""
        self._begin()
        self._pipeline.start()

    def _begin(self) -> None:
        pipeline = self._here()
        if self.config.is_enabled and not pipeline.is_closed and not _uwsgi.is_before_fork():
            with self._starting:
                if not self._is_started:
                    # Made anew together with its threads: gevent may have patched locks and
                    # threads since the constructor, and the one must not wait for the other.
                    if pipeline.is_untouched:
                        self._pipeline = self._new_pipeline(pipeline)
                    self._is_started = True
                    _warn_of_uwsgi()
                    if self.config.flush_on_sigterm:
                        _signals.install()
            self._pipeline.start_intake()

    def capture(self, event: SecurityEvent | SecurityMetric | Mapping[str, Any] | object) -> bool:
        """Take a copy of an event or metric for delivery; never blocks, never raises.

        Costs a few microseconds: no I/O, no lock. Safe in coroutines, finalizers and signal
        handlers. Under `overflow="block"` it may wait for `block_timeout`.

        Args:
            event: a SecurityEvent or SecurityMetric, or a mapping or object with such fields.

        Returns:
            True when it was taken; False when not, which `stats().dropped` counts by reason.

        Raises:
            BufferFull: the queue is full, under `overflow="raise"` only.
        """
        if not self._is_started:
            self._begin()
        pipeline = self._pipeline
        # The pid is compared because uWSGI and others fork without running Python's hooks.
        if pipeline.pid != getpid():
            self._begin()
            pipeline = self._pipeline
        pipeline.count()
        try:
            if MUTED and threading.get_ident() in MUTED:
                return pipeline.refuse("recursive")
            if type(event) is SecurityEvent and self._takes_events:
                if event._idempotency_key is None:
                    event._idempotency_key = pipeline.keys.take()
                return pipeline.offer(take_event(event))
            return self._capture_other(pipeline, event)
        except BufferFull:
            raise
        except Exception as error:  # whatever the caller gave us, it must not fail for it
            pipeline.refuse("invalid")
            self._warn_of(error)
            return False

    def flush(self, timeout: float = 10.0) -> bool:
        """Deliver everything captured before the call.

        Args:
            timeout: seconds to wait at most.

        Returns:
            True when all of it is settled: accepted, or dropped and counted.
        """
        return self._here().flush(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Deliver what is pending, end the threads, close the connection; final and idempotent.

        Back-offs are not waited for; each batch gets one more attempt.

        Args:
            timeout: seconds to take at most; `shutdown_timeout` by default.

        Returns:
            True when nothing was left behind: everything this process captured was delivered, or,
            with `deliver=False`, is in the spool. False with a durable spool loses nothing: what
            is in there waits for the next process.
        """
        with self._starting:
            self._is_started = True  # a capture from now on must not start anything again
            pipeline = self._here()
        return pipeline.close(self.config.shutdown_timeout if timeout is None else timeout)

    def add_source(self, hand_over: Callable[[], object]) -> None:
        """Have `hand_over()` called to capture what its owner gathered.

        That is done first by `flush`, `stop` and the end of the process, and otherwise on the
        agent's thread, `flush_interval` seconds after `expect`.
        """
        self._sources.append(hand_over)

    def remove_source(self, hand_over: Callable[[], object]) -> None:
        """Have it called no more; it may be gone already."""
        with suppress(ValueError):
            self._sources.remove(hand_over)

    def expect(self) -> bool:
        """Be told that a source has gathered something; starts the agent like a capture.

        Returns:
            True when the sources will be asked; False when the agent is disabled or stopped.
        """
        if not self._is_started:
            self._begin()
        return self._here().expect()

    def stats(self) -> Stats:
        """Return a snapshot of this process's counters."""
        return self._here().stats()

    def status(self) -> AgentStatus:
        """Judge how this process's agent is; also sent every `status_interval`."""
        return self._here().status()

    @property
    def rules(self) -> DynamicRules | None:
        """The last good rules, until they expire; None before the first document.

        Asking for the first time begins the polling, once the agent is started.
        """
        control = self._here().control
        if control is None:
            return None
        self._want_rules()
        return control.rules()

    def on_rules(self, callback: OnRules) -> None:
        """Call `callback(rules)` on the agent's thread whenever a new document is in force."""
        control = self._here().control
        self._listeners.append(callback)
        if control is not None:
            control.listen(callback)
            self._want_rules()

    def wait_for_rules(self, timeout: float = 10.0) -> DynamicRules | None:
        """Return the rules once the backend was asked for them; starts the agent.

        Args:
            timeout: seconds to wait at most.
        """
        self.start()
        rules = self.rules
        control = self._here().control
        if rules is None and control is not None and not _uwsgi.is_before_fork():
            control.polled.wait(max(0.0, timeout))
        return self.rules

    def _want_rules(self) -> None:
        """Begin to poll now, or as soon as the agent is started; in a forked child, start it."""
        self._wants_rules = True
        if self._was_started and not self._is_started:
            self.start()
        control = self._pipeline.control
        if control is not None:
            control.want()

    def _capture_other(self, pipeline: Pipeline, event: object) -> bool:
        value = event if isinstance(event, (SecurityEvent, SecurityMetric)) else coerce(event)
        if value._idempotency_key is None:
            value._idempotency_key = pipeline.keys.take()
        if isinstance(value, SecurityMetric):
            if not self.config.enable_metrics:
                return pipeline.refuse("disabled")
            return pipeline.offer(take_metric(value))
        if not self.config.enable_events:
            return pipeline.refuse("disabled")
        return pipeline.offer(take_event(value))

    def _new_pipeline(self, former: Pipeline | None = None) -> Pipeline:
        from guardagent._pipeline import Pipeline

        has_control = self.config.is_enabled and not self._has_own_transport
        pipeline = Pipeline(
            self.config,
            self._make_transport,
            self._clock,
            has_control=has_control,
            sources=self._sources,
        )
        if pipeline.control is not None:
            for listener in self._listeners:
                pipeline.control.listen(listener)
            if former is not None and former.control is not None:
                pipeline.control.inherit(former.control)
            if self._wants_rules:
                pipeline.control.want()
        if not self.config.is_enabled:
            pipeline.shut("disabled")
        return pipeline

    def _here(self) -> Pipeline:
        """Return this process's pipeline."""
        if self._pipeline.pid != getpid():
            _fork.notice()
            if self._pipeline.pid != getpid():  # made by a thread while the process forked
                self._begin_anew()
        return self._pipeline

    def _begin_anew(self) -> None:
        """Leave the parent's pipeline to the parent; a forked child starts with an empty one."""
        self._starting = threading.RLock()
        inherited = self._pipeline
        self._pipeline = self._new_pipeline(inherited)
        if inherited.is_closed and self.config.is_enabled:
            self._pipeline.shut("closed")
        else:
            self._was_started = self._was_started or self._is_started
            self._is_started = False
            if _uwsgi.is_heir():
                self._pipeline.inherit(inherited)
        inherited.abandon()

    def _warn_of(self, error: Exception) -> None:
        """Say once for each kind of mistake what is wrong, without the value."""
        about = str(error).partition(":")[0] if isinstance(error, EventError) else ""
        key = f"{type(error).__name__} {about}".strip()[:80]
        if key not in self._warned and len(self._warned) < 100:
            self._warned.add(key)
            say(_log, logging.WARNING, "An event could not be taken and was dropped (%s).", key)


class _Nowhere:
    """The transport of a disabled agent."""

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        raise SetupError("the agent is disabled: there is no api_key")

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


def _warn_of_uwsgi() -> None:
    """Name the flag without which uWSGI runs no thread but its own (FIELD F4)."""
    if _uwsgi.lacks_threads():
        message = "uWSGI runs without --enable-threads: events are delivered only at exit."
        say(_log, logging.WARNING, message)


def _transport_factory(
    config: AgentConfig, transport: Transport | None, clock: Clock
) -> TransportFactory:
    if transport is not None or not config.is_enabled:
        given = transport or _Nowhere()

        def hand_out(**_hooks: Any) -> Transport:
            return given

        return hand_out
    # Imported here: requests takes 50 ms, which `import guardagent` must not, and the thread that
    # delivers must not import anything (a fork in the middle of an import can hang the child).
    from guardagent.transport.http import HTTPTransport

    def make(**hooks: Any) -> Transport:
        return HTTPTransport(config, clock=clock, **hooks)

    return make
