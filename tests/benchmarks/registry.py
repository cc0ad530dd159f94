"""The subjects by name, in the order of the tables."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .subjects.subject import Subject

__all__ = ["NAMES", "SERVED_ONLY", "SPOOLS", "is_installed", "subject_class"]

# Named, not imported: one peer's imports must not weigh on another's process.
_PLACES = {
    "none": "yardstick.Nothing",
    "queue": "yardstick.QueuePut",
    "json": "yardstick.JSONDumps",
    "orjson": "yardstick.ORJSONDumps",
    "guardagent": "guardagent.GuardAgent",
    "guardagent-shim": "guardagent.GuardAgentShim",
    "guardagent-sqlite": "guardagent.GuardAgentSQLite",
    "guardagent-redis": "guardagent.GuardAgentRedis",
    "guard-agent-async": "guard_agent.GuardAgentAsync",
    "guard-agent-sync": "guard_agent.GuardAgentSync",
    "sentry": "sentry.SentryLogs",
    "opentelemetry": "opentelemetry.OpenTelemetryLogs",
    "libhoney": "libhoney.Libhoney",
    "posthog": "posthog.Posthog",
}

NAMES = tuple(_PLACES)
# guardagent with spools that survive the process; "guardagent" has the one in memory.
SPOOLS = ("guardagent-sqlite", "guardagent-redis")
# Measured in served applications alone, because they are nothing without one.
SERVED_ONLY = ("none", "guardagent-shim")


def subject_class(name: str) -> type[Subject]:
    """Import the subject called ``name``."""
    module, _, attribute = _PLACES[name].partition(".")
    found: type[Subject] = getattr(import_module(f"{__package__}.subjects.{module}"), attribute)
    return found


def is_installed(module: str | None) -> bool:
    """Tell whether ``module`` can be imported, without importing all of it."""
    try:
        return module is None or find_spec(module) is not None
    except ModuleNotFoundError:
        return False
