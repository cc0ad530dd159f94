"""A delivery with everything around it, turned by hand."""

from __future__ import annotations

from typing import Any

from guardagent.delivery import Delivery
from guardagent.intake import Marker
from guardagent.spool import MemorySpool, Spool
from guardagent.status import Callbacks, Ledger
from guardagent.testing.clock import ManualClock
from tests.scripted import ManualBell, ScriptedTransport, config, key, records

__all__ = ["Room"]


class Room:
    """A delivery with everything around it, turned by hand."""

    def __init__(
        self,
        *answers: Any,
        spool: Spool | None = None,
        max_bytes: int = 1 << 20,
        **settings: Any,
    ) -> None:
        self.clock = ManualClock()
        self.bell = ManualBell(self.clock)
        self.ledger = Ledger()
        self.spool = spool or MemorySpool(10_000, 1 << 30)
        self.transport = ScriptedTransport(*answers)
        self.errors: list[tuple[str, BaseException, Any]] = []
        self.is_filling = False
        self.delivery = Delivery(
            config(**{"flush_interval": 30.0, "buffer_size": 1, "backoff_factor": 1.0, **settings}),
            self.spool,
            self.ledger,
            Callbacks(lambda *error: self.errors.append(error)),
            self.clock,
            self.bell,
            max_bytes=max_bytes,
            is_filling=lambda: self.is_filling,
            rng=lambda: 0.0,
        )
        self.delivery.use(self.transport)
        self.appended = 0

    def append(self, count: int = 1, kind: Any = "events", **fields: Any) -> list[str]:
        """Bring records as the drain does."""
        given = records(count, kind, start=self.appended, created_at=self.clock.now(), **fields)
        self.appended += count
        lost = self.spool.append(given)
        if lost:
            self.ledger.drop("overflow", lost)
        self.delivery.look()
        return [key(self.appended - count + n) for n in range(count)]

    def run(self) -> float | None:
        """Turn until there is something to wait for."""
        for _ in range(1_000):
            wait = self.delivery.turn()
            if wait != 0:
                return wait
        raise AssertionError("it does not come to rest")

    def live(self, seconds: float) -> None:
        """Do what the thread does for so long."""
        ends_at = self.clock.monotonic() + seconds
        while self.clock.monotonic() < ends_at:
            wait = self.run()
            left = ends_at - self.clock.monotonic()
            self.bell.wait(left if wait is None else min(wait, left))

    def mark(self) -> Marker:
        marker = Marker()
        self.delivery.receive(marker)
        return marker

    @property
    def rang(self) -> bool:
        now = self.clock.monotonic()
        answer = self.bell.wait(0)
        assert self.clock.monotonic() == now
        return answer

    @property
    def sizes(self) -> list[int]:
        return [len(sent.bodies) for sent in self.transport.sent]

    @property
    def dropped(self) -> dict[str, int]:
        return {reason: n for reason, n in self.ledger.losses().items() if n}

    def assert_balanced(self) -> None:
        dropped = sum(self.dropped.values())

        assert self.appended == self.ledger.delivered.value + self.spool.pending() + dropped
        assert self.delivery.in_flight == 0
