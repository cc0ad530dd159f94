"""A parent and its children of multiprocessing: they capture and wait, it ends them.

The first argument is the way the children are started.
"""

from __future__ import annotations

import multiprocessing
import sys

from journal import agent, capture, note


def work(has_captured: multiprocessing.Barrier, over: multiprocessing.Event) -> None:
    """Capture, say so, and wait for the end."""
    capture(2, "child")
    has_captured.wait()
    # In short waits: a signal that comes right before a long one is not seen until that is over.
    while not over.wait(0.1):
        pass


if __name__ == "__main__":
    agent.start()  # on the main thread, where `flush_on_sigterm` takes the signal
    capture(3, "parent")
    context = multiprocessing.get_context(sys.argv[1])
    has_captured, over = context.Barrier(4), context.Event()
    children = [context.Process(target=work, args=(has_captured, over)) for _ in range(3)]
    for child in children:
        child.start()
    has_captured.wait()
    for child in children:
        child.terminate()
    for child in children:
        child.join()
        note(f"ended with {child.exitcode}")
