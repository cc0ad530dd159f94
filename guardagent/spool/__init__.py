"""Where encoded events wait for delivery."""

from __future__ import annotations

from guardagent.spool.memory import MemorySpool
from guardagent.spool.protocol import Batch, Spool

__all__ = ["Batch", "MemorySpool", "Spool"]
