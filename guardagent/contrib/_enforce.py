"""Requests that the dynamic rules forbid: whether one is, and what it is answered with."""

from __future__ import annotations

import math
from os import getpid
from typing import Any

import attrs

from guardagent.agent import Agent
from guardagent.contrib._request import Reporter
from guardagent.decisions import UNASKED, Decision
from guardagent.limits import Hit, RateLimiter
from guardagent.rules import DynamicRules

__all__ = ["Enforcer", "Refusal"]

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
_BODIES = {403: "Forbidden\n", 429: "Too Many Requests\n"}


@attrs.frozen
class Refusal:
    """The answer to a request that is refused: 403 or 429."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @property
    def body(self) -> str:
        """A line of plain text."""
        return _BODIES[self.status]


class Enforcer:
    """Judges requests by the rules in force; lets everything pass as long as there are none.

    The rate limits count in this process only.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._limiter = RateLimiter()
        self._limited_by: DynamicRules | None = None
        self._started_in = 0

    def judge(self, fields: dict[str, Any], query: str) -> Refusal | None:
        """Refuse what is forbidden or one too many, and report that.

        Args:
            fields: the request, as the fields of an event.
            query: as it came.
        """
        rules = self._rules(self._reporter.agent)
        if rules is None:
            return None
        path = fields["endpoint"]
        decision = rules.decide(
            ip=fields["ip_address"],
            path=f"{path}?{query}" if query else path,
            method=fields["method"],
            user_agent=fields["user_agent"],
            country=fields.get("country", UNASKED),
        )
        if not decision:
            return self._forbid(decision, fields)
        if decision.reason != "ip_whitelist":
            hit = self._limiter.hit(fields["ip_address"], path)
            if not hit:
                return self._put_off(hit, fields)
        return None

    def _rules(self, agent: Agent | None) -> DynamicRules | None:
        """Return the rules in force, and see to it that they are fetched and counted against."""
        if agent is None:
            return None
        if self._started_in != getpid():
            self._started_in = getpid()
            agent.start()
        rules = agent.rules
        if rules is not self._limited_by:
            self._limited_by = rules
            self._limiter.use(rules)
        return rules

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


_HEADERS = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
