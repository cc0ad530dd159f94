"""Requests that the dynamic rules forbid: whether one is, and what it is answered with."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from os import getpid
from typing import Any, TypeVar

import attrs

from guardagent._log import say
from guardagent.agent import Agent
from guardagent.contrib._request import Reporter
from guardagent.contrib._throttle import Throttle
from guardagent.decisions import UNASKED, Decision
from guardagent.limits import Counter, Hit, RateLimiter
from guardagent.rules import DynamicRules

__all__ = ["Enforcer", "Refusal"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Threads that ask Redis; each has a connection of its own there.
_THREADS = 16
#: Seconds between two log lines of requests that could not be judged.
_LOG_INTERVAL = 30.0

#: What the Guard libraries call a refusal, by the field of the rules that decided.
_EVENT_TYPES = {
    "emergency_mode": "emergency_mode_block",
    "ip_blacklist": "ip_blocked",
    "blocked_countries": "country_blocked",
    "whitelist_countries": "country_blocked",
    "blocked_cloud_providers": "cloud_blocked",
    "blocked_user_agents": "user_agent_blocked",
    "suspicious_patterns": "pattern_detected",
}
_BODIES = {403: "Forbidden\n", 429: "Too Many Requests\n", 503: "Service Unavailable\n"}


@attrs.frozen
class Refusal:
    """The answer to a request that is refused: 403, 429 or 503."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @property
    def body(self) -> str:
        """A line of plain text."""
        return _BODIES[self.status]


class Enforcer:
    """Judges requests by the rules in force.

    The rate limits count on the Redis of the agent's spool, together with all who share it; with
    another spool in this process only.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._refuses_without_rules = reporter.options.without_rules == "refuse"
        self._limiter = RateLimiter()
        self._limited_by: DynamicRules | None = None
        self._counted_for: Agent | None = None
        self._is_shared = False
        self._started_in = 0
        self._threads: Executor | None = None
        self._failures = Throttle(1, _LOG_INTERVAL)

    def judge(self, fields: dict[str, Any], query: str) -> Refusal | None:
        """Refuse what is forbidden or one too many, and report that.

        Args:
            fields: the request, as the fields of an event.
            query: as it came.
        """
        try:
            refusal, is_counted = self._decide(fields, query)
            return self._count(fields) if is_counted else refusal
        except Exception as error:  # an answer of the application's must not hang on ours
            return self._give_up(error)

    async def judge_async(self, fields: dict[str, Any], query: str) -> Refusal | None:
        """Do as `judge`, without holding up the event loop while Redis is asked."""
        try:
            refusal, is_counted = self._decide(fields, query)
            if not is_counted:
                return refusal
            if not self._is_shared:
                return self._count(fields)
            return await _in_thread(self._pool(), partial(self._count, fields))
        except Exception as error:  # as above
            return self._give_up(error)

    def _pool(self) -> Executor:
        """Return this process's threads for Redis, which end with the enforcer.

        The loop's own will not do: what the application has in there may take any time.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="guardagent-limits")
        return self._threads

    def _decide(self, fields: dict[str, Any], query: str) -> tuple[Refusal | None, bool]:
        """Return the refusal, if any, and whether the request has to be counted."""
        rules = self._rules(self._reporter.agent)
        if rules is None:
            return self._without_rules(), False
        path = fields["endpoint"]
        decision = rules.decide(
            ip=fields["ip_address"],
            path=f"{path}?{query}" if query else path,
            method=fields["method"],
            user_agent=fields["user_agent"],
            country=fields.get("country", UNASKED),
        )
        if not decision:
            return self._forbid(decision, fields), False
        return None, decision.reason != "ip_whitelist" and self._limiter.is_limited(path)

    def _without_rules(self) -> Refusal | None:
        return Refusal(503, _HEADERS) if self._refuses_without_rules else None

    def _rules(self, agent: Agent | None) -> DynamicRules | None:
        """Return the rules in force, and see to it that they are fetched and counted against."""
        if agent is None:
            return None
        if self._started_in != getpid():
            self._started_in = getpid()
            self._threads = None
            agent.start()
        if agent is not self._counted_for:
            counter = _shared_counter(agent)
            self._limiter, self._limited_by = RateLimiter(counter=counter), None
            self._is_shared = counter is not None
            self._counted_for = agent
        rules = agent.rules
        if rules is not self._limited_by:
            self._limited_by = rules
            self._limiter.use(rules)
        return rules

    def _count(self, fields: dict[str, Any]) -> Refusal | None:
        hit = self._limiter.hit(fields["ip_address"], fields["endpoint"])
        return None if hit else self._put_off(hit, fields)

    def _give_up(self, error: Exception) -> Refusal | None:
        if self._failures.take() is not None:
            kind = type(error).__name__
            say(_log, logging.WARNING, "A request could not be judged by the rules (%s).", kind)
        return self._without_rules()

    def _forbid(self, decision: Decision, fields: dict[str, Any]) -> Refusal:
        entry = decision.rule
        is_pattern = decision.reason == "suspicious_patterns"
        self._reporter.event(
            _EVENT_TYPES.get(decision.reason, "dynamic_rule_violation"),
            fields,
            action_taken="request_blocked",
            reason=decision.reason if entry is None else f"{decision.reason}: {entry}",
            rule_type=decision.reason,
            pattern_matched=entry if is_pattern else None,
            status_code=403,
        )
        return Refusal(403, _HEADERS)

    def _put_off(self, hit: Hit, fields: dict[str, Any]) -> Refusal:
        limit = hit.limit
        allowed = "" if limit is None else f": {limit.requests} in {limit.window} s"
        is_general = limit is None or limit.path is None
        self._reporter.event(
            "rate_limited",
            fields,
            action_taken="request_blocked",
            reason=f"too many requests{allowed}",
            rule_type="global_rate_limit" if is_general else "endpoint_rate_limits",
            status_code=429,
        )
        seconds = max(1, math.ceil(hit.retry_after))
        return Refusal(429, (*_HEADERS, ("Retry-After", str(seconds))))


def _shared_counter(agent: Agent) -> Counter | None:
    if agent.config.spool == "memory://":
        return None
    from guardagent.shared_limits import counter_of  # redis takes 0.2 s to import

    return counter_of(agent.config)


async def _in_thread(threads: Executor, work: Callable[[], _T]) -> _T:
    """Do what may wait for a moment in a thread of our own; on other loops than asyncio's here."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return work()
    return await loop.run_in_executor(threads, work)


_HEADERS = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
