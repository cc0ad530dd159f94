"""What visits the shop: ordinary people and attackers, in a bounded number."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import attrs

from guardagent._clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ATTACKER", "Answered", "Traffic", "Visit", "visits"]

_TIMEOUT = 10.0

# Addresses of RFC 5737, which belong to nobody.
ATTACKER = "203.0.113.66"
_HAMMER = "203.0.113.99"

_ATTACKS = (
    "/search?q=" + quote("' OR 1=1 --"),
    "/search?q=" + quote("1 UNION SELECT 1, 2, 3"),
    "/files/..%2f..%2fetc/passwd",
    "/search?q=" + quote("<script>alert(1)</script>"),
)


@attrs.frozen
class Visit:
    """One request to the shop."""

    method: str
    target: str
    address: str
    agent: str
    form: str | None = None


@attrs.frozen
class Answered:
    """A visit that the shop answered.

    Args:
        began_at: monotonic seconds.
    """

    address: str
    began_at: float
    status: int


def visits(rng: random.Random, *, others: bool = False) -> Iterator[Visit]:
    """Go on for ever: two ordinary requests for each hostile one, in a random order.

    Args:
        rng: chooses.
        others: attackers whom no rule is about come too.
    """
    while True:
        attack = rng.choice(_ATTACKS)
        wrong = urlencode({"password": f"guess-{rng.randrange(1_000)}"})
        right = urlencode({"password": "correct horse"})
        person = f"198.51.100.{rng.randrange(1, 255)}"
        mixture = [
            Visit("GET", "/", person, "Mozilla/5.0"),
            Visit("GET", f"/products/{rng.randrange(1, 100)}", person, "Mozilla/5.0"),
            Visit("GET", "/search?q=boots", person, "Mozilla/5.0"),
            Visit("POST", "/login", person, "Mozilla/5.0", right),
            Visit("GET", attack, ATTACKER, "sqlmap/1.8"),
            Visit("POST", "/login", ATTACKER, "hydra/9.5", wrong),
            *[Visit("GET", "/", _HAMMER, "python-requests/2.32")] * 3,
        ]
        if others:
            other = f"192.0.2.{rng.randrange(1, 255)}"
            mixture.append(Visit("GET", rng.choice(_ATTACKS), other, "sqlmap/1.8"))
        rng.shuffle(mixture)
        yield from mixture


class Traffic:
    """Sends visits at a steady pace from a few threads, until there were enough or it is stopped.

    Args:
        host: the shop's.
        port: the shop's.
        source: where the visits come from.
        count: how many at most.
        rate: visits a second, all threads together.
        threads: how many send.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        source: Iterator[Visit],
        count: int,
        rate: float,
        threads: int = 4,
    ) -> None:
        self._host = host
        self._port = port
        self._source = source
        self._count = count
        self._rate = rate
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # guards the source and the three below
        self._begun = 0
        self._began_at = 0.0
        self.answered: list[Answered] = []
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, name="guardagent-demo-visitor", daemon=True)
            for _ in range(threads)
        ]

    def __enter__(self) -> Self:
        self._began_at = SYSTEM_CLOCK.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    @property
    def is_over(self) -> bool:
        """Whether every visit has been made."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return SYSTEM_CLOCK.monotonic() - self._began_at

    def _run(self) -> None:
        while (following := self._next()) is not None:
            visit, at = following
            if self._stopped.wait(max(0.0, at - SYSTEM_CLOCK.monotonic())):
                return
            began_at = SYSTEM_CLOCK.monotonic()
            try:
                status = _make(visit, self._host, self._port)
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures.append(f"{visit.method} {visit.target}: {error!r}")
            else:
                with self._lock:
                    self.answered.append(Answered(visit.address, began_at, status))

    def _next(self) -> tuple[Visit, float] | None:
        with self._lock:
            if self._begun >= self._count:
                return None
            at = self._began_at + self._begun / self._rate
            self._begun += 1
            return next(self._source), at


def _make(visit: Visit, host: str, port: int) -> int:
    headers = {"X-Forwarded-For": visit.address, "User-Agent": visit.agent}
    if visit.form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request(visit.method, visit.target, visit.form, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
