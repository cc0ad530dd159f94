"""What every spool promises; each implementation runs through all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from guardagent.spool import MemorySpool, Spool
from guardagent.spool.protocol import Batch
from tests.scripted import in_threads, key, keys, record, records

NOW = 1_800_000_000.0
LARGE = 1 << 30

MakeSpool = Callable[[], Spool]


def memory() -> Spool:
    return MemorySpool(10_000, LARGE)


@pytest.fixture(params=[memory])
def spool(request: pytest.FixtureRequest) -> Any:
    """Return an empty spool of each implementation."""
    spool = request.param()
    yield spool
    spool.close()


def claim(spool: Spool, limit: int = 100, max_bytes: int = LARGE, now: float = NOW) -> Batch:
    """Claim what must be there."""
    batch = spool.claim(limit, max_bytes, now)

    assert batch is not None
    return batch


def drained(spool: Spool) -> list[str]:
    """Acknowledge everything that can be claimed; return the keys in their order."""
    found: list[str] = []
    while (batch := spool.claim(100, LARGE, NOW)) is not None:
        found += keys(batch.bodies)
        spool.ack(batch)
    return found


# -- append and claim ----------------------------------------------------------------------------


def test_an_empty_spool_has_nothing(spool: Spool) -> None:
    """Nothing to claim, nothing pending, nothing lost."""
    assert spool.claim(10, LARGE, NOW) is None
    assert (spool.pending(), spool.nbytes(), spool.expire(NOW), spool.close()) == (0, 0, 0, 0)


def test_records_come_out_in_order(spool: Spool) -> None:
    """The oldest record comes first, its bytes unchanged."""
    given = records(5)

    lost = spool.append(given)
    batch = claim(spool)

    assert lost == 0
    assert list(batch.bodies) == [one.body for one in given]


def test_append_of_nothing(spool: Spool) -> None:
    """An empty list changes nothing."""
    assert spool.append([]) == 0
    assert spool.pending() == 0


def test_pending_counts_claimed_records_too(spool: Spool) -> None:
    """A record is pending until it is settled."""
    spool.append(records(3, size=50))

    claim(spool)

    assert (spool.pending(), spool.nbytes()) == (3, 150)


def test_claim_keeps_to_its_limit(spool: Spool) -> None:
    """A batch has at most `limit` records; the next begins where it ended."""
    spool.append(records(5))

    sizes = [len(claim(spool, 2)) for _ in range(3)]

    assert sizes == [2, 2, 1]
    assert spool.claim(2, LARGE, NOW) is None


@pytest.mark.parametrize(("max_bytes", "count"), [(122, 2), (123, 3), (163, 3), (164, 4)])
def test_claim_keeps_to_its_bytes(spool: Spool, max_bytes: int, count: int) -> None:
    """Bodies with a comma each stay within the bound."""
    spool.append(records(10, size=40))

    assert len(claim(spool, max_bytes=max_bytes)) == count


def test_one_record_is_handed_out_whatever_its_size(spool: Spool) -> None:
    """A record larger than the bound goes alone rather than never."""
    spool.append([record(0, size=500), record(1, size=40)])

    assert keys(claim(spool, max_bytes=100).bodies) == [key(0)]


def test_kinds_do_not_mix(spool: Spool) -> None:
    """A batch has events or metrics; the kind that waits longest is first."""
    spool.append([record(0, "metrics", created_at=1.0)])
    spool.append([record(1, "events", created_at=2.0), record(2, "metrics", created_at=3.0)])

    first, second = claim(spool), claim(spool)

    assert (first.kind, keys(first.bodies)) == ("metrics", [key(0), key(2)])
    assert (second.kind, keys(second.bodies)) == ("events", [key(1)])


def test_batch_has_an_identity(spool: Spool) -> None:
    """Its id is `<unix ms>-<8 hex>` of the claim, and different from the next one's."""
    spool.append(records(2))

    first, second = claim(spool, 1, now=NOW + 0.5), claim(spool, 1)

    assert first.created_at == NOW + 0.5
    assert first.batch_id.startswith("1800000000500-")
    assert len(first.batch_id) == len("1800000000500-") + 8
    assert first.batch_id != second.batch_id


