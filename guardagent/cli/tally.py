"""Counts what arrives at a collector, for people to look at. Pure: the time is passed in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guardagent.collector import Arrival

__all__ = ["Row", "Tally", "printable", "refusal_text"]

#: Seconds over which a rate is taken.
RATE_WINDOW = 10

#: Different types counted apart, and agents told apart; more than that would be an attack.
_BOUND = 1_000


@attrs.frozen
class Row:
    """What is known of one type.

    Args:
        rate: arrivals a second, over the last ten seconds.
        last_seen_at: unix seconds.
        agents: different senders.
    """

    kind: str
    type: str
    count: int
    rate: float
    last_seen_at: float
    agents: int


@attrs.define
class _Line:
    kind: str
    type: str
    count: int = 0
    last_seen_at: float = 0.0
    agents: set[str] = attrs.field(factory=set)
    recent: dict[int, int] = attrs.field(factory=dict)

    def add(self, arrival: Arrival) -> None:
        self.count += 1
        self.last_seen_at = arrival.received_at
        if len(self.agents) < _BOUND:
            self.agents.add(arrival.agent)
        second = int(arrival.received_at)
        if second not in self.recent:
            self.recent = {at: n for at, n in self.recent.items() if at > second - RATE_WINDOW}
        self.recent[second] = self.recent.get(second, 0) + 1

    def row(self, now: float) -> Row:
        recent = sum(n for at, n in self.recent.items() if at > now - RATE_WINDOW)
        rate = recent / RATE_WINDOW
        return Row(self.kind, self.type, self.count, rate, self.last_seen_at, len(self.agents))


class Tally:
    """Counts arrivals by kind and type."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}
        #: The latest refused request and its first reason; empty when there was none.
        self.last_refusal = ""

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Count these arrivals."""
        for arrival in arrivals:
            self._line(arrival).add(arrival)
            if arrival.kind == "refusal":
                self.last_refusal = refusal_text(arrival)

    def rows(self, now: float) -> list[Row]:
        """Return a row for each type, the kinds together, the most frequent first.

        Args:
            now: unix seconds.
        """
        rows = [line.row(now) for line in self._lines.values()]
        return sorted(rows, key=lambda row: (row.kind, -row.count, row.type))

    def _line(self, arrival: Arrival) -> _Line:
        kind, name = arrival.kind, printable(arrival.type)
        if (kind, name) not in self._lines and len(self._lines) >= _BOUND:
            name = "(others)"
        return self._lines.setdefault((kind, name), _Line(kind, name))


def refusal_text(arrival: Arrival) -> str:
    """Say in one line what was refused and why."""
    body = json.loads(arrival.body)
    return printable(f"{body['request']}: {body['errors'][0]}")


def printable(text: str, limit: int = 120) -> str:
    """Make text from elsewhere harmless for a terminal, and short."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
