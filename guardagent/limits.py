"""How many requests a client may make: the limits of the rules, counted in a sliding window.

A window is cut into slices. A request counts from its own slice until all of that slice is out of
the window, so that no window of the asked length ever holds more than the limit; a client that
uses it up waits for at most a sixteenth of the window more than it would have to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from guardagent import _fork
from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.networks import read_address

if TYPE_CHECKING:
    from guardagent.rules import DynamicRules

__all__ = ["SLICES", "Counter", "Hit", "Limit", "Limits", "LocalCounter", "RateLimiter"]

#: Slices of a window.
SLICES = 16
#: What the Guard libraries take when there is a limit and no window.
_DEFAULT_WINDOW = 60
#: Larger ones are taken for these: a year, and more than any client can ask.
_WINDOW_MAX = 366 * 86_400
_REQUESTS_MAX = 2**31
#: Characters of a client's name that is no address.
_NAME_MAX = 200


def _few_enough(requests: int) -> int:
    return min(requests, _REQUESTS_MAX)


def _short_enough(window: int) -> int:
    return min(window, _WINDOW_MAX)


@attrs.frozen
class Limit:
    """So many requests in so many seconds.

    Args:
        path: the one they are made to; None for all paths together.
    """

    requests: int = attrs.field(converter=_few_enough)
    window: int = attrs.field(converter=_short_enough)
    path: str | None = None


@attrs.frozen
class Hit:
    """What became of a request; true when it was let in.

    Args:
        retry_after: seconds after which the next one will be, 0 when this one was.
        limit: the limit it met.
    """

    allowed: bool
    retry_after: float = 0.0
    limit: Limit | None = None

    def __bool__(self) -> bool:
        return self.allowed


_LET_IN = Hit(True)


@attrs.frozen
class Limits:
    """The limits of one rules document.

    Args:
        by_path: for single paths, without a query, exactly as they are asked for.
        general: for all paths together.
        expires_at: unix seconds after which there are none; None for ever.
    """

    by_path: Mapping[str, Limit] = attrs.field(factory=dict)
    general: Limit | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, rules: DynamicRules | None) -> Limits:
        """Return the limits of the rules; none without rules or with `enable_rate_limiting` off."""
        if rules is None or rules.enable_rate_limiting is False:
            return cls()
        requests = rules.global_rate_limit
        window = rules.global_rate_window or _DEFAULT_WINDOW
        return cls(
            by_path={
                path: Limit(number, seconds, path)
                for path, (number, seconds) in rules.endpoint_rate_limits.items()
            },
            general=Limit(requests, window) if requests else None,
            expires_at=None if rules.expires_at is None else rules.expires_at.timestamp(),
        )

    def for_path(self, path: str | None) -> Iterator[Limit]:
        """Yield the limits of a path, its own first."""
        own = self.by_path.get(path.partition("?")[0]) if path and self.by_path else None
        if own is not None:
            yield own
        if self.general is not None:
            yield self.general


class Counter(Protocol):
    """Counts requests within limits, in one place or for many."""

    def hit(self, client: str, limit: Limit) -> float:
        """Count a request unless the limit is used up.

        Returns:
            0.0 when it was counted, else the seconds until the next one will be.
        """
        ...


@attrs.define(eq=False)
class _Window:
    """The counts of one client: by slice, and together."""

    newest: int
    counts: list[int] = attrs.field(factory=lambda: [0] * (SLICES + 1))
    total: int = 0
    width: float = 0.0

    def move(self, current: int) -> None:
        """Forget the slices that are out of the window."""
        counts = self.counts
        for number in range(self.newest + 1, min(current, self.newest + SLICES + 1) + 1):
            place = number % (SLICES + 1)
            self.total -= counts[place]
            counts[place] = 0
        self.newest = max(self.newest, current)

    def free_at(self) -> float:
        """Return when the oldest slice with requests is out of the window."""
        oldest = self.newest - SLICES
        while not self.counts[oldest % (SLICES + 1)]:
            oldest += 1
        return (oldest + SLICES + 1) * self.width


class LocalCounter:
    """Counts in this process; what a forked child counts is its own.

    Args:
        keys_max: clients and limits that are remembered; those not seen for longest are forgotten
            first. One takes some 500 bytes.
        clock: tells the time.
    """

    def __init__(self, *, keys_max: int = 50_000, clock: Clock = SYSTEM_CLOCK) -> None:
        if keys_max < 1:
            raise ValueError(f"keys_max: given {keys_max}, allowed: 1 or more")
        self._keys_max = keys_max
        self._clock = clock
        self._windows: OrderedDict[tuple[str, Limit], _Window] = OrderedDict()
        self._lock = threading.RLock()  # guards the windows; a signal handler may count too
        _fork.watch(self)

    def __len__(self) -> int:
        return len(self._windows)

    def hit(self, client: str, limit: Limit) -> float:
        """Count a request unless the limit is used up; see `Counter`."""
        now = self._clock.monotonic()
        width = limit.window / SLICES
        current = int(now // width)
        key = client, limit
        with self._lock:
            window = self._windows.get(key)
            if window is None:
                self._forget(now)
                window = self._windows[key] = _Window(current, width=width)
            else:
                self._windows.move_to_end(key)
                window.move(current)
            if window.total >= limit.requests:
                return max(window.free_at() - now, 0.001)
            window.counts[window.newest % (SLICES + 1)] += 1
            window.total += 1
            return 0.0

    def _forget(self, now: float) -> None:
        """Make room for one; let go of up to two that count nothing any more."""
        windows = self._windows
        for _ in range(2):
            if not windows:
                return
            key, oldest = next(iter(windows.items()))
            is_over = (oldest.newest + SLICES + 1) * oldest.width <= now
            if not is_over and len(windows) < self._keys_max:
                return
            del windows[key]

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()
        self._windows = OrderedDict()


class RateLimiter:
    """Counts the requests of each client against the limits of the rules in force.

    Safe on every thread. `agent.on_rules(limiter.use)` keeps it up to date; what was counted
    against a limit that stays is kept.

    Args:
        rules: to begin with.
        counter: where requests are counted: in this process by default.
        clock: tells when the rules expire.
    """

    def __init__(
        self,
        rules: DynamicRules | None = None,
        *,
        counter: Counter | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._counter = LocalCounter(clock=clock) if counter is None else counter
        self._limits = Limits.of(rules)

    def use(self, rules: DynamicRules | None) -> None:
        """Count against the limits of other rules from now on."""
        self._limits = Limits.of(rules)

    def is_limited(self, path: str | None = None) -> bool:
        """Tell whether `hit` would count a request for this path at all."""
        return any(True for _ in self._limits.for_path(path))

    def hit(self, client: str, path: str | None = None) -> Hit:
        """Count a request and tell whether it is let in; one that is not does not count.

        The limit of its path is asked first, then the one for all paths (as the Guard libraries
        do): a request that only the second one refuses has counted for the first.

        Args:
            client: the address, in any of its forms, or another name.
            path: a query is cut off.
        """
        limits = self._limits
        if limits.expires_at is not None and limits.expires_at <= self._clock.now():
            return _LET_IN
        name: str | None = None
        for limit in limits.for_path(path):
            name = _name(client) if name is None else name
            wait = self._counter.hit(name, limit)
            if wait:
                return Hit(False, wait, limit)
        return _LET_IN


def _name(client: str) -> str:
    """Return one name for all forms of an address; IPv6 clients own a /64 (RFC 4291, 2.5.4)."""
    address = read_address(client)
    if address is None:
        return client[:_NAME_MAX]
    bits, value = address
    return f"4-{value:x}" if bits == 32 else f"6-{value >> 64:x}"
