"""Captures some events and leaves, in the way the test asks for."""

from __future__ import annotations

import os
import signal
import sys
import threading

from parts import ARGUMENTS, build, capture, heard, report

how = ARGUMENTS["how"]
count = ARGUMENTS.get("count", 20)
patience = ARGUMENTS.get("patience", 10.0)
agents = [build() for _ in range(ARGUMENTS.get("agents", 1))]
agent = agents[0]
report(captured=[key for one in agents for key in capture(one, count)])

if ARGUMENTS.get("told"):
    heard()  # the test wants to see the backend in a certain state first
if how == "flush":
    report(flushed=agent.flush(timeout=patience))
elif how == "stop":
    report(stopped=agent.stop(timeout=patience))
elif how == "sys_exit":
    sys.exit(3)
elif how == "exception":
    raise LookupError("an application error")
elif how == "interrupt":
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(10.0)
elif how == "daemons":
    started = threading.Barrier(5)

    def hammer() -> None:
        started.wait()
        while not threading.Event().wait(0.0002):
            agent.capture({"event_type": "hammered"})

    for _ in range(4):
        threading.Thread(target=hammer, daemon=True).start()
    started.wait()
elif how != "end":
    raise ValueError(how)
