"""What delivery needs of a transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from guardagent.spool.protocol import Batch

__all__ = ["BACKOFF_MAX", "RETRY_AFTER_MAX", "Receipt", "Transport", "TransportFactory"]

#: Longest back-off, and longest wait a backend may ask for, in seconds.
BACKOFF_MAX = 60.0
RETRY_AFTER_MAX = 300.0


@attrs.frozen
class Receipt:
    """The backend's acceptance of a batch.

    Args:
        bytes_sent: bytes of the body, as sent.
        rejected: idempotency keys the backend refused for good, each with its reason; the rest
            of the batch is accepted.
        is_doubtful: the backend called the whole a failure; it counts as accepted only if
            `rejected` says of some of this batch why.
    """

    bytes_sent: int = 0
    rejected: Mapping[str, str] = attrs.field(factory=dict)
    is_doubtful: bool = False


class Transport(Protocol):
    """Takes batches to the backend; write your own to send events anywhere else.

    `send`, `close` and `after_fork` are called by one thread at a time.
    """

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        """Deliver a batch, or say why not.

        Args:
            batch: what to send; the same object, with the same id, on every attempt.
            deadline: monotonic second at which the process gives up; when set, make one attempt
                and neither retry nor wait.

        Raises:
            TransientError: sending it again may help; it is kept.
            TooLargeError: its halves may pass.
            RejectedError: the backend will never take it.
            SetupError: key or address are refused; everything is kept.
        """
        ...

    def abort(self) -> None:
        """Make a `send` that hangs in another thread fail soon."""
        ...

    def close(self) -> None:
        """Close connections; a later `send` may open new ones."""
        ...

    def after_fork(self) -> None:
        """Let go of what a forked child inherited, without a word to the peer."""
        ...


class TransportFactory(Protocol):
    """Makes the transport of one process."""

    def __call__(
        self,
        *,
        pause: Callable[[float], bool],
        on_failure: Callable[[str], object],
        on_retry: Callable[[], None],
    ) -> Transport:
        """Make it; the hooks are what `transport.retry` needs to wait and to tell."""
        ...
