"""Captures under gevent, patched before the agent is imported, after, or never."""

from __future__ import annotations

import os
import sys
import time

from gevent import monkey

if "before" in sys.argv[1]:
    monkey.patch_all()

import gevent
from parts import ARGUMENTS, books, build, capture, report

how = ARGUMENTS["how"]
count = ARGUMENTS.get("count", 50)
patience = ARGUMENTS.get("patience", 10.0)
agent = build()
if how == "after":
    monkey.patch_all()
elif how == "after_start":
    report(captured=capture(agent, count), flushed=agent.flush(timeout=20.0))
    monkey.patch_all()
elif how == "preloaded":
    # A preloading server: the master works without gevent, its child is patched.
    report(captured=capture(agent, count), flushed=agent.flush(timeout=20.0))
    pid = os.fork()
    if pid != 0:
        os.waitpid(pid, 0)
        sys.exit(0)
    monkey.patch_all()
beats: list[float] = []


def heartbeat() -> None:
    """Notice when something holds the hub."""
    last = time.perf_counter()
    while True:
        gevent.sleep(0.005)
        now = time.perf_counter()
        beats.append(now - last)
        last = now


pulse = gevent.spawn(heartbeat)
greenlets = [gevent.spawn(capture, agent, count) for _ in range(4)]
gevent.joinall(greenlets)
report(captured=[key for greenlet in greenlets for key in greenlet.value])
if ARGUMENTS.get("hangs"):
    gevent.sleep(1.0)
    report(longest=max(beats), beats=len(beats))
elif how == "cycles_before":
    for _ in range(100):
        other = build()
        report(captured=capture(other), stopped=other.stop(timeout=10.0))
else:
    report(flushed=agent.flush(timeout=20.0), **books(agent))
pulse.kill()
if how != "exit_before":
    report(stopped=agent.stop(timeout=patience))
