"""Finds the Redis that a Guard library uses, to keep events in the same one."""

from __future__ import annotations

__all__ = ["redis_url"]

_SCHEMES = ("redis://", "rediss://", "unix://")


def redis_url(manager: object) -> str | None:
    """Return the address of the Redis behind `manager`; None when it does not say.

    The address and not its client: the asynchronous manager's belongs to one event loop, and the
    sync one's timeouts are made for requests. guard-core keeps it in the manager's `config`.

    Args:
        manager: guard-core's RedisManager of either kind, something like it, or an address.
    """
    config = getattr(manager, "config", None)
    for found in (manager, getattr(config, "redis_url", None), getattr(manager, "redis_url", None)):
        if isinstance(found, str) and found.startswith(_SCHEMES):
            return found
    return None
