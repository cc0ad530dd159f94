"""Notes that somebody wants the program to end, so that it can end in order."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Interrupts"]


class Interrupts:
    """Holds Ctrl-C and SIGTERM back while it is entered; for the main thread.

    `came` is a plain attribute and no event: a signal may arrive while an event's lock is held.
    """

    def __init__(self) -> None:
        self.came = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, *_signal: object) -> None:
        self.came = True
