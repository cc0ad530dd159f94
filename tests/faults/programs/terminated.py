"""Captures some events and waits for SIGTERM, with the handlers the test asks for."""

from __future__ import annotations

import signal
import sys
import threading

from parts import ARGUMENTS, build, capture, report

how = ARGUMENTS["how"]


def goodbye(number: int, frame: object) -> None:
    report(handled=number)
    sys.exit(7)


if how == "chained":
    signal.signal(signal.SIGTERM, goodbye)
elif how == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
agent = build()
if how == "elsewhere":
    # Python lets only the main thread install a handler.
    starter = threading.Thread(target=agent.start)
    starter.start()
    starter.join()
else:
    agent.start()
default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
report(captured=capture(agent, ARGUMENTS.get("count", 20)), default=default)
if how == "ignored":
    signal.raise_signal(signal.SIGTERM)
    while signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        threading.Event().wait(0.01)  # until the signal has been handed on
    report(survived=True)
else:
    # In short waits: a signal right before a long one is not seen until that is over.
    for _ in range(300):
        threading.Event().wait(0.1)
