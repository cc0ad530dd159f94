"""Processes killed at a random moment: what was captured 100 ms before arrives, and arrives once.

Twenty seeded rounds each; the rounds of a test run side by side, each with a spool of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.faults.spools import Brood, Nurseries, Place, Start
from tests.support.accounts import repeats
from tests.support.backend import Backend

pytestmark = pytest.mark.slow

ROUNDS = 20
#: A captured event is in the spool 50 ms later; as much again for the machine.
SAFE_AFTER = 0.1


@attrs.frozen
class Loot:
    """What the killed processes of a round leave.

    Args:
        safe: captured long enough before the kill.
        all: reported as captured.
        troubles: what was told of the spool.
    """

    safe: set[str]
    all: set[str]
    troubles: list[str]


@pytest.mark.parametrize("count", [1, 4], ids=["alone", "four"])
def test_what_was_captured_before_a_kill_arrives_once(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place, count: int
) -> None:
    """Killed under load with the backend down, started again with the backend up."""
    rounds, seeds = nurseries(5), range(ROUNDS)

    def die(start: Start, seed: int) -> Loot:
        settings = place.settings(f"round-{seed}")
        return _kill(start("hammer", settings, count=count, pause=0.004 * count), seed)

    def recover(start: Start, seed: int) -> list[dict[str, Any]]:
        return start("empty", place.settings(f"round-{seed}"), count=count, events=1).wait()

    backend.down()
    loot = rounds.each(die, seeds, lanes=4 // count + 1)
    backend.up()
    heirs = [heir for some in rounds.each(recover, seeds) for heir in some]

    received = backend.received
    assert [one for one in loot if len(one.safe) < 10] == []
    assert [one.troubles for one in loot if one.troubles] == []
    assert [len(one.safe.difference(received)) for one in loot] == [0] * ROUNDS
    assert repeats(received) == []
    assert backend.unreadable == []
    # Nothing comes from nowhere: the heirs' own event, and at most one whose capture was not noted.
    foreign = set(received).difference(*(one.all for one in loot))
    assert len(foreign) <= 2 * ROUNDS * count
    assert sum(heir["delivered"] for heir in heirs) == len(received)
    assert {heir["pending"] - heir["spool_pending"] for heir in heirs} == {0}
    assert [heir for heir in heirs if not heir["stopped"]] == []


def _kill(brood: Brood, seed: int) -> Loot:
    """Kill each at its own moment, between an eighth and half a second after the first event."""
    rng = random.Random(seed)
    brood.wait_begun()
    safe: set[str] = set()
    moments = sorted(rng.uniform(0.125, 0.5) for _ in brood.pids)
    begun = time.monotonic()
    for number, moment in enumerate(moments):
        threading.Event().wait(begun + moment - time.monotonic())
        killed_at = time.monotonic()
        brood.kill(number)
        lines = brood.lines(number)
        safe |= {line.key for line in lines if line.taken and line.at <= killed_at - SAFE_AFTER}
    brood.wait_killed()
    return Loot(safe, brood.keys(), brood.troubles)
