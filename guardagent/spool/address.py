"""From a setting to a spool: `memory://`, `sqlite:///path`, `redis://...` or a Redis client."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardagent._clock import Clock
from guardagent._ids import format_key, new_key
from guardagent.config import AgentConfig
from guardagent.errors import ConfigError
from guardagent.spool.memory import MemorySpool, WhenFull
from guardagent.spool.protocol import Spool
from guardagent.spool.store import Store
from guardagent.status import DropReason

__all__ = ["open_spool", "open_store"]

#: What the shelter of a durable spool holds at most: it is memory.
_SHELTER_RECORDS, _SHELTER_BYTES = 100_000, 64 * 1024 * 1024
#: Seconds after which what waits is history and the news need not wait for it; two leases, where
#: that is less.
_STALE = 30.0
#: How often to look what other processes left, in seconds.
_POLL = 2.0


def open_spool(
    config: AgentConfig,
    clock: Clock,
    *,
    on_lost: Callable[[DropReason, int], object],
    on_error: Callable[[Exception], object],
    wake: Callable[[], object],
) -> Spool:
    """Return the spool that the settings ask for; nothing is opened yet."""
    # Unless the oldest give way, the drain waits for room in the spool; the queue fills up, and
    # `capture` itself can say that an event is not taken.
    when_full: WhenFull = "drop_oldest" if config.overflow == "drop_oldest" else "grow"
    records, nbytes = config.spool_max_records, config.spool_max_bytes
    if config.spool == "memory://":
        return MemorySpool(records, nbytes, when_full=when_full)
    from guardagent.spool.durable import DurableSpool

    return DurableSpool(
        open_store(config, clock, is_agents=True),
        MemorySpool(
            min(records, _SHELTER_RECORDS), min(nbytes, _SHELTER_BYTES), when_full=when_full
        ),
        lease=config.spool_lease,
        max_records=records,
        max_bytes=nbytes,
        clock=clock,
        poll_interval=min(_POLL, config.flush_interval),
        hands_over=not config.deliver,
        on_lost=on_lost,
        on_error=on_error,
        wake=wake,
    )


def open_store(
    config: AgentConfig, clock: Clock, *, read_only: bool = False, is_agents: bool = False
) -> Store:
    """Return the store of a durable spool; nothing is opened yet.

    Args:
        config: says where it is.
        clock: tells the age of records and leases.
        read_only: for questions: nothing is made that is not there.
        is_agents: it sends what it finds, so a file has to be of its own project, or of none as it
            is; whoever only looks after it need not name one.

    Raises:
        ConfigError: the spool is in memory.
    """
    where: Any = config.spool
    bounds: dict[str, Any] = {
        "max_records": config.spool_max_records,
        "max_bytes": config.spool_max_bytes,
        "when_full": "drop_oldest" if config.overflow == "drop_oldest" else "grow",
        "lease": config.spool_lease,
        "stale_after": min(_STALE, 2 * config.spool_lease),
        "owner": _owner(),
        "clock": clock,
    }
    if where == "memory://":
        raise ConfigError("spool: given memory://, allowed: one that other processes can reach")
    if isinstance(where, str) and where.startswith("sqlite:"):
        from guardagent.spool.sqlite import SQLiteStore

        path = Path(where.removeprefix("sqlite:///"))
        return SQLiteStore(
            path,
            fsync=config.spool_fsync,
            read_only=read_only,
            project=(config.project_id or "") if is_agents else config.project_id,
            boot=_boot(),
            **bounds,
        )
    # Imported here and not by the thread that first asks Redis: it takes 0.2 s, in which events are
    # not safe yet, and a fork in the middle of an import can hang the child.
    import secrets  # noqa: F401 - what redis-py would import with the first command

    import redis  # noqa: F401

    from guardagent.spool.redis import RedisStore

    return RedisStore(where, config.project_id, **bounds)


def _boot() -> str:
    """Name this start of the machine; empty where that cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _owner() -> str:
    """Name this agent among all that may share a spool; for operators' eyes, too."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{format_key(new_key())[:8]}"
