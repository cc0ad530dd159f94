"""Processes killed at a random moment: what was captured 100 ms before arrives, and arrives once.

Twenty seeded rounds each, side by side, each with a spool of its own; only relays follow each other
on the same one.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import attrs
import pytest

from tests.cli.shared import Relay, SharedSpool
from tests.faults.spools import PATIENCE, Brood, Nurseries, Place, Start
from tests.support.accounts import repeats
from tests.support.answers import Accept, Answer
from tests.support.backend import Backend
from tests.support.breakdowns import HangBeforeHeaders, HangInBody

pytestmark = [pytest.mark.alone, pytest.mark.slow]

ROUNDS = 20
#: Lines of relays, side by side, for a relay takes most of a second to begin; records of a batch.
LINES, BATCH = 2, 25
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
    rounds, seeds = nurseries(2), range(ROUNDS)

    def die(start: Start, seed: int) -> Loot:
        settings = place.settings(f"round-{seed}")
        return _kill(start("hammer", settings, count=count, pause=0.004 * count), seed)

    def recover(start: Start, seed: int) -> list[dict[str, Any]]:
        return start("empty", place.settings(f"round-{seed}"), count=count, events=1).wait()

    backend.down()
    loot = rounds.each(die, seeds, lanes=4 // count)
    backend.up()
    heirs = [heir for some in rounds.each(recover, seeds) for heir in some]

    received = backend.received
    assert sum(len(one.safe) for one in loot) > 10 * ROUNDS * count
    assert [one.troubles for one in loot if one.troubles] == []
    assert [len(one.safe.difference(received)) for one in loot] == [0] * ROUNDS
    assert repeats(received) == []
    assert backend.unreadable == []
    # Nothing comes from nowhere: the heirs' own event, and at most one whose capture was not noted.
    foreign = set(received).difference(*(one.all for one in loot))
    assert len(foreign) <= 2 * ROUNDS * count
    assert sum(heir["delivered"] for heir in heirs) == len(received)
    assert [heir for heir in heirs if heir["unspooled"] or not heir["balanced"]] == []
    assert [heir for heir in heirs if not heir["stopped"] or heir["dropped"]] == []


def test_batch_of_a_killed_relay_is_taken_over(
    nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """A relay is killed with its request out; what was accepted unheard comes again as it was.

    It is the command itself, and each relay is the heir of the one before. The processes that
    captured do not deliver, and are gone by then.
    """

    def one(start: Start, seed: int) -> None:
        settings = place.settings(f"line-{seed}")
        with Backend() as backend:
            _line_of_relays(start, settings, backend, random.Random(seed))

    nurseries(LINES).each(one, range(LINES))


def _line_of_relays(
    start: Start, settings: Mapping[str, Any], backend: Backend, rng: random.Random
) -> None:
    kills = ROUNDS // LINES
    spool = SharedSpool(settings["spool"], settings["project_id"])
    # A killed relay has had eight requests, and what it could send in 10 ms.
    filler = start("fill", {**settings, "deliver": False}, events=kills * 20 * BATCH)
    assert filler.wait()[0]["flushed"]

    fates = [_killed_in_mid_batch(spool, backend, rng) for _ in range(kills)]
    heir = Relay(spool, backend.url, "--once", GUARDAGENT_MAX_BATCH_SIZE=str(BATCH))
    with contextlib.closing(heir):
        assert heir.wait() == 0, list(heir.complaints.queue)

    again = set(repeats(backend.received))
    repeated = [request for request in backend.requests if again.intersection(request.keys)]
    batches = {str(request.document["batch_id"]): request.keys for request in repeated}
    assert backend.keys == filler.keys()
    assert spool.pending == 0
    # Whole batches, one for each kill at most, each under the name that it had.
    assert fates.count(HangInBody()) <= len(batches) <= kills
    assert all(batches[str(one.document["batch_id"])] == one.keys for one in repeated)
    assert sum(map(len, batches.values())) == len(again)


def _killed_in_mid_batch(spool: SharedSpool, backend: Backend, rng: random.Random) -> Answer:
    """Let a relay deliver a little, and kill it; return how its request was answered."""
    heard, fate = rng.randrange(8), rng.choice([Accept(), HangBeforeHeaders(), HangInBody()])
    before = len(backend.requests)
    backend.script(*[Accept()] * heard, fate)
    relay = Relay(spool, backend.url, GUARDAGENT_MAX_BATCH_SIZE=str(BATCH))
    with contextlib.closing(relay):
        assert backend.wait_for_requests(before + heard + 1, PATIENCE)
        threading.Event().wait(rng.uniform(0.0, 0.01))
        assert relay.end(signal.SIGKILL)[0] == -signal.SIGKILL
    return fate


def _kill(brood: Brood, seed: int) -> Loot:
    """Kill each at its own moment, between 150 and 350 ms after the first event."""
    rng = random.Random(seed)
    brood.wait_begun()
    safe: set[str] = set()
    moments = sorted(rng.uniform(0.15, 0.35) for _ in brood.pids)
    begun = time.monotonic()
    for number, moment in enumerate(moments):
        threading.Event().wait(begun + moment - time.monotonic())
        killed_at = time.monotonic()
        brood.kill(number)
        lines = brood.lines(number)
        # It may have waited for one that was kept from running with the spool's file locked.
        alive = range(number, len(brood.pids))
        stalled = sum(_stalled(brood.ticks(one), killed_at) for one in alive)
        safe_until = killed_at - SAFE_AFTER - stalled
        safe |= {line.key for line in lines if line.taken and line.at <= safe_until}
    brood.wait_killed()
    return Loot(safe, brood.keys(), brood.troubles)


def _stalled(ticks: list[float], killed_at: float) -> float:
    """Return how long the machine has kept a process from running, lately.

    Where it is idle that is nothing; where twenty processes share a core it can be 100 ms.
    """
    moments = [tick for tick in ticks if tick > killed_at - 3 * SAFE_AFTER]
    gaps = [later - one for one, later in pairwise([*moments, killed_at])]
    return sum(gap - 0.006 for gap in gaps if gap > 0.006)
