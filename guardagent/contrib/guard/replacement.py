"""Makes `import guard_agent` give guardagent: a finder in front of all others.

Light: what it puts in the place of guard-agent is imported when that is first imported.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardagent.contrib.guard.handler import MakeAgent

from guardagent import _fork

__all__ = ["install", "replace", "uninstall"]

_PACKAGE = "guard_agent"
#: What all four Guard libraries import first, at the top of the application.
_LIBRARY = "guard_core"

_MODELS = {
    name: f"guardagent.contrib.guard.models:{name}"
    for name in ("AgentConfig", "DynamicRules", "EventBatch", "SecurityEvent", "SecurityMetric")
}
_CLIENT = {
    "GuardAgentHandler": "guardagent.contrib.guard.handler:GuardAgentHandler",
    "guard_agent": "guardagent.contrib.guard.factory:guard_agent",
}
_STATUS = {"AgentStatus": "guardagent.status:AgentStatus"}
_ERRORS = {
    "BufferFullError": "guardagent.errors:BufferFull",
    "GuardAgentError": "guardagent.errors:GuardAgentError",
}

#: What each module has to offer. The Guard libraries import the first two; applications that use
#: guard-agent themselves also the others.
_CONTENTS: dict[str, dict[str, str]] = {
    _PACKAGE: {
        "__version__": "guardagent._version:__version__",
        **_CLIENT,
        **_MODELS,
        **_STATUS,
        **_ERRORS,
    },
    f"{_PACKAGE}.models": {**_MODELS, **_STATUS},
    f"{_PACKAGE}.client": _CLIENT,
    f"{_PACKAGE}.exceptions": _ERRORS,
}


class _Finder(MetaPathFinder, Loader):
    """Finds and loads the modules of `_CONTENTS`."""

    def __init__(self) -> None:
        self.flushes_on_sigterm = False
        self.lock = threading.RLock()  # guards putting it into sys.meta_path, once
        _fork.watch(self)

    def _begin_anew(self) -> None:
        """Let go of a lock that a thread of the parent may hold for ever."""
        self.lock = threading.RLock()

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for what is replaced, None for all other modules."""
        if name == _LIBRARY and self.flushes_on_sigterm:
            _prepare_for_sigterm()
        if name not in _CONTENTS:
            return None
        # A package with an empty path: nothing of an installed guard-agent is found through it.
        return ModuleSpec(name, self, origin="guardagent", is_package=name == _PACKAGE)

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Have an ordinary module made."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        module.__doc__ = "guardagent in the place of guard-agent."
        for name, place in _CONTENTS[module.__name__].items():
            home, _, attribute = place.partition(":")
            setattr(module, name, getattr(import_module(home), attribute))
        if module.__name__ == _PACKAGE:
            import_module(f"{_PACKAGE}.models")


_finder = _Finder()


def install(
    *, flush_on_sigterm: bool = True, make_agent: MakeAgent | None = None, **settings: Any
) -> None:
    """Put guardagent in the place of guard-agent, installed or not; idempotent.

    Call it before the Guard library builds its middleware; nothing is started by it.

    Args:
        flush_on_sigterm: deliver what is pending when the process is told to end and nothing else
            would see to it, as under uvicorn; see `guardagent.contrib._termination`.
        make_agent: builds the agent of each configuration, for a subclass of `guardagent.Agent`
            or one with a transport of its own.
        settings: fields of `guardagent.AgentConfig` beside those of the Guard library, such as
            `spool` or `shutdown_timeout`; they win. Those neither names come from the environment.

    Raises:
        ConfigError: there is no such setting, or its value is wrong.
    """
    if settings:
        from guardagent.contrib.guard.factory import configure

        configure(settings)
    if make_agent is not None:
        from guardagent.contrib.guard.factory import build_with

        build_with(make_agent)
    replace(flush_on_sigterm=flush_on_sigterm)
    if flush_on_sigterm:
        _prepare_for_sigterm()


def replace(*, flush_on_sigterm: bool) -> None:
    """Install the finder; the signal handler comes when a Guard library is imported."""
    _finder.flushes_on_sigterm = flush_on_sigterm
    with _finder.lock:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
    _forget(foreign_only=True)


def uninstall() -> None:
    """Let `import guard_agent` find what is installed again; handlers at work go on."""
    with _finder.lock:
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
    _forget(foreign_only=False)


def _forget(*, foreign_only: bool) -> None:
    """Have the modules imported again; who holds the former ones keeps them."""
    # A copy: other threads import at the same time.
    named = [one for one in sys.modules.copy().items() if one[0].partition(".")[0] == _PACKAGE]
    going = [name for name, module in named if not (foreign_only and _is_ours(module))]
    for name in going:
        sys.modules.pop(name, None)
    if going and foreign_only:
        message = "guard-agent was imported before install(): what was taken from it stays its own."
        logging.getLogger(__name__).warning(message)


def _is_ours(module: ModuleType) -> bool:
    return getattr(getattr(module, "__spec__", None), "loader", None) is _finder


def _prepare_for_sigterm() -> None:
    from guardagent.contrib._termination import prepare

    prepare()
