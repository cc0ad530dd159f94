"""Processes that share a spool: each event is delivered by one of them, and counted by one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import attrs
import pytest

from tests.faults.spools import Nurseries, Place, Start
from tests.support.accounts import repeats
from tests.support.answers import Accept
from tests.support.backend import Backend
from tests.support.wire import Exchange

WORKERS = 4


@attrs.frozen
class Late:
    """Accept, and take a while to say so."""

    seconds: float

    def play(self, exchange: Exchange) -> None:
        exchange.wire.pause(self.seconds)
        Accept().play(exchange)


@pytest.mark.slow
def test_workers_under_load_deliver_each_event_once(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """Four workers capture and deliver at full speed, and none sends what another does."""

    def work(start: Start, _: int) -> None:
        brood = start("empty", place.settings(), count=WORKERS, bursts=10, events=300, pause=0.005)
        workers = brood.wait()

        captured = brood.keys()
        assert len(captured) == WORKERS * 10 * 300
        assert brood.troubles == []
        assert backend.keys == captured
        assert repeats(backend.received) == []
        assert sum(worker["delivered"] for worker in workers) == len(captured)
        assert [worker for worker in workers if not worker["balanced"] or worker["dropped"]] == []
        assert [worker["unspooled"] for worker in workers] == [0] * WORKERS
        assert sum(worker["spooled"] for worker in workers) == 0

    nurseries(1).each(work, [0])


@pytest.mark.slow
def test_slow_owner_keeps_its_batch(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """Requests that take three leases are renewed meanwhile, and nobody else sends them."""
    backend.default = Late(1.6)

    def work(start: Start, _: int) -> None:
        brood = start("empty", place.settings(), count=3, events=20)
        workers = brood.wait()

        assert backend.keys == brood.keys()
        assert repeats(backend.received) == []
        assert sum(worker["delivered"] for worker in workers) == len(brood.keys())

    nurseries(1).each(work, [0])


@pytest.mark.slow
def test_batch_of_a_frozen_owner_is_counted_once(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """An owner stands still for longer than its lease; what it then hears of, another has counted."""
    backend.script(Late(0.3))

    def work(start: Start, _: int) -> None:
        frozen = start("empty", place.settings(), events=50)
        assert backend.wait_for_requests(1)
        frozen.freeze()
        threading.Event().wait(0.6)
        ...

    nurseries(2).each(work, [0])
