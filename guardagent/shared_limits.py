"""Requests counted across processes and hosts, on Redis; each one by itself while Redis is away."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from guardagent import _fork
from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent._log import say
from guardagent.config import AgentConfig
from guardagent.errors import SpoolError
from guardagent.limits import SLICES, Limit, LocalCounter
from guardagent.spool.redis_address import Address
from guardagent.spool.redis_form import write_prefix
from guardagent.spool.redis_link import RedisLink
from guardagent.spool.redis_lua import Script

__all__ = ["RedisCounter", "SpoolRedis", "counter_of"]

_log = logging.getLogger(__name__)

#: Seconds that a request waits at most for the Redis of a spool, for each of its limits.
_PATIENCE = 0.1
#: Seconds for which a Redis that failed is not asked again: each attempt may take its timeout.
_RESPITE = 5.0

#: The same slices as in one process, by the server's clock; a hash of slice to count. Its time to
#: live is set with every count, so that no key is ever without one.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local limit, window, slices = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local width = window / slices
local current = math.floor(now / width)
local counts = redis.call('HGETALL', KEYS[1])
local total, oldest, gone = 0, current, {}
for i = 1, #counts, 2 do
    local slice = tonumber(counts[i])
    if slice < current - slices then
        gone[#gone + 1] = counts[i]
    else
        total = total + tonumber(counts[i + 1])
        if slice < oldest then oldest = slice end
    end
end
if total >= limit then
    return tostring(math.max((oldest + slices + 1) * width - now, 0.001))
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
redis.call('HINCRBY', KEYS[1], string.format('%.0f', current), 1)
redis.call('PEXPIRE', KEYS[1], math.ceil((window + 2 * width) * 1000))
return '0'
"""


class RedisCounter:
    """Counts on a Redis server, in one script for each request and limit.

    While Redis is away each process counts by itself, which is told once; then the fleet lets in
    more than the limit rather than nobody. A call may take as long as the client's own timeouts
    allow: give it short ones (`socket_timeout=0.1`), and no retries.

    Args:
        client: a synchronous redis-py client, of any kind, or a `SpoolRedis`; the caller closes it.
        project: the keys are `guardagent:{project}:limit:<hash of client and limit>`, with the
            hash tag of the spool's keys; no address is kept on the server.
        local: counts while Redis is away.
        clock: tells the time between attempts.
    """

    def __init__(
        self,
        client: Any,
        *,
        project: str | None = None,
        local: LocalCounter | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._run = client.register_script(_SCRIPT)
        self._prefix = f"{write_prefix(project)}limit:"
        self._local = LocalCounter(clock=clock) if local is None else local
        self._clock = clock
        self._away_until = 0.0
        self._is_away = False

    def hit(self, client: str, limit: Limit) -> float:
        """Count a request unless the limit is used up; see `guardagent.limits.Counter`."""
        if self._is_away and self._clock.monotonic() < self._away_until:
            return self._local.hit(client, limit)
        try:
            wait = float(self._run(keys=[self._key(client, limit)], args=_arguments(limit)))
        except (RedisError, SpoolError, OSError, ValueError) as error:
            self._note_away(error)
            return self._local.hit(client, limit)
        if self._is_away:
            self._is_away = False
            say(_log, logging.INFO, "Requests are counted on Redis again.")
        return wait

    def _key(self, client: str, limit: Limit) -> str:
        what = f"{limit.requests}/{limit.window}/{client}/{limit.path or ''}"
        digest = hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16)
        return self._prefix + digest.hexdigest()

    def _note_away(self, error: Exception) -> None:
        self._away_until = self._clock.monotonic() + _RESPITE
        if not self._is_away:
            self._is_away = True
            kind = type(error).__name__
            message = "Redis is away (%s): each process counts requests by itself."
            say(_log, logging.WARNING, message, kind)


class SpoolRedis:
    """The Redis of a spool, for a RedisCounter: with connections of its own and little patience.

    Connects with the first request, and again in a forked child; safe on every thread.

    Args:
        spool: the address, or the application's client.
    """

    def __init__(self, spool: Any) -> None:
        where = Address.parse(spool) if isinstance(spool, str) else spool
        self._link = RedisLink(where, _PATIENCE)
        _fork.watch(self)

    def register_script(self, text: str) -> Callable[..., Any]:
        """Return what runs a script, as the method of redis-py's clients does."""
        script = Script(text)

        def run(*, keys: Sequence[str], args: Sequence[Any]) -> Any:
            return self._link.run(
                script, [key.encode("utf-8", "surrogatepass") for key in keys], *args
            )

        return run

    def close(self) -> None:
        """Let go of the connections."""
        self._link.close()

    def _begin_anew(self) -> None:
        self._link.abandon()


def counter_of(config: AgentConfig, clock: Clock = SYSTEM_CLOCK) -> RedisCounter | None:
    """Return what counts on the Redis of an agent's spool; None when the spool is no Redis."""
    spool = config.spool
    if isinstance(spool, str) and not spool.startswith(("redis", "unix:")):
        return None
    return RedisCounter(SpoolRedis(spool), project=config.project_id, clock=clock)


def _arguments(limit: Limit) -> list[int]:
    return [limit.requests, limit.window, SLICES]
