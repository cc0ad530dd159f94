"""What uWSGI does in its own way: it forks in C, and its master runs no exit handlers.

A worker that is forked while another thread holds the interpreter's lock waits for it for ever
(FIELD F4). So before the fork nothing is started: what is captured waits in its queue for the first
worker. All answers are "no" in other processes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["is_before_fork", "is_heir", "lacks_threads"]


def _module() -> Any:
    """Return uWSGI's own module, which only its processes have; None elsewhere."""
    module = sys.modules.get("uwsgi")
    return module if hasattr(module, "worker_id") else None


def is_before_fork() -> bool:
    """Tell whether this process loads the application and has still to fork its workers.

    It is a master, or will be the first worker where there is no master; a mule or a spooler is
    neither.
    """
    uwsgi = _module()
    if uwsgi is None or uwsgi.worker_id():
        return False
    is_spooler = getattr(uwsgi, "i_am_the_spooler", None)
    return uwsgi.masterpid() in (0, os.getpid()) and not (is_spooler and is_spooler())


def is_heir() -> bool:
    """Tell whether this worker delivers what the master captured: the first, in its first life."""
    uwsgi = _module()
    if uwsgi is None or uwsgi.worker_id() != 1:
        return False
    respawns: int = uwsgi.workers()[0]["respawn_count"]
    return respawns == 0


def lacks_threads() -> bool:
    """Tell whether the server gives threads no time, as older versions do unless they are told."""
    uwsgi = _module()
    if uwsgi is None:
        return False
    if hasattr(uwsgi, "has_threads"):
        return not uwsgi.has_threads
    options = getattr(uwsgi, "opt", {})
    return not any(
        options.get(name) or options.get(name.encode()) for name in ("enable-threads", "threads")
    )
