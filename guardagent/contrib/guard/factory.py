"""Makes one handler for each configuration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import attrs

from guardagent import _fork
from guardagent._log import say
from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.contrib.guard.handler import GuardAgentHandler, MakeAgent

__all__ = ["build_with", "configure", "guard_agent", "translate"]

_log = logging.getLogger(__name__)

_OVERFLOW = {"drop": "drop_oldest", "block": "block", "raise": "raise"}
#: Settings of the Guard libraries with another name here, or without an equal.
_RENAMED = {"compression_enabled": "compression"}
_WITHOUT_EQUAL = {"max_concurrent_flushes"}
_KNOWN = {field.name for field in attrs.fields(AgentConfig)}


class _Registry:
    """The handlers of this process, and what `install` said of them."""

    def __init__(self) -> None:
        self.handlers: dict[AgentConfig, GuardAgentHandler] = {}
        self.settings: Mapping[str, Any] = {}
        self.make_agent: MakeAgent = Agent
        self.lock = threading.RLock()  # guards handlers; replaced after a fork
        _fork.watch(self)

    def _begin_anew(self) -> None:
        self.lock = threading.RLock()


_registry = _Registry()


def configure(settings: Mapping[str, Any]) -> None:
    """Add settings to those of every Guard library; these win.

    Raises:
        ConfigError: there is no such setting, or its value is wrong.
    """
    AgentConfig.from_env(**settings)
    _registry.settings = dict(settings)


def build_with(make_agent: MakeAgent) -> None:
    """Have the agents of handlers to come built by this, and no longer by `Agent` itself."""
    _registry.make_agent = make_agent


def guard_agent(config: Any) -> GuardAgentHandler:
    """Return the handler of this configuration: the same one each time it is asked for.

    Args:
        config: an `AgentConfig` of guardagent, used as it is; or the settings of a Guard library,
            which `install` and then the environment complete.

    Raises:
        ConfigError: a setting is wrong.
    """
    if not isinstance(config, AgentConfig):
        given = translate(config.model_dump())
        config = AgentConfig.from_env(**{**given, **_registry.settings})
    with _registry.lock:
        handler = _registry.handlers.get(config)
        if handler is None:
            handler = GuardAgentHandler(config, make_agent=_registry.make_agent)
            _registry.handlers[config] = handler
    return handler


def translate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rename a Guard library's settings; those of a later version, unknown here, are left out.

    `buffer_size` is what is buffered at most there, and `high_watermark_ratio` the part of it at
    which a flush begins, which is what `buffer_size` means here.
    """
    settings = {_RENAMED.get(name, name): value for name, value in given.items()}
    ratio = settings.pop("high_watermark_ratio", None)
    size = settings.get("buffer_size")
    if isinstance(ratio, float) and isinstance(size, int) and 0 < ratio <= 1:
        settings["buffer_size"] = max(1, int(size * ratio))
    policy = settings.pop("buffer_overflow_policy", None)
    if policy is not None:
        settings["overflow"] = _OVERFLOW.get(policy, policy)
    unknown = settings.keys() - _KNOWN
    if unknown - _WITHOUT_EQUAL:
        names = ", ".join(sorted(unknown - _WITHOUT_EQUAL))
        say(_log, logging.WARNING, "Settings of the Guard library that do nothing here: %s.", names)
    return {name: settings[name] for name in settings if name not in unknown}
