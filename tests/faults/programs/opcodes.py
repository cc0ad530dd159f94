"""Interrupts capture, and the agent's own threads, with a capture at each single bytecode."""

from __future__ import annotations

import faulthandler
import gc
import itertools
import queue
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from parts import ARGUMENTS, books, build, report

import guardagent

where = ARGUMENTS["where"]
faulthandler.dump_traceback_later(50, exit=True)
sources = {str(Path(guardagent.__file__).parent), queue.__file__}
agent = build()
#: Bytecodes to let pass between two interruptions; prime, so that all come to be hit.
stride = ARGUMENTS.get("stride", 1)
#: Each capture makes the agent's threads work, which interrupts them again: it has to end.
limit = ARGUMENTS.get("limit", 2_000)
taken: list[str] = []
refused: list[str] = []
passed = itertools.count(1)


class Cycle:
    """Captures when the garbage collector ends it."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        event = guardagent.SecurityEvent(event_type="nested", metadata={"a": 1})
        (taken if agent.capture(event) else refused).append(event.idempotency_key)


def interrupt() -> None:
    """Capture in a finalizer, every so often; nothing is traced meanwhile."""
    if next(passed) % stride == 0 and len(taken) + len(refused) < limit:
        Cycle()
        gc.collect(0)


def trace(frame: FrameType, what: str, argument: Any) -> Any:
    name = frame.f_code.co_filename
    if not any(name.startswith(source) for source in sources):
        return None
    frame.f_trace_opcodes = True
    if what == "opcode":
        interrupt()
    return trace


gc.collect()
gc.freeze()
gc.disable()
if where == "intake":
    threading.settrace(trace)
    agent.start()
    threading.settrace(None)
outer = []
for _ in range(ARGUMENTS["count"]):
    event = guardagent.SecurityEvent(event_type="outer", metadata={"a": [1]})
    if where == "capture":
        sys.settrace(trace)
    if agent.capture(event):
        outer.append(event.idempotency_key)
    sys.settrace(None)
flushed = agent.flush(timeout=40.0)
report(captured=outer + taken, outer=len(outer), nested=len(taken), refused=len(refused),
       flushed=flushed, stopped=agent.stop(timeout=20.0), **books(agent))  # fmt: skip
