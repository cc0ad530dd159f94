"""How batches reach the backend."""

from __future__ import annotations

from guardagent.transport.protocol import Receipt, Transport

__all__ = ["Receipt", "Transport"]
