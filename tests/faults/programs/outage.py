"""Captures 500 events a second through an outage and after it, and says how much memory that takes.

All clocks are real: what is scaled are the settings, and the length of the outage with them.
"""

from __future__ import annotations

import gc
import resource
import threading
import time
from pathlib import Path
from typing import Any

from parts import ARGUMENTS, build, capture, heard, report

#: A burst every so many seconds makes 500 events a second.
BURST, INTERVAL = 25, 0.05
NOTES = {f"note_{number}": "x" * 1_000 for number in range(3)}
SAMPLES = 8

agent = build()
pause = threading.Event()


class Stream(threading.Thread):
    """What goes on being captured, whatever else happens."""

    def __init__(self) -> None:
        super().__init__()
        self._is_over = threading.Event()
        self.captured = 0

    def run(self) -> None:
        begun = time.monotonic()
        with Path(ARGUMENTS["ledger"]).open("w") as ledger:  # a list would be memory that grows
            while not self._is_over.wait(
                begun + self.captured / BURST * INTERVAL - time.monotonic()
            ):
                ledger.writelines(f"{key}\n" for key in capture(agent, BURST, **NOTES))
                self.captured += BURST

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def wait_until_spooled() -> dict[str, Any]:
    while not (stats := agent.stats()).durable or stats.spool_pending < stats.pending:
        pause.wait(0.005)
    return {"durable": stats.durable, "spool_bytes": stats.spool_bytes}


stream = Stream()
stream.start()
memory = []
for _ in range(SAMPLES):
    pause.wait(ARGUMENTS["seconds"] / SAMPLES)
    memory.append(resident())
report(captured=stream.captured, memory=memory, **wait_until_spooled())
heard()  # the backend is up again, and the backlog drains
fresh = capture(agent, 10, fresh=True)
report(captured=fresh, memory=[resident()], **wait_until_spooled())
heard()
stream.stop()
flushed = agent.flush(timeout=ARGUMENTS["patience"])
stats = agent.stats()
report(
    flushed=flushed,
    memory=[resident()],
    captured=stream.captured,
    pending=stats.pending,
    dropped=sum(stats.dropped.values()),
)
agent.stop(timeout=5.0)
