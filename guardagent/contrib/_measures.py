"""The metrics of requests: gathered by route, handed over once in a while.

A metric for each request would be three records for each request. Here the requests of one interval
are three records for each route.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from os import getpid

from guardagent import _fork
from guardagent.events import SecurityMetric

__all__ = ["OTHER", "UNMATCHED", "Measures"]

#: Label of the routes beyond those measured one by one, and of methods nobody knows.
OTHER = "(other)"
#: Label of requests whose route is not known: none matched, or the framework does not tell it.
UNMATCHED = "(no route)"

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)
_ROUTE_KEPT = 200

#: Route, method, status in hundreds (0: no answer).
_Key = tuple[str, str, int]


class Measures:
    """Counts requests and adds up their seconds; any thread may record.

    Args:
        capture: takes a metric.
        expect: told that there is something to `hand_over`; returns whether anybody will ask.
            Told again with the next request until somebody will, then once for each interval.
        max_routes: routes measured one by one.
    """

    def __init__(
        self,
        capture: Callable[[SecurityMetric], object],
        expect: Callable[[], bool],
        *,
        max_routes: int,
    ) -> None:
        self._capture = capture
        self._expect = expect
        self._max_routes = max_routes
        self._routes: set[str] = set()
        self._begin_anew()
        _fork.watch(self)

    def _begin_anew(self) -> None:
        """Begin with nothing; what a forked child inherits is its parent's to hand over."""
        self._pid = getpid()
        self._lock = threading.Lock()  # guards the cells and the routes; held for no call
        self._cells: dict[_Key, list[float]] = {}
        self._is_expected = False

    def record(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: the template, never the path; None when it is not known.
            method: of the request.
            status: of the answer; 0 when there was none.
            seconds: until the answer.
        """
        if self._pid != getpid():  # a fork that ran no hook
            self._begin_anew()
        key = (UNMATCHED if route is None else route, method, status // 100)
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                cell = self._open(key)
            cell[0] += 1
            cell[1] += seconds
            is_expected, self._is_expected = self._is_expected, True
        # Set before it is told: who asks at once, on another thread, must find it, to take it back.
        if not is_expected:
            will_ask = False
            try:
                will_ask = self._expect()
            finally:
                if not will_ask:
                    self._is_expected = False

    def hand_over(self) -> None:
        """Capture what was gathered, and begin anew."""
        if self._pid != getpid():
            self._begin_anew()
        with self._lock:
            cells, self._cells = self._cells, {}
            self._is_expected = False
        totals: dict[tuple[str, str], list[float]] = {}
        for (route, method, hundreds), (count, seconds) in cells.items():
            status = f"{hundreds}xx" if hundreds else "none"
            tags = {"endpoint": route, "method": method, "status": status}
            self._say("request_count", count, tags)
            self._say("response_time", seconds / count, tags)
            total = totals.setdefault((route, method), [0, 0])
            total[0] += count
            total[1] += count if hundreds in (0, 5) else 0
        for (route, method), (count, errors) in totals.items():
            self._say("error_rate", errors / count, {"endpoint": route, "method": method})

    def _say(self, metric_type: str, value: float, tags: dict[str, str]) -> None:
        self._capture(SecurityMetric(metric_type=metric_type, value=value, tags=tags))

    def _open(self, key: _Key) -> list[float]:
        """Find the cell under a label there is room for; a client cannot make labels."""
        route, method, hundreds = key
        route = route[:_ROUTE_KEPT]
        if route not in self._routes and route != UNMATCHED:
            if len(self._routes) < self._max_routes:
                self._routes.add(route)
            else:
                route = OTHER
        bounded = (route, method if method in _METHODS else OTHER, min(hundreds, 9))
        return self._cells.setdefault(bounded, [0, 0.0])
