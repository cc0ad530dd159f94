"""What happens to pending events when a process ends: one shared deadline for all its agents."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol

from guardagent._clock import SYSTEM_CLOCK

__all__ = ["enroll", "forget", "leave", "settle_all"]


class Leaver(Protocol):
    """What has something to deliver before the process ends."""

    shutdown_timeout: float

    def begin_farewell(self, deadline: float) -> None:
        """Begin to deliver what is pending."""

    def await_farewell(self, deadline: float) -> bool:
        """Wait until that is over; True when nothing is left."""

    def end_farewell(self, *, is_exit: bool) -> None:
        """Go back to ordinary work, or be ready for captures of a process that is ending."""


_live: set[Leaver] = set()
_finalized_pids: set[int] = set()


def enroll(leaver: Leaver) -> None:
    """Have it settled at exit. It is kept alive until it leaves."""
    _live.add(leaver)
    _hear_of_multiprocessing()
    _hear_of_celery()


def _hear_of_multiprocessing() -> None:
    """Its children end through os._exit: no atexit before Python 3.13 (FIELD K1)."""
    # None also while another thread is importing it.
    finalize = getattr(sys.modules.get("multiprocessing.util"), "Finalize", None)
    if finalize is not None and os.getpid() not in _finalized_pids:
        _finalized_pids.add(os.getpid())
        finalize(None, settle_all, exitpriority=100)


def _hear_of_celery() -> None:
    """Its prefork children run neither atexit nor finalizers, and end in os._exit (FIELD K3)."""
    signal = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if signal is not None:
        signal.connect(_end_of_celery_child, weak=False, dispatch_uid="guardagent")


def _end_of_celery_child(**_more: object) -> None:
    settle_all()


def leave(leaver: Leaver) -> None:
    """Have it settled no more."""
    _live.discard(leaver)


def forget() -> None:
    """Forget everything the parent enrolled; for a forked child."""
    _live.clear()
    _finalized_pids.clear()


def settle_all(*, is_exit: bool = True) -> bool:
    """Deliver what is pending everywhere, within the longest `shutdown_timeout` in all.

    Raises nothing and prints nothing, for it runs at exit.
    """
    leavers = list(_live)
    deadline = SYSTEM_CLOCK.monotonic() + max((one.shutdown_timeout for one in leavers), default=0)
    for one in leavers:
        one.begin_farewell(deadline)
    settled = [one.await_farewell(deadline) for one in leavers]
    for one in leavers:
        one.end_farewell(is_exit=is_exit)
    return all(settled)


atexit.register(settle_all)
