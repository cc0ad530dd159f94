"""What the play asks of a web application."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from guardagent import AgentConfig

if TYPE_CHECKING:
    from guardagent import DynamicRules
    from guardagent.demo.probe import ProbedAgent

__all__ = ["ATTACK", "BLOCKED", "MakeSite", "Site"]

#: The type of the event for a hostile request, here and in guard-core.
ATTACK = "penetration_attempt"

#: The type of the event for a request that the dynamic rules turn away, here and in guard-core.
BLOCKED = "ip_blocked"


class Site(Protocol):
    """A small web shop in this process, and the agent it reports through.

    Constructing it starts nothing.
    """

    @property
    def agent(self) -> ProbedAgent:
        """What it reports through; it stays the same one."""
        ...

    @property
    def guard_library(self) -> str:
        """The name of the library that finds the attacks; empty: the shop does it itself."""
        ...

    @property
    def rate(self) -> float:
        """Visits a second that it is made for."""
        ...

    def serving(self) -> AbstractContextManager[int]:
        """Serve on loopback, on the port that is given, until the context is left."""
        ...

    def obey(self, rules: DynamicRules) -> bool:
        """Put rules that the agent has into force; False: it cannot be done yet.

        Called by the thread of the play, while it serves.
        """
        ...


#: Builds a site whose agent has these settings.
MakeSite = Callable[[AgentConfig], Site]
