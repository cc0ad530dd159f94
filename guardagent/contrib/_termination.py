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

__all__ = ["end_uvicorn_normally", "prepare"]


def prepare() -> None:
    """See to SIGTERM where nobody does; off the main thread and for other handlers do nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _signals.install()
    else:
        end_uvicorn_normally()


def end_uvicorn_normally() -> bool:
    """Have the uvicorn server of this process end at SIGTERM like any program, if there is one.

    For applications that were imported after it took the signals (its worker processes, and older
    versions), and for those without a lifespan: the default action is what it will put back and
    raise, and nothing runs then.

    Returns:
        Whether there is one that handles SIGTERM. Off the main thread there never is.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not _is_uvicorn(server):
        return False
    signal.signal(signal.SIGTERM, _EndNormally(server))
    return True


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
