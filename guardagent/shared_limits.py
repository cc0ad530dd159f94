"""Requests counted across processes and hosts, on Redis; each one by itself while Redis is away."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from redis.exceptions import RedisError

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent._log import say
from guardagent.limits import SLICES, Limit, LocalCounter

__all__ = ["RedisCounter"]

_log = logging.getLogger(__name__)

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
        client: a synchronous redis-py client, of any kind; the caller closes it.
        project: the keys are `guardagent:{project}:limit:<hash of client and limit>`; no address
            is kept on the server.
        local: counts while Redis is away.
        clock: tells the time between attempts.
    """

    def __init__(
        self,
        client: Any,
        *,
        project: str = "default",
        local: LocalCounter | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._run = client.register_script(_SCRIPT)
        self._prefix = f"guardagent:{{{project}}}:limit:"
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
        except (RedisError, OSError, ValueError) as error:
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


def _arguments(limit: Limit) -> list[int]:
    return [limit.requests, limit.window, SLICES]
