"""Captures through ten minutes of outage on a clock that runs fast, then while the backlog drains.

500 events make a second of that clock. It says how much memory the process uses.
"""

from __future__ import annotations

import gc
import resource
import threading
from pathlib import Path

from parts import ARGUMENTS, capture, heard, report

from guardagent import Agent, AgentConfig
from guardagent._clock import SystemClock

RATE = 500
#: Events captured at a time, and how many the agent may have in hand before the next.
BURST, IN_HAND = 500, 2_000


def resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


count = ARGUMENTS["count"]
captured = 0
is_over = False


class FastClock(SystemClock):
    """Dates events; intervals are real. It is right again when the outage is over."""

    def __init__(self) -> None:
        super().__init__()
        self._began = super().now() - count / RATE

    def now(self) -> float:
        return super().now() if is_over else self._began + captured / RATE


agent = Agent(AgentConfig(**ARGUMENTS["settings"]), clock=FastClock())
pause = threading.Event()
ledger = Path(ARGUMENTS["ledger"])
memory = []
while captured < count:
    with ledger.open("a") as file:  # a list of them would be memory that grows
        file.write("".join(f"{key}\n" for key in capture(agent, BURST)))
    captured += BURST
    while (stats := agent.stats()).pending - stats.spool_pending > IN_HAND:
        pause.wait(0.002)
    if captured * 4 % count == 0:
        memory.append(resident())
is_over = True
while not (stats := agent.stats()).spool_pending == stats.pending == count:
    pause.wait(0.005)
report(memory=memory, durable=stats.durable, spool_bytes=stats.spool_bytes)
heard()  # the backend is up again, and the backlog drains
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
