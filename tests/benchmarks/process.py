"""What the operating system says of this process (Linux)."""

from __future__ import annotations

import gc
import os
import resource
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cpu_seconds", "memory_bytes", "refusing_port", "resident_bytes", "voluntary_switches"]


def cpu_seconds() -> float:
    """Give the user and system time of all threads since the process began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_bytes() -> int:
    """Give the resident memory after a collection of garbage."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def voluntary_switches() -> int:
    """Count how often any thread now alive has gone to sleep."""
    # /proc/self/status tells of the main thread only.
    return sum(
        int(line.split()[1])
        for task in Path("/proc/self/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def memory_bytes() -> int:
    """Give the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def refusing_port() -> Iterator[int]:
    """Bind a port and never listen on it, so that every connection to it is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
