"""Many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["in_threads"]


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work` in so many threads at once and wait for all."""
    started = threading.Barrier(count)

    def run(number: int) -> None:
        started.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
