"""Which agent a shim reports to: the one it is given, one of its own, or the process-wide one."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any

from guardagent import _uwsgi
from guardagent._default import get_agent, replace
from guardagent._log import say
from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.contrib._options import Settings, environment
from guardagent.errors import BufferFull

__all__ = ["Reporting"]

_log = logging.getLogger(__name__)

#: Seconds for which the agent of an application that is gone goes on trying to deliver.
_PATIENCE = 86_400.0


class Reporting:
    """Captures with a shim's agent.

    Args:
        agent: the agent, or None.
        settings: make an agent of these and of `GUARDAGENT_<NAME>`. It becomes the process-wide
            one where there is none. Without settings the process-wide agent is used, whichever it
            is at the moment; where there is none, one is made as soon as there is a key in the
            environment.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(self, agent: Agent | None, settings: Settings | None = None) -> None:
        given = agent
        if agent is None and settings:
            agent = Agent(AgentConfig.from_mapping({**environment(), **settings}))
            if get_agent() is None:
                replace(agent)
        elif agent is None and get_agent() is None and "api_key" in environment():
            replace(Agent(AgentConfig.from_mapping(environment())))
        self._is_mine = bool(settings) and given is None
        self._own = agent
        self._has_complained = False

    @property
    def agent(self) -> Agent | None:
        """The agent; None as long as there is none."""
        return self._own or get_agent()

    def capture(self, event: Any) -> bool:
        """Capture; also under `overflow="raise"` it never raises into a request."""
        agent = self._own or get_agent()
        if agent is None:
            self._complain()
            return False
        try:
            return agent.capture(event)
        except BufferFull:
            return False  # the agent has counted it

    def leave(self) -> None:
        """Hand over what was gathered for an agent that others use too; here it is nothing."""

    def retire(self) -> None:
        """Stop the agent if it was made here; whoever reports through it is gone."""
        self.leave()
        agent = self._own
        if agent is not None and self._is_mine:
            if get_agent() is agent:
                replace(None)
            agent.stop()

    def end_with(self, owner: object) -> None:
        """Have the agent stopped, if it was made here, when `owner` is gone; does not hold it.

        The process-wide agent stays: others may use it. What is pending is delivered first.
        """
        weakref.finalize(owner, self._end_apart).atexit = False  # the exit delivers anyway

    def _end_apart(self) -> None:
        """End in a thread: the garbage collector calls this on any one, whatever that may hold."""
        if not sys.is_finalizing() and not _uwsgi.is_before_fork():
            with suppress(RuntimeError):  # no thread can be started any more: so the exit is near
                threading.Thread(target=self._end, name="guardagent-end", daemon=True).start()

    def _end(self) -> None:
        self.leave()
        agent = self._own
        if agent is not None and self._is_mine and get_agent() is not agent:
            agent.flush(_PATIENCE)  # first, for `stop` waits for no backend that is away
            agent.stop()

    def _complain(self) -> None:
        if not self._has_complained:
            self._has_complained = True
            message = "Nothing is reported: there is no agent, neither given nor made by init."
            say(_log, logging.WARNING, message)
