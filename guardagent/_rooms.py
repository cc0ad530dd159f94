"""The rooms that events walk through in one process, wired in that order; no thread is theirs.

Owns: the queue, the drain, the spool, the delivery, the control and their transports. In: the
settings, and whom to tell. Out: rooms whose turns somebody has to take, and what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from guardagent._clock import Bell, Clock
from guardagent.config import AgentConfig
from guardagent.control import Control
from guardagent.delivery import Delivery
from guardagent.drain import LINGER, LINGER_DURABLE, SLICE, TOGETHER, Drain, Pace
from guardagent.encoding import Encoder
from guardagent.hooks import event_hook
from guardagent.intake import Intake
from guardagent.redaction import Redactor
from guardagent.spool.address import open_spool
from guardagent.status import AgentStatus, Callbacks, Ledger, Stats
from guardagent.transport.envelope import records_bytes
from guardagent.transport.protocol import TransportFactory

__all__ = ["Rooms"]


class Rooms:
    """One process's rooms.

    Args:
        has_control: the agent hears from the backend, too.
        wake: called when something was captured, from whatever thread captures.
        on_spooled: called when records have reached the spool.
        status: judges how the agent is; given what to say of losses.
    """

    def __init__(
        self,
        config: AgentConfig,
        make_transport: TransportFactory,
        clock: Clock,
        *,
        has_control: bool,
        wake: Callable[[], None],
        on_spooled: Callable[[], None],
        status: Callable[[Mapping[str, int]], AgentStatus],
    ) -> None:
        self._config = config
        self._clock = clock
        self.ledger = Ledger()
        self.callbacks = Callbacks(config.on_error, config.on_drop)
        #: Each wakes the thread that takes a room's turns.
        self.drain_bell, self.delivery_bell = Bell(), Bell()
        self.control_bell, self.spool_bell = Bell(), Bell()
        max_bytes = records_bytes(
            config.max_batch_bytes, sealed=config.project_encryption_key is not None
        )
        self.intake = Intake(
            config.queue_capacity, config.overflow, config.block_timeout, wake, self.ledger
        )
        self.spool = open_spool(
            config,
            clock,
            on_lost=self.ledger.drop,
            on_error=partial(self.callbacks.error, "spool"),
            wake=self.spool_bell.ring,
        )
        self.delivery = self._build_delivery(max_bytes)
        self.drain = self._build_drain(max_bytes, on_spooled)
        self._build_transports(make_transport, status if has_control else None)

    def _build_delivery(self, max_bytes: int) -> Delivery:
        return Delivery(
            self._config,
            self.spool,
            self.ledger,
            self.callbacks,
            self._clock,
            self.delivery_bell,
            max_bytes=max_bytes,
            is_filling=lambda: bool(self.intake.queue),
        )

    def _build_drain(self, max_bytes: int, on_spooled: Callable[[], None]) -> Drain:
        config = self._config
        return Drain(
            self.intake,
            self.spool,
            Encoder(Redactor(config.sensitive_headers, config.max_payload_size), max_bytes),
            self.ledger,
            self.callbacks,
            self._clock,
            before_send=event_hook(config.before_send),
            waits_for_room=config.overflow != "drop_oldest",
            pace=_pace_of(config),
            on_spooled=on_spooled,
            on_marker=self.delivery.receive,
        )

    def _build_transports(
        self,
        make_transport: TransportFactory,
        status: Callable[[Mapping[str, int]], AgentStatus] | None,
    ) -> None:
        """Give each thread that talks to the backend a transport, and so a session, of its own."""
        transport = make_transport(
            pause=self.delivery.pause,
            on_failure=self.delivery.note_failure,
            on_retry=self.ledger.retried.tick,
        )
        self.delivery.use(transport)
        self._transports = [transport]
        self.control: Control | None = None
        if status is not None:
            line = make_transport(pause=self._pause_control, on_failure=str, on_retry=lambda: None)
            self._transports.append(line)
            self.control = Control(
                self._config,
                line.exchange,  # type: ignore[attr-defined]
                self.ledger,
                self.callbacks,
                self._clock,
                self.control_bell,
                status,
                keep=self.spool.put,
                recall=self.spool.get,
            )

    def _pause_control(self, seconds: float) -> bool:
        return self.control is not None and self.control.pause(seconds)

    # -- what they hold ----------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Events and metrics accepted and not settled, and what others left in the spool."""
        return self._in_hand + self.spool.pending()

    @property
    def at_risk(self) -> int:
        """Events and metrics that would be gone with the process."""
        return self._in_hand + self.spool.at_risk()

    @property
    def _in_hand(self) -> int:
        return self.intake.depth + self.drain.depth

    def stats(self, *, pid: int, threads_alive: int) -> Stats:
        """Return a snapshot."""
        control = self.control
        rules = None if control is None else control.rules()
        return self.ledger.snapshot(
            now=self._clock.monotonic(),
            pending=self.pending,
            in_flight=self.delivery.in_flight,
            breaker=self.delivery.breaker.state,
            durable=self.spool.durable and not self.drain.is_late,
            spool_bytes=self.spool.nbytes(),
            spool_pending=self.spool.pending(),
            spooled=self.spool.balance(),
            rules_id=None if rules is None else rules.rule_id,
            rules_version=None if rules is None else rules.version,
            rules_age=None if control is None else control.rules_age(),
            rules_stale=control is not None and control.is_stale(),
            pid=pid,
            threads_alive=threads_alive,
        )

    def unreported(self) -> Mapping[str, int]:
        """Return the losses that the backend was not told of yet."""
        losses = self.ledger.losses()
        if self.control is not None:
            return self.control.unreported(losses)
        return {str(reason): n for reason, n in losses.items() if n}

    # -- the end -----------------------------------------------------------------------------

    def begin_closing(self) -> None:
        """Have no turn begin anything long any more."""
        self.delivery.is_closing = True
        if self.control is not None:
            self.control.is_closing = True
            self.control.polled.set()

    def hang_up(self, *, everywhere: bool) -> None:
        """Break off requests under way; those of the delivery only if `everywhere`."""
        for transport in self._transports if everywhere else self._transports[1:]:
            transport.abort()

    def close(self) -> None:
        """Let go of everything, and count what nobody has any more."""
        self.delivery.is_closed = True
        left = self.drain.close() + self.intake.close() + self.spool.close()
        self.delivery.release_markers()
        if left:
            self.ledger.drop("shutdown", left)
        for transport in self._transports:
            transport.close()

    def abandon(self) -> None:
        """Let go of what a forked child inherited."""
        for transport in self._transports:
            transport.after_fork()
        self.spool.abandon()


def _pace_of(config: AgentConfig) -> Pace:
    is_memory = config.spool == "memory://"
    return Pace(
        linger=min(LINGER if is_memory else LINGER_DURABLE, config.flush_interval / 4),
        # Who asks for very small batches wants to see them at once.
        enough=config.buffer_size if config.buffer_size < SLICE else config.queue_capacity,
        together=SLICE if is_memory else TOGETHER,
    )
