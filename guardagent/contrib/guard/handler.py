"""GuardAgentHandler: an agent behind the methods a Guard library calls, awaited or not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from guardagent import _fork
from guardagent._log import say
from guardagent.agent import Agent
from guardagent.config import AgentConfig
from guardagent.contrib.guard.awaitables import (
    DONE,
    FALSE,
    TRUE,
    Pending,
    Settled,
    apart,
    is_on_loop,
)
from guardagent.contrib.guard.bridge import redis_url
from guardagent.contrib.guard.models import DynamicRules
from guardagent.status import AgentStatus

__all__ = ["GuardAgentHandler", "MakeAgent"]

_log = logging.getLogger(__name__)

MakeAgent = Callable[[AgentConfig], Agent]

_IN_MEMORY = "memory://"


class GuardAgentHandler:
    """Does the work of each method when it is called, and returns what may be awaited or ignored.

    So one handler serves FastAPI and Tornado, which await it, and Flask and Django, which do not,
    wherever and on whichever thread it was made. A method that has to wait does so in a thread
    when it is called on an event loop.

    Args:
        config: the settings; `guard_agent` reads them from a Guard library's.
        make_agent: builds the agent, and another one after `initialize_redis` and a restart.
    """

    def __init__(self, config: AgentConfig, *, make_agent: MakeAgent = Agent) -> None:
        self._config = config
        self._make_agent = make_agent
        self._agent = make_agent(config)
        self._lock = threading.RLock()  # guards replacing the agent; replaced after a fork
        self._is_running = self._is_stopped = False
        self._rules: tuple[object, DynamicRules] | None = None
        _fork.watch(self)

    def __repr__(self) -> str:
        return f"<GuardAgentHandler {self._agent!r}>"

    @property
    def agent(self) -> Agent:
        """The agent at work; another one after `initialize_redis` and after a restart."""
        return self._agent

    @property
    def config(self) -> AgentConfig:
        """The settings of the agent at work."""
        return self._config

    def start(self) -> Settled[None]:
        """Start the agent's threads; after `stop`, those of a new agent. Idempotent."""
        with self._lock:
            if self._is_stopped:
                self._agent = self._make_agent(self._config)
                self._is_stopped = False
            self._is_running = True
            self._agent.start()
        return DONE

    def send_event(self, event: object) -> Settled[bool]:
        """Capture an event, or any object that has some of an event's attributes.

        Returns:
            True when it was taken.

        Raises:
            BufferFull: the queue is full, under `overflow="raise"` only.
        """
        if self._config.overflow == "block" and is_on_loop():
            return Pending(lambda: self._capture(event))
        return TRUE if self._capture(event) else FALSE

    def send_metric(self, metric: object) -> Settled[bool]:
        """Capture a metric; as `send_event`."""
        return self.send_event(metric)

    def get_dynamic_rules(self) -> Settled[Any] | DynamicRules | None:
        """Return the rules in force, None when there are none; waits for the first answer.

        It waits for `timeout` seconds at most: a library that hears None asks again only after
        its whole interval.
        """
        found = self._convert(self._agent.rules)
        if found is not None:
            return found
        if is_on_loop():
            return Pending(self._await_rules)
        return self._await_rules()

    def initialize_redis(self, manager: object) -> Settled[None]:
        """Keep pending events in the Redis of guard-core's manager, of either kind.

        The agent is replaced by one with a durable spool, and what it held is delivered. A spool
        of the application's own choice stays.
        """
        url = redis_url(manager)
        if url is None:
            message = "%s does not say where its Redis is: pending events stay in memory."
            say(_log, logging.INFO, message, type(manager).__name__)
        elif self._config.spool == _IN_MEMORY:
            self._move_to(url)
        return DONE

    def flush_buffer(self) -> Settled[bool]:
        """Deliver what was captured before; True when all of it is settled."""
        agent = self._agent
        return apart(lambda: agent.flush(self._config.timeout))

    def stop(self) -> Settled[bool]:
        """Deliver what is pending and end the threads; True when nothing was left behind."""
        with self._lock:
            self._is_running, self._is_stopped = False, True
            agent = self._agent
        return apart(agent.stop)

    def close(self) -> Settled[bool]:
        """Stop; another name of it."""
        return self.stop()

    def health_check(self) -> Settled[bool]:
        """Tell whether the agent runs and delivers."""
        return TRUE if self._is_running and self._agent.status().status != "failed" else FALSE

    def get_status(self) -> Settled[AgentStatus]:
        """Judge how the agent is."""
        return Settled(self._agent.status())

    def get_stats(self) -> Mapping[str, Any]:
        """Return the counters of this process; never to be awaited.

        Beside guardagent's own, those that the Guard libraries' manuals read from `agent_stats`.
        """
        stats = self._agent.stats()
        lost = sum(stats.dropped.values())
        return {
            "running": self._is_running,
            "events_sent": stats.delivered,
            "events_failed": lost,
            "buffer_stats": {"buffer_size": stats.pending, "events_dropped": lost},
            "transport_stats": {"circuit_breaker_state": stats.breaker.upper()},
            "cached_rules": self._rules is not None,
            **attrs.asdict(stats, recurse=False),
        }

    def _capture(self, event: object) -> bool:
        agent = self._agent
        taken = agent.capture(event)
        if not taken and agent is not self._agent:
            return self._agent.capture(event)  # that one was replaced in between
        return taken

    def _await_rules(self) -> DynamicRules | None:
        agent = None
        while agent is not self._agent:  # replaced in between: only the new one goes on asking
            agent = self._agent
            rules = agent.wait_for_rules(self._config.timeout)
        return self._convert(rules)

    def _convert(self, rules: Any) -> DynamicRules | None:
        """Make the Guard library's form of the rules, once for each document."""
        if rules is None:
            return None
        known = self._rules
        if known is None or known[0] is not rules:
            known = self._rules = (rules, DynamicRules.of(rules))
        return known[1]

    def _move_to(self, spool: str) -> None:
        try:
            config = attrs.evolve(self._config, spool=spool)
            agent = self._make_agent(config)
        except Exception as error:  # guard-core guards this call with nothing: requests would fail
            message = "Pending events stay in memory: the Guard library's Redis does not do (%s)."
            say(_log, logging.WARNING, message, type(error).__name__)
            return
        with self._lock:
            former, self._agent = self._agent, agent
            self._config = config
            if self._is_running:
                agent.start()
        Pending(former.stop)

    def _begin_anew(self) -> None:
        """Let go of a lock that a thread of the parent may hold for ever."""
        self._lock = threading.RLock()
