"""The opt-in SIGTERM handler: deliver what is pending, then hand the signal on."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

from guardagent._exit import settle_all
from guardagent._log import say

__all__ = ["install"]

_log = logging.getLogger(__name__)


class _Handler:
    """Handles SIGTERM in two steps, so that the interrupted code never waits for itself.

    The first call only starts a thread that delivers and then sends the signal again: whatever
    lock the main thread was holding when it was interrupted, it goes on and lets go of it. The
    second call restores the former handler and hands the signal to it, so a process that would
    have died of SIGTERM still does (exit status -15).
    """

    def __init__(self, former: Any) -> None:
        self._former = former
        self._begun_by = 0
        self._settled_by = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        pid = os.getpid()
        if self._begun_by != pid:
            self._begun_by = pid
            self._begin(pid, signum)
        elif self._settled_by == pid:
            self._hand_on(signum, frame)

    def _begin(self, pid: int, signum: int) -> None:
        def deliver() -> None:
            settle_all(is_exit=False)
            self._settled_by = pid
            os.kill(pid, signum)

        try:
            threading.Thread(target=deliver, name="guardagent-sigterm", daemon=True).start()
        except RuntimeError:  # no thread can be started any more
            deliver()

    def _hand_on(self, signum: int, frame: FrameType | None) -> None:
        former = self._former
        signal.signal(signum, former if former is not None else signal.SIG_DFL)
        if callable(former):
            former(signum, frame)
        elif former is not signal.SIG_IGN:
            os.kill(os.getpid(), signum)


def install() -> None:
    """Put the handler in front of the present one; off the main thread only warn."""
    if threading.current_thread() is not threading.main_thread():
        message = "flush_on_sigterm needs start() on the main thread; no handler was installed."
        say(_log, logging.WARNING, message)
        return
    former = signal.getsignal(signal.SIGTERM)
    if not isinstance(former, _Handler):
        signal.signal(signal.SIGTERM, _Handler(former))
