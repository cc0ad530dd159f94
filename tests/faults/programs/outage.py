"""Captures through ten minutes of outage on a clock that runs fast, then while the backlog drains.

500 events make a second of that clock. It says how much memory the process uses.
"""

from __future__ import annotations

import gc
import resource
import threading
import time
from pathlib import Path

from parts import ARGUMENTS, build, capture, heard, report

RATE = 500
#: Events captured at a time, and how many the agent may have in hand before the next.
BURST, IN_HAND = 500, 2_000


def resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


count = ARGUMENTS["count"]
real = time.time
captured = 0
is_over = False


def fast() -> float:
    """Return the time of the fast clock; it is right again when the outage is over."""
    return real() if is_over else began + captured / RATE


began = real() - count / RATE
time.time = fast
agent = build()
pause = threading.Event()
ledger = Path(ARGUMENTS["ledger"]).open("w")
memory = []
while captured < count:
    ledger.write("".join(f"{key}\n" for key in capture(agent, BURST)))
    captured += BURST
    while (stats := agent.stats()).pending - stats.spool_pending > IN_HAND:
        pause.wait(0.002)
    if captured * 4 % count == 0:
        memory.append(resident())
is_over = True
ledger.close()
while not (stats := agent.stats()).spool_pending == stats.pending == count:
    pause.wait(0.005)
report(memory=memory, durable=stats.durable, spool_bytes=stats.spool_bytes)
heard()  # the backend is up again
report(captured=capture(agent, 10, fresh=True))
flushed = agent.flush(timeout=ARGUMENTS["patience"])
stats = agent.stats()
report(
    flushed=flushed,
    memory=[resident()],
    delivered=stats.delivered,
    pending=stats.pending,
    dropped=sum(stats.dropped.values()),
)
agent.stop(timeout=5.0)
