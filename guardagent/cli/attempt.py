"""One attempt to deliver one event, the way an application would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardagent import Agent, AgentConfig, SecurityEvent
from guardagent._clock import SYSTEM_CLOCK
from guardagent.cli.tally import printable
from guardagent.cli.verdict import Verdict, on_error, on_silence
from guardagent.errors import DeliveryError, RejectedError
from guardagent.transport.http import HTTPTransport

if TYPE_CHECKING:
    from guardagent.spool.protocol import Batch
    from guardagent.transport.protocol import Receipt

__all__ = ["deliver"]

#: Seconds for everything around the request itself.
_GRACE = 0.5


def deliver(config: AgentConfig) -> Verdict | None:
    """Send one event the way an application would; None when it was accepted."""
    witness = _Witness(config)
    agent = Agent(config, transport=witness)
    event = SecurityEvent(
        event_type="connection_test",
        ip_address="system",
        action_taken="none",
        reason="guardagent send",
    )
    agent.capture(event)
    agent.flush(config.timeout + _GRACE)
    agent.stop(timeout=0.0)
    if witness.error is not None:
        return on_error(witness.error, config)
    if witness.receipt is None:
        return on_silence(config)
    if witness.receipt.rejected:
        reason = printable("; ".join(witness.receipt.rejected.values())) or "no reason given"
        return on_error(RejectedError(reason, status=200), config)
    return None


class _Witness(HTTPTransport):
    """The usual transport, with one attempt, which remembers what came of it."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config, pause=lambda _seconds: False)
        self._seconds = config.timeout
        self.receipt: Receipt | None = None
        self.error: DeliveryError | None = None

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        """Make the attempt; any failure is final."""
        try:
            self.receipt = super().send(batch, deadline or SYSTEM_CLOCK.monotonic() + self._seconds)
        except DeliveryError as error:
            self.error = error
            raise RejectedError("one attempt is all there is") from error
        return self.receipt
