"""A shop behind a Guard library that works in the threads of its WSGI server."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from guard_core.sync.handlers.dynamic_rule_handler import DynamicRuleManager

from guardagent.demo._guarded.security import RATE, agent_of, is_in_force, open_shop, security
from guardagent.demo.serving import serving_wsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import WSGIApplication
    from guard_core import SecurityConfig

    from guardagent import AgentConfig, DynamicRules

__all__ = ["ThreadedSite"]


class ThreadedSite:
    """A site of Flask's or Django's.

    Args:
        config: of the agent.
        guard_library: the name of the distribution.
        make_app: builds the guarded application.
    """

    rate = RATE

    def __init__(
        self,
        config: AgentConfig,
        *,
        guard_library: str,
        make_app: Callable[[SecurityConfig], WSGIApplication],
    ) -> None:
        self._security = security(config)
        self._app = make_app(self._security)
        self.agent = agent_of(self._security)
        self.guard_library = guard_library

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve on loopback; gives the port."""
        with serving_wsgi(self._app) as port:
            try:
                open_shop(port)
                yield port
            finally:
                DynamicRuleManager(self._security).stop()

    def obey(self, rules: DynamicRules) -> bool:
        """Have the library ask for rules now; by itself it asks once a minute at most."""
        manager = DynamicRuleManager(self._security)  # there is one in a process: the library's
        manager.force_update()
        return is_in_force(manager.current_rules, rules)
