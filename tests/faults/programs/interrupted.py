"""Raises an exception out of nowhere in a thread of the agent, once or until it dies."""

from __future__ import annotations

import ctypes
import threading

from parts import ARGUMENTS, books, build, capture, report

name = ARGUMENTS["victim"]
seen: list[str] = []
deaths: list[str] = []
was_told = threading.Event()


def on_error(stage: str, error: BaseException, context: object) -> None:
    seen.append(f"{stage} {type(error).__name__}")
    was_told.set()


def interrupt(thread: threading.Thread) -> None:
    """Raise SystemExit at the thread's next bytecode."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    )


threading.excepthook = lambda args: deaths.append(args.thread.name)
agent = build(on_error=on_error)
keys = capture(agent, 20)
agent.flush(timeout=10.0)
victim = next(thread for thread in threading.enumerate() if thread.name == name)
interrupt(victim)
keys += capture(agent, 20)
was_told.wait(10.0)
while ARGUMENTS["dies"] and victim.is_alive():
    interrupt(victim)  # now it is recovering from the last one: this is more than it survives
    victim.join(1.0)
keys += capture(agent, 20)
flushed = agent.flush(timeout=10.0)
is_new = all(thread is not victim for thread in threading.enumerate() if thread.name == name)
report(captured=keys, flushed=flushed, stopped=agent.stop(timeout=10.0), seen=seen, is_new=is_new,
       **books(agent))  # fmt: skip
