"""What happens to pending events when a process is told to end (GUARD.md 7).

A server that ends normally needs nothing: `atexit` delivers. It does not run where SIGTERM keeps
its default action, nor under uvicorn, which puts back the former handlers when it has shut down
and raises the signal again.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from guardagent import _signals

__all__ = ["prepare"]


def prepare() -> None:
    """See to SIGTERM where nobody does; off the main thread and for other handlers do nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    former = signal.getsignal(signal.SIGTERM)
    server = getattr(former, "__self__", None)
    if former is signal.SIG_DFL:
        _signals.install()
    elif _is_uvicorn(server):
        # The application was imported after uvicorn took the signals (its worker processes, and
        # older versions): the default action is what it will put back and raise.
        signal.signal(signal.SIGTERM, _EndNormally(server))


class _EndNormally:
    """Has a uvicorn server shut down without raising the signal again afterwards.

    `should_exit` is uvicorn's own way to be stopped by a program. What the last requests report
    is then delivered at the normal exit, with status 0.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        self._server.should_exit = True


def _is_uvicorn(server: object) -> bool:
    module = sys.modules.get("uvicorn.server")
    kind = getattr(module, "Server", None)
    return isinstance(kind, type) and isinstance(server, kind) and hasattr(server, "should_exit")
