"""All an agent has in one process: its rooms, the threads that take their turns, and its end."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guardagent import _exit, _uwsgi
from guardagent._clock import Clock
from guardagent._crew import Crew
from guardagent._ids import KeySource
from guardagent._log import say
from guardagent._loop import Loop
from guardagent._quiet import MUTED
from guardagent._rooms import Rooms
from guardagent._sources import Sources
from guardagent.config import AgentConfig
from guardagent.fields import Item
from guardagent.health import Health
from guardagent.intake import Marker
from guardagent.status import AgentStatus, DropReason, Losses, Stats
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
        self._clock = clock
        self._rooms = Rooms(
            config,
            make_transport,
            clock,
            has_control=has_control,
            wake=self._wake,
            on_spooled=self._spooled,
            status=self.status,
        )
        self.ledger = self._rooms.ledger
        self.control = self._rooms.control
        #: Count a capture.
        self.count = self.ledger.captured.tick
        self._callbacks = self._rooms.callbacks
        self._losses = Losses(self.ledger, self._callbacks, clock)
        self._health = Health(config, clock)
        self._build_loops(tends_spool=config.spool != "memory://")
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
        self.offer: Callable[[Item], bool] = self._rooms.intake.offer

    def _build_loops(self, *, tends_spool: bool) -> None:
        rooms, crashed = self._rooms, self._crashed
        self._drains = Loop(
            "guardagent-intake", self._take_in, rooms.drain_bell, crashed, rooms.intake.arm
        )
        self._delivers = Loop("guardagent-delivery", self._deliver, rooms.delivery_bell, crashed)
        self._loops = [self._drains, self._delivers]
        self._crew = Crew(self._loops[:2], self._clock, crashed)
        if rooms.control is not None:
            turn = rooms.control.turn
            self._loops.append(Loop("guardagent-control", turn, rooms.control_bell, crashed))
        if tends_spool:
            # Any other thread may be busy for longer than a lease: in a hook, in a request.
            tend = rooms.spool.tend
            self._loops.append(Loop("guardagent-spool", tend, rooms.spool_bell, crashed))

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was ever captured with it."""
        return self.ledger.captured.value == 0

    def inherit(self, former: Pipeline) -> None:
        """Take over what a process captured that delivers nothing, before this one was forked."""
        items = former.give_up()
        self.ledger.captured.add(len(items))
        for item in items:
            self._rooms.intake.offer(item)
        if items:
            _exit.enroll(self)

    def give_up(self) -> list[Item]:
        """Return what was captured and not looked at yet; it is another's now."""
        return self._rooms.intake.give_up()

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
        self._rooms.intake.mark(marker)
        return self._crew.see_to(marker.done, deadline)

    def begin_farewell(self, deadline: float) -> None:
        """Begin the last round: no back-off, no waiting, one attempt for each batch."""
        if not self.is_closed:
            self._sources.ask()
        if not self._is_idle() and self._closing.acquire(timeout=self._left(deadline)):
            self._last_marker = marker = Marker()
            self._farewell_by = threading.get_ident()
            self._farewell = self._rooms.delivery.hurry(deadline, marker)
            self._rooms.intake.mark(marker)

    def await_farewell(self, deadline: float) -> bool:
        """Wait for the end of the last round; True when nothing is left."""
        over = self._farewell
        if over is None:
            return self._rooms.at_risk == 0
        self._crew.see_to(over, deadline)
        return self._last_marker.done.is_set()

    def end_farewell(self, *, is_exit: bool) -> None:
        """Go back to ordinary work; at exit, let callers deliver what they still capture."""
        if self._farewell is not None and self._farewell_by == threading.get_ident():
            self._farewell = None
            self._rooms.delivery.relax()
            self._closing.release()
        if is_exit and not self.is_closed:
            self.offer = self._offer_late
            self._rooms.spool.hand_back()
            self._tell_of_the_rest()

    def _tell_of_the_rest(self) -> None:
        """Say at exit how many events the process takes with it."""
        left = self._rooms.at_risk
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
        self._rooms.abandon()

    def stats(self) -> Stats:
        """Return a snapshot."""
        alive = sum(loop.is_alive() for loop in self._loops)
        return self._rooms.stats(pid=self.pid, threads_alive=alive)

    def status(self, dropped: Mapping[str, int] | None = None) -> AgentStatus:
        """Judge how the agent is; `dropped` is what to say of losses: the unreported by default."""
        return self._health.report(
            self.stats(), self._rooms.unreported() if dropped is None else dropped
        )

    def _tear_down(self, deadline: float) -> None:
        self.is_closed = True
        self._rooms.begin_closing()
        for loop in self._loops:
            loop.end()
        self._rooms.hang_up(everywhere=bool(self._rooms.pending))
        last = max(deadline, self._clock.monotonic()) + _GRACE
        for loop in self._loops:
            loop.join(self._left(last) / 2)
        if any(loop.is_alive() for loop in self._loops):
            self._rooms.hang_up(everywhere=True)
            for loop in self._loops:
                loop.join(self._left(last))
        self._rooms.close()
        self._losses.report()
        _exit.leave(self)

    def _wake(self) -> None:
        self._rooms.drain_bell.ring()
        if not self._drains.is_alive():
            self.start_intake()

    def _spooled(self) -> None:
        for loop in self._loops[1:]:
            loop.ensure()
        self._rooms.delivery.look()
        self._losses.report()

    def _take_in(self) -> float | None:
        if not self._has_company:
            self.start()
        wait = self._rooms.drain.turn()
        if wait is None:
            self._losses.report()
        look_in = self._sources.turn()
        return min((one for one in (wait, look_in) if one is not None), default=None)

    def _deliver(self) -> float | None:
        wait = self._rooms.delivery.turn()
        self._losses.report()
        if self._rooms.drain.is_held_up:
            self._rooms.drain_bell.ring()
        return wait

    def _is_idle(self) -> bool:
        # While the drain runs it may hold what no count shows for a moment: ask it, by a marker.
        return self._rooms.pending == 0 and not self._drains.is_alive()

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
        taken = self._rooms.intake.offer(item)
        if self._exit_deadline is None:
            self._exit_deadline = self._clock.monotonic() + self.shutdown_timeout
        self.begin_farewell(self._exit_deadline)
        self.await_farewell(self._exit_deadline)
        self.end_farewell(is_exit=True)
        return taken

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock.monotonic())
