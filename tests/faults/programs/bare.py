"""Does as little with the agent as the test says, and reports what that started."""

from __future__ import annotations

import os
import sys
import threading

from parts import ARGUMENTS, report

import guardagent

how = ARGUMENTS["how"]
if how == "constructed":
    agent = guardagent.Agent(guardagent.AgentConfig(**ARGUMENTS["settings"]))
elif how == "disabled":
    agent = guardagent.Agent(guardagent.AgentConfig.from_env())
    report(taken=agent.capture({"event_type": "x"}), flushed=agent.flush(timeout=1.0),
           dropped=dict(agent.stats().dropped), stopped=agent.stop(timeout=1.0))  # fmt: skip
elif how == "global":
    report(taken=guardagent.capture({"event_type": "x"}), agent=repr(guardagent.get_agent()))
elif how == "forked":
    agent = guardagent.Agent(guardagent.AgentConfig(**ARGUMENTS["settings"]))
    pid = os.fork()
    if pid == 0:
        agent.capture({"event_type": "x"})
        sys.exit(0)
    report(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
elif how == "captured":
    agent = guardagent.Agent(guardagent.AgentConfig(**ARGUMENTS["settings"]))
    event = guardagent.SecurityEvent(event_type="x")
    report(taken=agent.capture(event), captured=[event.idempotency_key])
report(threads=threading.active_count(), requests="requests" in sys.modules)