# -- settle --------------------------------------------------------------------------------------


def test_acknowledged_records_are_gone(spool: Spool) -> None:
    """Nothing of them is pending, and the rest is untouched."""
    spool.append(records(5, size=50))

    spool.ack(claim(spool, 2))

    assert (spool.pending(), spool.nbytes()) == (3, 150)
    assert drained(spool) == [key(2), key(3), key(4)]


def test_released_batch_comes_back_first_and_whole(spool: Spool) -> None:
    """The next claim gives the same batch, whatever its bounds are and what came meanwhile."""
    spool.append(records(3))
    batch = claim(spool)

    spool.append(records(3, start=3))
    spool.release(batch)
    again = claim(spool, 1, 1, NOW + 99)

    assert (again.batch_id, again.bodies) == (batch.batch_id, batch.bodies)
    assert again.created_at == batch.created_at


def test_batches_released_in_reverse_keep_their_order(spool: Spool) -> None:
    """Whoever releases the later one first finds them as they were."""
    spool.append(records(4))
    first, second = claim(spool, 2), claim(spool, 2)

    spool.release(second)
    spool.release(first)

    assert drained(spool) == [key(n) for n in range(4)]


def test_attempts_survive_a_release(spool: Spool) -> None:
    """What delivery notes on a batch is still there when it comes back."""
    spool.append(records(1))
    batch = claim(spool)
    batch.attempts = 2

    spool.release(batch)

    assert claim(spool).attempts == 2


