"""The values that go into the store and come out of it."""

from __future__ import annotations

import json
from typing import Any, Literal

import attrs

__all__ = ["KINDS", "Arrival", "Counts", "Item", "Kind", "Origin"]

#: What arrives: three kinds that agents send, and the requests that were refused.
Kind = Literal["event", "metric", "status", "refusal"]

KINDS: tuple[Kind, ...] = ("event", "metric", "status", "refusal")


@attrs.frozen
class Item:
    """One thing to keep.

    Args:
        key: its identity; the second one with the same kind and key is a duplicate.
        type: event type, metric type, status name or HTTP status.
        body: its JSON text.
    """

    key: str
    type: str
    body: str


@attrs.frozen(kw_only=True)
class Origin:
    """Who sent it; every part may be empty."""

    project_id: str = ""
    agent: str = ""
    agent_version: str = ""
    batch_id: str = ""


@attrs.frozen
class Counts:
    """How many of the items handed over were new, and how many were known already."""

    accepted: int
    duplicates: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.accepted + other.accepted, self.duplicates + other.duplicates)


@attrs.frozen
class Arrival:
    """One thing kept.

    Args:
        id: rises with every arrival of a store.
        agent: the sender's install id.
        received_at: unix seconds.
        deliveries: how often it came; 1, unless its sender had to send it again.
    """

    id: int
    kind: Kind
    key: str
    type: str
    project_id: str
    agent: str
    agent_version: str
    batch_id: str
    received_at: float
    deliveries: int
    body: str

    def as_mapping(self) -> dict[str, Any]:
        """Return everything in it as plain values, its body parsed."""
        return {**attrs.asdict(self), "body": json.loads(self.body)}
