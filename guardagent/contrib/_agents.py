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
        self._is_over = False
        self._said: set[str] = set()

    @property
    def agent(self) -> Agent | None:
        """The agent; None as long as there is none."""
        return self._own or get_agent()

    def capture(self, event: Any) -> bool:
        """Capture; also under `overflow="raise"` it never raises into a request."""
        agent = self._own or get_agent()
        if agent is None:
            self._say_once(
                "Nothing is reported: there is no agent, neither given nor made by init."
            )
            return False
        try:
            return agent.capture(event)
        except BufferFull:
            return False  # the agent has counted it
        except Exception as error:  # an agent of the application's own kind: the log says so
            self.stumble(error)
            return False

    def stumble(self, error: Exception) -> None:
        """Say that a request could not be reported as it is, once for each kind of error."""
        self._say_once(f"A request could not be reported as it is ({type(error).__name__}).")

    def retire(self) -> None:
        """Stop the agent if it was made here; whoever reports through it is gone."""
        self._is_over = True
        agent = self._own
        if agent is not None and self._is_mine:
            if get_agent() is agent:
                replace(None)
            agent.stop()

    def end_with(self, owner: object) -> None:
        """Have the agent stopped, if it was made here, when `owner` is gone; does not hold it.

        The process-wide agent stays: others may use it. What is pending is delivered first.
        """
        weakref.finalize(owner, self._end).atexit = False  # the exit delivers anyway

    def _end(self) -> None:
        """End; whatever waits does so in a thread, for the garbage collector calls this on any."""
        self._is_over = True
        agent = self._own
        if agent is None or not self._is_mine or get_agent() is agent:
            return
        if not sys.is_finalizing() and not _uwsgi.is_before_fork():
            with suppress(RuntimeError):  # no thread can be started any more: so the exit is near
                threading.Thread(
                    target=_deliver_and_stop, args=(agent,), name="guardagent-end", daemon=True
                ).start()

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            say(_log, logging.WARNING, message)


def _deliver_and_stop(agent: Agent) -> None:
    agent.flush(_PATIENCE)  # first, for `stop` does not wait for a backend that is away
    agent.stop()
