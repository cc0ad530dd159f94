"""Every error the package raises, sorted by what the caller can do next."""

from __future__ import annotations

__all__ = [
    "BufferFull",
    "ConfigError",
    "DeliveryError",
    "EncodeError",
    "EventError",
    "FrameError",
    "GuardAgentError",
    "RejectedError",
    "RulesError",
    "SetupError",
    "SpoolError",
    "TooLargeError",
    "TransientError",
]


class GuardAgentError(Exception):
    """Root of everything raised by guardagent."""


class ConfigError(GuardAgentError, ValueError):
    """A setting is wrong: correct it and start again."""


class EventError(GuardAgentError, ValueError):
    """A field of an event or metric is wrong: correct the call that built it."""


class RulesError(GuardAgentError, ValueError):
    """A rules document is wrong; it is refused whole and the rules in force stay."""


class BufferFull(GuardAgentError):
    """The intake is full under `overflow="raise"`: slow down, or drop what you had to say."""


class EncodeError(GuardAgentError):
    """An event cannot be written as JSON at all; only that event is lost, and counted."""


class SpoolError(GuardAgentError):
    """The spool cannot keep records at present; what it held is still there when it is back."""


class FrameError(SpoolError):
    """A record in the spool is damaged or foreign; it goes among the dead letters."""


class DeliveryError(GuardAgentError):
    """The backend did not accept a batch.

    Args:
        message: one line without keys, headers or event content.
        status: the HTTP status, None when there was no answer.
        summary: the message without what the backend wrote, for logs.
    """

    def __init__(
        self, message: str, *, status: int | None = None, summary: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.summary = summary


class TransientError(DeliveryError):
    """Sending the same batch again may help.

    A repeat is safe: batch id and idempotency keys stay the same, so a backend that had accepted
    the first one can tell.

    Args:
        outage: True when the backend is away or broken (counts for the breaker), False when it
            asked for patience (408, 429).
        retry_after: seconds the backend asked to wait, None when it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        outage: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status)
        self.outage = outage
        self.retry_after = retry_after


class RejectedError(DeliveryError):
    """The backend refuses this batch.

    Args:
        final: False for an answer that may be a hiccup of the backend (2xx with
            `"success": false`); it is offered a few times more before it is buried.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        summary: str | None = None,
        final: bool = True,
    ) -> None:
        super().__init__(message, status=status, summary=summary)
        self.final = final


class TooLargeError(RejectedError):
    """The batch is too large for the backend (413): its halves may pass."""


class SetupError(DeliveryError):
    """The backend refuses the settings, not the batch: key, project or address.

    Nothing is lost by it: delivery pauses, keeps everything and asks for the key again.
    """
