"""Processes that share a spool: each event is delivered by one of them, and counted by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.conftest import MakeAgent
from tests.faults.spools import Nurseries, Place
from tests.support.accounts import capture, repeats
from tests.support.answers import Accept, Status
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
    (start,) = nurseries(1).starts()
    settings = {**place.settings(), "spool_lease": 15.0}  # the default: nobody stands still so long

    brood = start("empty", settings, count=WORKERS, bursts=10, events=300, pause=0.005)
    workers = brood.wait()

    captured = brood.keys()
    assert len(captured) == WORKERS * 10 * 300
    assert brood.troubles == []
    assert backend.keys == captured
    assert repeats(backend.received) == []
    _assert_counted_once(backend, workers)


@pytest.mark.slow
def test_slow_owner_keeps_its_batch(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """What takes three leases to send is renewed meanwhile, and nobody else sends it."""
    backend.default = Late(1.6)
    (start,) = nurseries(1).starts()

    brood = start("empty", place.settings(), count=3, events=20)
    workers = brood.wait()

    assert backend.keys == brood.keys()
    assert repeats(backend.received) == []
    _assert_counted_once(backend, workers)


@pytest.mark.slow
def test_batch_of_a_frozen_owner_is_counted_once(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """One stands still for longer than its lease; what it hears of later, another has counted."""
    backend.script(Late(0.1))
    start, start_heir = nurseries(2).starts()

    frozen = start("empty", place.settings(), events=50)
    assert backend.wait_for_requests(1)
    frozen.freeze()
    heir = start_heir("empty", place.settings(), events=1, least=51)
    (second,) = heir.wait()
    frozen.thaw()
    (first,) = frozen.wait()

    assert backend.keys == frozen.keys() | heir.keys()
    assert set(repeats(backend.received)) == frozen.keys()
    assert (first["delivered"], second["delivered"]) == (0, 51)
    _assert_counted_once(backend, [first, second])


@pytest.mark.slow
def test_frozen_owner_sends_nothing_that_another_has_sent(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """What it had in hand, refused and to be tried again, is no longer its own after the thaw."""
    backend.default = Status(503, {}, b"")
    start, start_heir = nurseries(2).starts()

    frozen = start("empty", place.settings(), events=50)
    assert backend.wait_for_requests(2)
    frozen.freeze()
    backend.default = Accept()
    heir = start_heir("empty", place.settings(), events=1, least=51)
    (second,) = heir.wait()
    frozen.thaw()
    (first,) = frozen.wait()

    assert backend.keys == frozen.keys() | heir.keys()
    assert repeats(backend.received) == []
    assert (first["delivered"], second["delivered"]) == (0, 51)
    _assert_counted_once(backend, [first, second])


@pytest.mark.slow
def test_owner_that_is_busy_keeps_its_batch(
    backend: Backend, make_agent: MakeAgent, place: Place
) -> None:
    """Several leases long one thread is in a hook of the application's, and one in a request."""
    backend.default = Late(1.6)
    agent = make_agent(
        **place.settings(),
        before_send=lambda event: event if event.reason != "slow" or backend.wait_for(20) else None,
    )
    keys = capture(agent, 20)
    assert backend.wait_for_requests(1)
    keys += capture(agent, 1, reason="slow")

    make_agent(**place.settings()).start()

    assert backend.wait_for(21, 20.0)
    assert agent.flush(timeout=20.0)
    assert sorted(backend.received) == sorted(keys)


def _assert_counted_once(backend: Backend, workers: list[dict[str, Any]]) -> None:
    assert backend.unreadable == []
    assert sum(worker["delivered"] for worker in workers) == len(backend.keys)
    assert sum(worker["spooled"] for worker in workers) == 0
    for worker in workers:
        assert (worker["balanced"], worker["stopped"], worker["flushed"]) == (True, True, True)
        assert (worker["unspooled"], worker["dropped"]) == (0, {})
