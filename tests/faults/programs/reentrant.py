"""Captures from finalizers, weak references and signal handlers that interrupt a capture."""

from __future__ import annotations

import faulthandler
import gc
import signal
import weakref

from parts import ARGUMENTS, books, build, capture, report

how = ARGUMENTS["how"]
count = ARGUMENTS.get("count", 300)
faulthandler.dump_traceback_later(40, exit=True)  # a deadlock shows where
agent = build()
nested: list[str] = []


class Node:
    """Part of a cycle, so that the garbage collector ends it, whenever that runs."""

    def __init__(self) -> None:
        self.me = self


class Finalized(Node):
    def __del__(self) -> None:
        nested.extend(capture(agent))


def on_signal(number: int, frame: object) -> None:
    nested.extend(capture(agent))


keys: list[str] = []
watched: list[weakref.ref[Node]] = []
gc.set_threshold(3, 2, 2)
if how == "signal":
    signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    while len(nested) < count:
        keys += capture(agent, 10)
    signal.setitimer(signal.ITIMER_REAL, 0)
else:
    for _ in range(count):
        if how == "del":
            Finalized()
        else:
            watched.append(weakref.ref(Node(), lambda _: nested.extend(capture(agent))))
        keys += capture(agent, 3, list=[[1], {"a": [2]}])
gc.set_threshold(700, 10, 10)
gc.collect()
flushed = agent.flush(timeout=30.0)
report(captured=keys + nested, nested=len(nested), flushed=flushed, **books(agent))
