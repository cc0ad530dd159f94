"""Forks processes on demand, so that each begins at once: everything is imported already.

Nothing of the agent runs here. An order is a line of JSON: `count` processes with `settings` do
`work` and write to `ledgers`, one each. Told are their ids, and how each of them ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from itertools import count as counting
from typing import Any

from parts import ARGUMENTS, capture, report

from guardagent import Agent, AgentConfig, SecurityEvent


def hammer(agent: Agent, order: dict[str, Any], ledger: int) -> None:
    """Capture until killed; note each key, and when `capture` had returned."""
    threading.Thread(target=tick, args=(ledger,), daemon=True).start()
    pause, is_first = threading.Event(), True
    for n in counting():
        event = SecurityEvent(event_type="hammered", metadata={"pid": os.getpid()})
        taken = agent.capture(event)
        line = f"{event.idempotency_key} {time.monotonic()} {taken:d}\n"
        os.write(ledger, line.encode())
        if is_first:
            report(begun=os.getpid())
            is_first = False
        if n % 10 == 9:
            pause.wait(order["pause"])


def tick(ledger: int) -> None:
    """Note that a thread got its turn; what is missing between the notes, the machine has kept."""
    pause = threading.Event()
    while not pause.wait(0.005):
        os.write(ledger, f"tick {time.monotonic()} 0\n".encode())


def quit_(agent: Agent, order: dict[str, Any], ledger: int) -> None:
    """Capture, and end in the way that lets nobody do anything, as soon as all is in the spool."""
    begin(agent, order, ledger)
    pause, deadline = threading.Event(), time.monotonic() + order["patience"]
    while agent.stats().spooled < agent.stats().captured and time.monotonic() < deadline:
        pause.wait(0.001)
    os._exit(0)


def fill(agent: Agent, order: dict[str, Any], ledger: int) -> None:
    """Capture in bursts, and leave."""
    begin(agent, order, ledger)
    sum_up(agent, flushed=agent.flush(timeout=order["patience"]))


def empty(agent: Agent, order: dict[str, Any], ledger: int) -> None:
    """Capture in bursts, then deliver until the spool is empty, whoever had filled it."""
    begin(agent, order, ledger)
    flushed = agent.flush(timeout=order["patience"])
    pause, deadline = threading.Event(), time.monotonic() + order["patience"]
    while not pause.wait(0.01) and time.monotonic() < deadline:
        stats = agent.stats()
        if stats.durable and stats.delivered >= order["least"] and stats.pending == 0:
            break
    sum_up(agent, flushed=flushed)


def begin(agent: Agent, order: dict[str, Any], ledger: int) -> None:
    """Start the agent, and capture and note what was ordered."""
    agent.start()
    report(begun=os.getpid())
    pause = threading.Event()
    for _ in range(order["bursts"]):
        keys = capture(agent, order["events"])
        os.write(ledger, "".join(f"{key} {time.monotonic()} 1\n" for key in keys).encode())
        pause.wait(order["pause"])


def sum_up(agent: Agent, **more: Any) -> None:
    """Stop, and report the counters that the equation of a shared spool is made of."""
    stopped = agent.stop(timeout=5.0)
    stats = agent.stats()
    kept = stats.pending - stats.spool_pending + stats.spooled
    report(
        stopped=stopped,
        captured=stats.captured,
        delivered=stats.delivered,
        unspooled=stats.pending - stats.spool_pending,
        spooled=stats.spooled,
        dropped={reason: n for reason, n in stats.dropped.items() if n},
        balanced=stats.captured == stats.delivered + kept + sum(stats.dropped.values()),
        **more,
    )


WORK = {"hammer": hammer, "quit": quit_, "fill": fill, "empty": empty}


def complain(stage: str, error: BaseException, context: object) -> None:
    """Tell of what is wrong with the spool; that the backend is down, the test knows."""
    if stage == "spool":
        report(trouble=str(error), at=time.monotonic())


def live(order: dict[str, Any], number: int) -> None:
    """Be one of the ordered processes."""
    ledger = os.open(order["ledgers"][number], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        agent = Agent(AgentConfig(**order["settings"], on_error=complain))
        WORK[order["work"]](agent, order, ledger)
    except BaseException:  # whatever it is, the test shall read it
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


for name in ARGUMENTS["imports"]:
    import_module(name)
for line in sys.stdin:
    order = json.loads(line)
    pids = []
    for number in range(len(order["ledgers"])):
        pid = os.fork()
        if pid == 0:
            live(order, number)
        pids.append(pid)
    report(pids=pids)
    report(ends=[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
