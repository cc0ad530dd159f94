"""A daemon thread that repeats a room's turn, survives what it raises and can be restarted."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from guardagent import _uwsgi
from guardagent._clock import Bell

__all__ = ["Loop"]

_log = logging.getLogger(__name__)

_AFTER_CRASH = 0.5
_BUSY = 0.01


class Loop:
    """Repeats `turn` until told to end.

    Args:
        name: of the thread.
        turn: does a piece of work; returns the seconds to wait, None to wait for the bell.
        bell: wakes the thread; nobody else may wait on it.
        on_error: told of exceptions that came out of `turn`.
        on_exit: called when the thread ends for whatever reason.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], float | None],
        bell: Bell,
        on_error: Callable[[BaseException], object],
        on_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._turn = turn
        self._bell = bell
        self._on_error = on_error
        self._on_exit = on_exit
        self._turning = threading.Lock()  # held during a turn; never waited for
        self._starting = threading.Lock()  # guards starting twice; never waited for
        self._thread: threading.Thread | None = None
        self._ended = False

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        thread = self._thread
        # While the interpreter is torn down, daemon threads are frozen and no more are born; a
        # thread that is started then is waited for without end (3.10, 3.11).
        return thread is not None and thread.is_alive() and not sys.is_finalizing()

    def turn(self) -> float | None:
        """Do one turn in the calling thread, unless the loop's own is in one."""
        if not self._turning.acquire(blocking=False):
            return _BUSY
        try:
            return self._turn()
        finally:
            self._turning.release()

    def ensure(self) -> bool:
        """Start the thread if it does not run; False when none can be started yet or any more."""
        if self.is_alive():
            return True
        if self._ended or sys.is_finalizing() or _uwsgi.is_before_fork():
            return False
        if not self._starting.acquire(blocking=False):
            return True  # another caller is starting it at this moment
        try:
            if not self.is_alive():
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            return False  # the interpreter is ending (3.12), or threads are refused or used up
        finally:
            self._starting.release()
        return True

    def end(self) -> None:
        """Ask the thread to end after its turn."""
        self._ended = True
        self._bell.ring()

    def revive(self) -> None:
        """Allow starting again after `end`."""
        self._ended = False

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end; True when it has, or when the caller is that thread."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, timeout))
        return not thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._ended:
                try:
                    wait = self.turn()
                    if wait != 0 and not self._ended:
                        self._bell.wait(wait)
                except BaseException as error:  # even a killed thread leaves nothing undone
                    self._on_error(error)
                    self._bell.wait(_AFTER_CRASH)
        finally:
            self._on_exit()
