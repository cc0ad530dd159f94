"""All an agent has in one process: the rooms, wired in the order events walk through them."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from guardagent import _exit, _uwsgi
from guardagent._clock import Bell, Clock
from guardagent._crew import Crew
from guardagent._ids import KeySource
from guardagent._log import say
from guardagent._loop import Loop
from guardagent._quiet import MUTED
from guardagent._sources import Sources
from guardagent.config import AgentConfig
from guardagent.control import Control
from guardagent.delivery import Delivery
from guardagent.drain import LINGER, LINGER_DURABLE, SLICE, TOGETHER, Drain, Pace
from guardagent.encoding import Encoder
from guardagent.fields import Item
from guardagent.health import Health
from guardagent.hooks import event_hook
from guardagent.intake import Intake, Marker
from guardagent.redaction import Redactor
from guardagent.spool.address import open_spool
from guardagent.status import AgentStatus, Callbacks, DropReason, Ledger, Losses, Stats
from guardagent.transport.envelope import records_bytes
from guardagent.transport.protocol import TransportFactory

__all__ = ["Pipeline"]

_log = logging.getLogger(__name__)


#: What `stop` may take beyond its deadline for threads to end.
_GRACE = 0.3


class Pipeline:
    """One process's line from capture to backend; a forked child gets a new one.

    Constructing it starts nothing.
    """

    def __init__(
        self,
        config: AgentConfig,
        make_transport: TransportFactory,
        clock: Clock,
        *,
        has_control: bool,
        sources: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.pid = os.getpid()
        self.shutdown_timeout = config.shutdown_timeout
        self.keys = KeySource()
        self.ledger = Ledger()
        #: Count a capture.
        self.count = self.ledger.captured.tick
        self._config = config
        self._clock = clock
        self._callbacks = Callbacks(config.on_error, config.on_drop)
        self._losses = Losses(self.ledger, self._callbacks, clock)
        self._health = Health(config, clock)
        self._drain_bell, self._delivery_bell, self._control_bell = Bell(), Bell(), Bell()
        self._spool_bell = Bell()
        self._build_rooms()
        self._build_transports(make_transport, has_control=has_control)
        self._build_loops()
        self._closing = threading.RLock()  # guards the last round; waited for with a deadline
        #: Set when the last round under way is over; it is ended by the thread that began it.
        self._farewell: threading.Event | None = None
        self._farewell_by = 0
        self._last_marker = Marker()
        self._is_settled = True  # by the last round: nothing of this process's was left
        #: True once `close` has let everything go, or when nothing is ever taken.
        self.is_closed = False
        self._exit_deadline: float | None = None
        self._has_company = False
        self._sources = Sources(
            sources, config.flush_interval, clock, wake=self._wake, on_error=self._crashed
        )
        #: Puts fields in; replaced when the pipeline closes.
        self.offer: Callable[[Item], bool] = self._intake.offer

    def _build_rooms(self) -> None:
        config, clock = self._config, self._clock
        max_bytes = records_bytes(
            config.max_batch_bytes, sealed=config.project_encryption_key is not None
        )
        self._intake = Intake(
            config.queue_capacity, config.overflow, config.block_timeout, self._wake, self.ledger
        )
        self._spool = open_spool(
            config,
            clock,
            on_lost=self.ledger.drop,
            on_error=partial(self._callbacks.error, "spool"),
            wake=self._spool_bell.ring,
        )
        self._delivery = Delivery(
            config,
            self._spool,
            self.ledger,
            self._callbacks,
            clock,
            self._delivery_bell,
            max_bytes=max_bytes,
            is_filling=lambda: bool(self._intake.queue),
        )
        self._drain = Drain(
            self._intake,
            self._spool,
            Encoder(Redactor(config.sensitive_headers, config.max_payload_size), max_bytes),
            self.ledger,
            self._callbacks,
            clock,
            before_send=event_hook(config.before_send),
            waits_for_room=config.overflow != "drop_oldest",
            pace=_pace_of(config),
            on_spooled=self._spooled,
            on_marker=self._delivery.receive,
        )

    def _build_transports(self, make_transport: TransportFactory, *, has_control: bool) -> None:
        """Give each thread that talks to the backend a transport, and so a session, of its own."""
        self._transport = make_transport(
            pause=self._delivery.pause,
            on_failure=self._delivery.note_failure,
            on_retry=self.ledger.retried.tick,
        )
        self._delivery.use(self._transport)
        self._transports = [self._transport]
        self.control: Control | None = None
        if has_control:
            line = make_transport(pause=self._pause_control, on_failure=str, on_retry=lambda: None)
            self._transports.append(line)
            self.control = Control(
                self._config,
                line.exchange,  # type: ignore[attr-defined]
                self.ledger,
                self._callbacks,
                self._clock,
                self._control_bell,
                self.status,
                keep=self._spool.put,
                recall=self._spool.get,
            )

    def _build_loops(self) -> None:
        crashed = self._crashed
        self._drains = Loop(
            "guardagent-intake", self._take_in, self._drain_bell, crashed, self._intake.arm
        )
        self._delivers = Loop("guardagent-delivery", self._deliver, self._delivery_bell, crashed)
        self._loops = [self._drains, self._delivers]
        self._crew = Crew(self._loops[:2], self._clock, crashed)
        if self.control is not None:
            turn = self.control.turn
            self._loops.append(Loop("guardagent-control", turn, self._control_bell, crashed))
        if self._config.spool != "memory://":
            # Any other thread may be busy for longer than a lease: in a hook, in a request.
            tend = self._spool.tend
            self._loops.append(Loop("guardagent-spool", tend, self._spool_bell, crashed))

    def _pause_control(self, seconds: float) -> bool:
        return self.control is not None and self.control.pause(seconds)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was ever captured with it."""
        return self.ledger.captured.value == 0

    def inherit(self, former: Pipeline) -> None:
        """Take over what a process captured that delivers nothing, before this one was forked."""
        items = former.give_up()
        self.ledger.captured.add(len(items))
        for item in items:
            self._intake.offer(item)
        if items:
            _exit.enroll(self)

    def give_up(self) -> list[Item]:
        """Return what was captured and not looked at yet; it is another's now."""
        return self._intake.give_up()

    def start(self) -> None:
        """Start the threads; also called when one was found dead."""
        if not self.is_closed:
            _exit.enroll(self)
            self._has_company = True
            for loop in self._loops:
                loop.ensure()

    def start_intake(self) -> None:
        """Start the first thread only, which starts the others: less for a capture to wait for."""
        if not self.is_closed:
            _exit.enroll(self)
            self._drains.ensure()

    def refuse(self, reason: DropReason) -> bool:
        """Count a refused capture; False, for `capture` to return."""
        self.ledger.drop(reason)
        if reason == "closed":
            self._losses.report()
        elif reason != "disabled" and not self.is_closed:
            self._wake()  # the drain reports losses: a callback has no place in `capture`
        return False

    def shut(self, reason: DropReason) -> None:
        """Refuse every capture from now on."""
        self.is_closed = True
        self.offer = lambda _item: self.refuse(reason)

    def expect(self) -> bool:
        """Have the sources asked in `flush_interval` seconds; False when nobody will any more."""
        if self.is_closed:
            return False
        self._sources.expect()
        return True

    def flush(self, timeout: float) -> bool:
        """Deliver everything captured so far; True when it is settled in time."""
        if not self.is_closed:
            self._sources.ask()
        if self._is_idle():
            return True
        if self.is_closed or threading.get_ident() in MUTED:
            return False  # called by a callback: the thread that would deliver is this one
        if _uwsgi.is_before_fork():
            return False  # what is captured waits for the first worker
        marker = Marker()
        deadline = self._clock.monotonic() + max(0.0, timeout)
        self._intake.mark(marker)
        return self._crew.see_to(marker.done, deadline)

    def begin_farewell(self, deadline: float) -> None:
        """Begin the last round: no back-off, no waiting, one attempt for each batch."""
        if not self.is_closed:
            self._sources.ask()
        if not self._is_idle() and self._closing.acquire(timeout=self._left(deadline)):
            self._last_marker = marker = Marker()
            self._farewell_by = threading.get_ident()
            self._farewell = self._delivery.hurry(deadline, marker)
            self._intake.mark(marker)

    def await_farewell(self, deadline: float) -> bool:
        """Wait for the end of the last round; True when nothing is left."""
        over = self._farewell
        if over is None:
            return self.at_risk == 0
        self._crew.see_to(over, deadline)
        return self._last_marker.done.is_set()

    def end_farewell(self, *, is_exit: bool) -> None:
        """Go back to ordinary work; at exit, let callers deliver what they still capture."""
        if self._farewell is not None and self._farewell_by == threading.get_ident():
            self._farewell = None
            self._delivery.relax()
            self._closing.release()
        if is_exit and not self.is_closed:
            self.offer = self._offer_late
            self._spool.hand_back()
            self._tell_of_the_rest()

    def _tell_of_the_rest(self) -> None:
        """Say at exit how many events the process takes with it."""
        left = self.at_risk
        if left:
            message = "%d events were left behind at exit (%s)."
            say(_log, logging.WARNING, message, left, self.ledger.last_error)
            self._callbacks.drop("shutdown", left)

    def close(self, timeout: float) -> bool:
        """Deliver, end the threads, let everything go; True when nothing was left behind."""
        deadline = self._clock.monotonic() + max(0.0, timeout)
        if not self.is_closed:
            self._sources.ask()
        self.offer = self._refuse_closed
        if not self._closing.acquire(timeout=self._left(deadline) + _GRACE):
            return False  # another thread is closing it and has not come to an end
        try:
            if not self.is_closed:
                self.begin_farewell(deadline)
                self._is_settled = self.await_farewell(deadline)
                self.end_farewell(is_exit=False)
                self._tear_down(deadline)
            return self._is_settled and self.ledger.dropped["shutdown"].value == 0
        finally:
            self._closing.release()

    def abandon(self) -> None:
        """Let go of what a forked child inherited."""
        for transport in self._transports:
            transport.after_fork()
        self._spool.abandon()

    @property
    def pending(self) -> int:
        """Events and metrics accepted and not settled, and what others left in the spool."""
        return self._in_hand + self._spool.pending()

    @property
    def at_risk(self) -> int:
        """Events and metrics that would be gone with the process."""
        return self._in_hand + self._spool.at_risk()

    @property
    def _in_hand(self) -> int:
        return self._intake.depth + self._drain.depth

    def stats(self) -> Stats:
        """Return a snapshot."""
        control = self.control
        rules = None if control is None else control.rules()
        return self.ledger.snapshot(
            now=self._clock.monotonic(),
            pending=self.pending,
            in_flight=self._delivery.in_flight,
            breaker=self._delivery.breaker.state,
            durable=self._spool.durable and not self._drain.is_late,
            spool_bytes=self._spool.nbytes(),
            spool_pending=self._spool.pending(),
            spooled=self._spool.balance(),
            rules_id=None if rules is None else rules.rule_id,
            rules_version=None if rules is None else rules.version,
            rules_age=None if control is None else control.rules_age(),
            rules_stale=control is not None and control.is_stale(),
            pid=self.pid,
            threads_alive=sum(loop.is_alive() for loop in self._loops),
        )

    def status(self, dropped: Mapping[str, int] | None = None) -> AgentStatus:
        """Judge how the agent is; `dropped` is what to say of losses: the unreported by default."""
        control = self.control
        if dropped is None:
            losses = self.ledger.losses()
            dropped = (
                {str(reason): n for reason, n in losses.items() if n}
                if control is None
                else control.unreported(losses)
            )
        return self._health.report(self.stats(), dropped)

    def _tear_down(self, deadline: float) -> None:
        self.is_closed = True
        self._delivery.is_closing = True
        if self.control is not None:
            self.control.is_closing = True
            self.control.polled.set()
        for loop in self._loops:
            loop.end()
        for transport in self._transports if self.pending else self._transports[1:]:
            transport.abort()
        last = max(deadline, self._clock.monotonic()) + _GRACE
        for loop in self._loops:
            loop.join(self._left(last) / 2)
        if any(loop.is_alive() for loop in self._loops):
            for transport in self._transports:
                transport.abort()
            for loop in self._loops:
                loop.join(self._left(last))
        self._delivery.is_closed = True
        left = self._drain.close() + self._intake.close() + self._spool.close()
        self._delivery.release_markers()
        if left:
            self.ledger.drop("shutdown", left)
        for transport in self._transports:
            transport.close()
        self._losses.report()
        _exit.leave(self)

    def _wake(self) -> None:
        self._drain_bell.ring()
        if not self._drains.is_alive():
            self.start_intake()

    def _spooled(self) -> None:
        for loop in self._loops[1:]:
            loop.ensure()
        self._delivery.look()
        self._losses.report()

    def _take_in(self) -> float | None:
        if not self._has_company:
            self.start()
        wait = self._drain.turn()
        if wait is None:
            self._losses.report()
        look_in = self._sources.turn()
        return min((one for one in (wait, look_in) if one is not None), default=None)

    def _deliver(self) -> float | None:
        wait = self._delivery.turn()
        self._losses.report()
        if self._drain.is_held_up:
            self._drain_bell.ring()
        return wait

    def _is_idle(self) -> bool:
        # While the drain runs it may hold what no count shows for a moment: ask it, by a marker.
        return self.pending == 0 and not self._drains.is_alive()

    def _crashed(self, error: BaseException) -> None:
        self._callbacks.error("thread", error)
        say(
            _log, logging.WARNING, "A thread of the agent met %s and goes on.", type(error).__name__
        )

    def _refuse_closed(self, _item: Any) -> bool:
        return self.refuse("closed")

    def _offer_late(self, item: Item) -> bool:
        """Take an event of a process past its exit handlers: nobody else would wait for it."""
        if sys.is_finalizing():
            # Frozen threads may hold any lock: all that can be done safely is to count.
            self.ledger.drop("closed")
            return False
        taken = self._intake.offer(item)
        if self._exit_deadline is None:
            self._exit_deadline = self._clock.monotonic() + self.shutdown_timeout
        self.begin_farewell(self._exit_deadline)
        self.await_farewell(self._exit_deadline)
        self.end_farewell(is_exit=True)
        return taken

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock.monotonic())


def _pace_of(config: AgentConfig) -> Pace:
    is_memory = config.spool == "memory://"
    return Pace(
        linger=min(LINGER if is_memory else LINGER_DURABLE, config.flush_interval / 4),
        # Who asks for very small batches wants to see them at once.
        enough=config.buffer_size if config.buffer_size < SLICE else config.queue_capacity,
        together=SLICE if is_memory else TOGETHER,
    )
