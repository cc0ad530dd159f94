"""A shop behind a Guard library that works on an event loop."""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from guard_core.handlers.dynamic_rule_handler import DynamicRuleManager

from guardagent.demo._guarded.security import RATE, agent_of, is_in_force, open_shop, security
from guardagent.demo.serving import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard_core import SecurityConfig

    from guardagent import AgentConfig, DynamicRules

    Serve = Callable[[SecurityConfig, socket.socket], AbstractAsyncContextManager[None]]

__all__ = ["LoopingSite"]


class LoopingSite:
    """A site of FastAPI's or Tornado's.

    Args:
        config: of the agent.
        guard_library: the name of the distribution.
        serve: builds the guarded application and serves it on a socket that listens.
    """

    rate = RATE

    def __init__(self, config: AgentConfig, *, guard_library: str, serve: Serve) -> None:
        self._security = security(config)
        self._serve = serve
        self._loop = LoopThread()
        self.agent = agent_of(self._security)
        self.guard_library = guard_library

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve on loopback, on a loop in a thread; gives the port."""
        with socket.create_server(("127.0.0.1", 0)) as listener, self._loop:
            port: int = listener.getsockname()[1]
            serving = AsyncExitStack()
            self._loop.run(serving.enter_async_context(self._serve(self._security, listener)))
            serving.push_async_callback(DynamicRuleManager(self._security).stop)
            try:
                open_shop(port)
                yield port
            finally:
                self._loop.run(serving.aclose())

    def obey(self, rules: DynamicRules) -> bool:
        """Have the library ask for rules now; by itself it asks once a minute at most."""
        manager = DynamicRuleManager(self._security)  # there is one in a process: the library's
        self._loop.run(manager.force_update())
        return is_in_force(manager.current_rules, rules)
