"""What a test must not leave behind: threads and sockets."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import attrs

__all__ = ["Belongings"]

_FDS = Path("/proc/self/fd")


@attrs.frozen
class Belongings:
    """The threads and the open sockets of this process at one moment."""

    threads: frozenset[threading.Thread]
    sockets: frozenset[str]

    @classmethod
    def now(cls) -> Belongings:
        """Look."""
        return cls(frozenset(threading.enumerate()), frozenset(_sockets()))

    def leaks(self, patience: float = 5.0) -> list[str]:
        """Name what is here now and was not then, after a last chance to end."""
        deadline = time.monotonic() + patience
        for thread in set(threading.enumerate()) - self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if _sockets() - self.sockets:
            gc.collect()  # what only a cycle keeps open is reported by ResourceWarning
        now = Belongings.now()
        threads = [thread.name for thread in now.threads - self.threads]
        return sorted([*threads, *(now.sockets - self.sockets)])


def _sockets() -> set[str]:
    if not _FDS.is_dir():
        return set()  # no procfs here: threads are still compared
    found = set()
    for descriptor in os.listdir(_FDS):  # noqa: PTH208 - a path's iterdir would keep one open
        try:
            target = os.readlink(_FDS / descriptor)  # noqa: PTH115 - it is no path
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith("socket:"):
            found.add(target)
    return found
