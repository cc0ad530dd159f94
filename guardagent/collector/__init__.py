"""The embedded receiver of the wire protocol, for development, demonstrations and tests."""

from __future__ import annotations

from guardagent.collector.app import MAX_BODY_BYTES, Collector
from guardagent.collector.arrivals import KINDS, Arrival, Counts, Item, Kind, Origin
from guardagent.collector.database import StoreError
from guardagent.collector.server import CollectorServer
from guardagent.collector.store import Store

__all__ = [
    "KINDS",
    "MAX_BODY_BYTES",
    "Arrival",
    "Collector",
    "CollectorServer",
    "Counts",
    "Item",
    "Kind",
    "Origin",
    "Store",
    "StoreError",
]
