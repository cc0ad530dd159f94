"""The part of the disk that appends leave free.

Whoever empties a spool writes to its disk, too: a claim, a settlement or a purge goes to the log
first. A spool that had filled its disk to the last byte could never be emptied again.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

__all__ = ["Disk"]

#: Bytes to leave free, and the part of a small file system that is enough.
_RESERVE, _PART = 16 * 1024 * 1024, 8
#: Seconds for which an answer holds, unless much is appended meanwhile.
_HOLDS = 1.0


class Disk:
    """The file system of a spool's file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._log = path.with_name(f"{path.name}-wal")
        self._asked_at = float("-inf")
        self._unseen = 0
        #: Bytes that appends leave free.
        self.reserve = _RESERVE

    def measure(self) -> None:
        """Learn how large it is."""
        total = self._usage()[0]
        self.reserve = min(_RESERVE, total // _PART) if total else _RESERVE
        self._asked_at = float("-inf")

    def takes(self, nbytes: int) -> bool:
        """Tell whether it takes so many bytes more; cheap, for it looks now and then only."""
        self._unseen += nbytes
        now = time.monotonic()
        if now - self._asked_at < _HOLDS and self._unseen < self.reserve // 16:
            return True
        self._asked_at = float("-inf")
        if not self.has_room(nbytes):
            return False
        self._asked_at, self._unseen = now, 0
        return True

    def has_room(self, nbytes: int, *, spare: int = 0) -> bool:
        """Look whether it takes so many bytes more.

        They lie in the log before they lie in the file; and all of the log that is there now may
        have to go into the file. What finds room in the file, `spare` bytes, may take half of the
        reserve: it comes when records go.
        """
        total, free = self._usage()
        if not total:
            return True
        more = max(0, nbytes - spare)
        reserve = self.reserve if more else self.reserve // 2
        return free - self._log_bytes() >= reserve + nbytes + more

    def _usage(self) -> tuple[int, int]:
        """Return its size and what is free; zeros when that cannot be told."""
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return 0, 0
        return usage.total, usage.free

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
