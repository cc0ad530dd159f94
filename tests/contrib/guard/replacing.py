"""Imports guard-agent's names by their old addresses; prints whose they are.

Given: install (by a call), hidden (guard-agent), before (guard-agent is imported first).
"""

import importlib
import importlib.util
import json
import logging
import signal
import sys

import guarded

given = json.loads(sys.argv[1])
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
if given.get("hidden"):
    sys.meta_path.insert(0, guarded.Hidden())
if given.get("before"):
    import guard_agent.models
if given.get("install"):
    from guardagent.contrib import guard

    guard.install()
else:
    importlib.import_module("guardagent.contrib.guard.auto")

loaded = "guardagent.agent" in sys.modules
owners = {}
for name in ("guard_agent", "guard_agent.models", "guard_agent.client", "guard_agent.exceptions"):
    try:
        module = importlib.import_module(name)
        owners[name] = module.__spec__.origin == "guardagent"
    except ModuleNotFoundError:
        owners[name] = None
report = {"loaded_early": loaded, "owners": owners}
if owners["guard_agent"]:
    from guard_agent import AgentConfig, guard_agent
    from guard_agent.models import SecurityEvent

    handler = guard_agent(AgentConfig(api_key="a-key-of-the-tests", endpoint=given["endpoint"]))
    event = SecurityEvent(event_type="replaced", handler_name="tests")
    report["sent"] = bool(handler.send_event(event))
    report["same"] = handler is guard_agent(
        AgentConfig(api_key="a-key-of-the-tests", endpoint=given["endpoint"])
    )
    report["spec"] = importlib.util.find_spec("guard_agent.models") is not None
    report["others"] = not given.get("hidden") and bool(
        importlib.util.find_spec("guard_agent.encryption")
    )
    report["has_handler"] = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
if given.get("install"):
    guard.uninstall()
    try:
        module = importlib.import_module("guard_agent")
        report["restored"] = module.__spec__.origin != "guardagent"
    except ModuleNotFoundError:
        report["restored"] = None
print(json.dumps(report), flush=True)
