"""Delivers while the wall clock jumps back and forth by an hour."""

from __future__ import annotations

import itertools
import time

from parts import ARGUMENTS, books, build, capture, report

real = time.time
jumps = itertools.cycle([0.0, 3600.0, -3600.0, 86_400.0 * 365])


def jumping() -> float:
    return real() + next(jumps)


time.time = jumping
agent = build()
keys: list[str] = []
flushed = []
for _ in range(ARGUMENTS.get("rounds", 10)):
    keys += capture(agent, 5)
    flushed.append(agent.flush(timeout=10.0))
report(captured=keys, flushed=all(flushed), stopped=agent.stop(timeout=5.0), **books(agent))
