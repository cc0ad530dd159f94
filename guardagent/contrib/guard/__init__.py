"""The drop-in agent of fastapi-guard, flaskapi-guard, djapi-guard and tornadoapi-guard.

`install()` makes their `guard_agent` this one. The names load when they are first used, so that
the hook at interpreter start costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardagent.contrib.guard.factory import guard_agent
    from guardagent.contrib.guard.handler import GuardAgentHandler
    from guardagent.contrib.guard.replacement import install, uninstall

_HOMES = {
    "GuardAgentHandler": "handler",
    "guard_agent": "factory",
    "install": "replacement",
    "uninstall": "replacement",
}

__all__ = ["GuardAgentHandler", "guard_agent", "install", "uninstall"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
