"""Reports the modules that the agent's threads imported after they were started."""

from __future__ import annotations

import sys

from parts import build, capture, report

agent = build()
agent.start()
before = set(sys.modules)
keys = capture(agent, 20)
flushed = agent.flush(timeout=20.0)
agent.stop(timeout=5.0)
report(captured=keys, flushed=flushed, late=sorted(set(sys.modules) - before))