@pytest.mark.parametrize("count", [2, 5])
def test_split_gives_two_halves(spool: Spool, count: int) -> None:
    """They come before everything else, in order, with ids of their own."""
    spool.append(records(count + 1))
    batch = claim(spool, count)
    batch.attempts = 1

    spool.split(batch)
    first, second = claim(spool), claim(spool)

    assert keys([*first.bodies, *second.bodies]) == [key(n) for n in range(count)]
    assert (len(first), len(second)) == (count // 2, count - count // 2)
    assert len({batch.batch_id, first.batch_id, second.batch_id}) == 3
    assert (first.attempts, second.attempts) == (1, 1)
    assert drained(spool) == [key(count)]


def test_accepted_half_is_final(spool: Spool) -> None:
    """Acknowledging one half leaves the other alone."""
    spool.append(records(4))
    spool.split(claim(spool))

    spool.ack(claim(spool))
    spool.release(claim(spool))

    assert drained(spool) == [key(2), key(3)]
    assert (spool.pending(), spool.nbytes()) == (0, 0)


def test_a_half_can_be_split_again(spool: Spool) -> None:
    """Down to single records nothing is lost or changes its order."""
    spool.append(records(5))
    found: list[str] = []
    while (batch := spool.claim(100, LARGE, NOW)) is not None:
        if len(batch) > 1:
            spool.split(batch)
        else:
            found += keys(batch.bodies)
            spool.ack(batch)

    assert found == [key(n) for n in range(5)]
    assert spool.pending() == 0


def test_buried_records_are_never_claimed_again(spool: Spool) -> None:
    """They are not pending any more."""
    spool.append(records(3))

    spool.bury(claim(spool, 2), "rejected")

    assert drained(spool) == [key(2)]


def test_settling_twice_counts_once(spool: Spool) -> None:
    """A batch that was settled cannot be settled, released or split again."""
    spool.append(records(4))
    batch = claim(spool, 2)
    spool.ack(batch)

    spool.ack(batch)
    spool.release(batch)
    spool.split(batch)
    spool.bury(batch, "rejected")

    assert spool.pending() == 2
    assert drained(spool) == [key(2), key(3)]


# -- age -----------------------------------------------------------------------------------------


def test_expire_forgets_old_records(spool: Spool) -> None:
    """Those made before the moment go, those made at it stay."""
    spool.append([record(n, created_at=float(n)) for n in range(4)])
    spool.append([record(9, "metrics", created_at=0.5)])

    lost = spool.expire(2.0)

    assert lost == 3
    assert (spool.pending(), drained(spool)) == (2, [key(2), key(3)])


def test_expire_leaves_claimed_batches_alone(spool: Spool) -> None:
    """What is being sent is settled by its answer; once released it is old too."""
    spool.append(records(2, created_at=1.0))
    batch = claim(spool, now=5.0)

    while_claimed = spool.expire(10.0)
    spool.release(batch)
    after = spool.expire(10.0)

    assert (while_claimed, after, spool.pending(), spool.nbytes()) == (0, 2, 0, 0)


# -- tickets -------------------------------------------------------------------------------------


def test_a_ticket_of_nothing_is_settled(spool: Spool) -> None:
    """There is nothing to wait for; what comes later does not matter."""
    ticket = spool.ticket()

    spool.append(records(1))

    assert spool.is_settled(ticket)


@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_a_ticket_waits_for_everything_before_it(spool: Spool, kind: Any) -> None:
    """Claimed and released records are not settled; acknowledged and buried ones are."""
    spool.append(records(4, kind))
    ticket = spool.ticket()
    spool.append(records(2, kind, start=4))
    states = [spool.is_settled(ticket)]

    first, second = claim(spool, 2), claim(spool, 2)
    spool.release(first)
    spool.ack(second)
    states.append(spool.is_settled(ticket))
    spool.bury(claim(spool), "rejected")
    states.append(spool.is_settled(ticket))

    assert states == [False, False, True]
    assert spool.pending() == 2


def test_a_ticket_waits_for_both_halves(spool: Spool) -> None:
    """A split settles nothing."""
    spool.append(records(2))
    ticket = spool.ticket()
    spool.split(claim(spool))
    states = [spool.is_settled(ticket)]

    for _ in range(2):
        spool.ack(claim(spool))
        states.append(spool.is_settled(ticket))

    assert states == [False, False, True]


def test_expired_records_are_settled(spool: Spool) -> None:
    """A flush does not wait for what is gone."""
    spool.append(records(3, created_at=1.0))
    ticket = spool.ticket()

    spool.expire(2.0)

    assert spool.is_settled(ticket)


# -- the end -------------------------------------------------------------------------------------


def test_close_says_what_is_lost_by_it(spool: Spool) -> None:
    """A spool that does not survive the process counts waiting, claimed and released records."""
    spool.append(records(6))
    claim(spool, 2)
    spool.release(claim(spool, 2))

    lost = spool.close()

    assert lost == (0 if spool.durable else 6)
    assert spool.close() == 0


def test_settling_after_close_changes_nothing(spool: Spool) -> None:
    """An answer that comes too late is not counted against an empty spool."""
    spool.append(records(4))
    first, second = claim(spool, 2), claim(spool, 2)
    spool.close()

    spool.ack(first)
    spool.release(second)

    assert (spool.pending(), spool.nbytes()) == (0, 0)
    assert spool.claim(10, LARGE, NOW) is None


def test_one_appends_while_another_settles(spool: Spool) -> None:
    """Two threads at work together lose nothing and mix nothing up."""
    total = 2_000
    found: list[str] = []

    def work(number: int) -> None:
        if number == 0:
            for start in range(0, total, 50):
                spool.append(records(50, start=start))
            return
        turn = 0
        while len(found) < total:
            batch = spool.claim(70, LARGE, NOW)
            if batch is None:
                continue
            turn += 1
            if turn % 3 == 0:
                spool.release(batch)
            elif turn % 5 == 0 and len(batch) > 1:
                spool.split(batch)
            else:
                found.extend(keys(batch.bodies))
                spool.ack(batch)

    in_threads(2, work)

    assert found == [key(n) for n in range(total)]
    assert (spool.pending(), spool.nbytes()) == (0, 0)
