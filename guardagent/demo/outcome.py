"""What the demonstration found, and whether it is as promised. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from guardagent.demo.site import ATTACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guardagent import Stats
    from guardagent.demo.probe import Latency

__all__ = ["Outcome"]


@attrs.frozen(kw_only=True)
class Outcome:
    """The books of both sides, once everything has stopped.

    Args:
        answers: the shop's answers by HTTP status.
        visit_failures: visits the shop did not answer.
        keys: of everything captured.
        arrived: how often each key reached the collector, of events and metrics.
        stats: the agent's own, after its stop.
        latency: of the captures.
        outage: seconds without a collector.
        outage_captures: captures in that time.
        poll_interval: seconds between two looks of the agent for rules.
        rule_delay: seconds from the push of the rule until it was in force; None: never.
        rule_visits: visits of the address it blocks that began after that.
        let_in: those of them that were not forbidden.
        blocked: reports of visits that were turned away for it.
        guard_library: that found the attacks; empty: the shop did.
        found: the events that were captured by type, and how often.
        seconds: the whole demonstration.
    """

    answers: Mapping[int, int]
    visit_failures: Sequence[str]
    keys: Sequence[str]
    arrived: Mapping[str, int]
    stats: Stats
    latency: Latency
    outage: float
    outage_captures: int
    poll_interval: float
    rule_delay: float | None
    rule_visits: int
    let_in: int
    blocked: int
    guard_library: str
    found: Mapping[str, int]
    seconds: float

    @property
    def dropped(self) -> int:
        """Everything the agent gave up."""
        return sum(self.stats.dropped.values())

    @property
    def repeated(self) -> int:
        """Deliveries of something the collector had already."""
        return sum(self.arrived.values()) - len(self.arrived)

    def faults(self) -> list[str]:
        """Say what is not as it should be; an empty list means all is well."""
        captured = Counter(self.keys)
        missing = len(captured.keys() - self.arrived.keys())
        foreign = len(self.arrived.keys() - captured.keys())
        stats = self.stats
        losses = {reason: n for reason, n in stats.dropped.items() if n}
        books = stats.delivered + stats.pending + self.dropped
        found = {
            "nothing was captured": not captured,
            "no attack was found": not self.found.get(ATTACK),
            "nothing was captured while the collector was away": not self.outage_captures,
            f"{len(self.visit_failures)} visits failed: {self.visit_failures[:1]}": bool(
                self.visit_failures
            ),
            "the rule that was pushed never came into force": self.rule_delay is None,
            "nobody came from the address that was blocked": not self.rule_visits,
            f"{self.let_in} visits from a blocked address were let in": self.let_in > 0,
            f"of {self.rule_visits} visits from a blocked address only {self.blocked} were "
            "turned away": self.blocked < self.rule_visits,
            "two captures had the same key": len(captured) != len(self.keys),
            f"{missing} of {len(captured)} captured never arrived": missing > 0,
            f"{foreign} arrived that nobody captured": foreign > 0,
            f"the agent dropped some: {losses}": bool(losses),
            f"the agent's books do not balance: {stats}": stats.captured != books,
            f"the agent captured {stats.captured} and not {len(self.keys)}": stats.captured
            != len(self.keys),
        }
        return [fault for fault, is_found in found.items() if is_found]
