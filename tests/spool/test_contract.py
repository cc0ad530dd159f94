"""What every spool promises; each implementation runs through all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from guardagent.spool import MemorySpool, Spool
from guardagent.spool.frame import HEADER_BYTES
from guardagent.spool.protocol import Batch
from tests.scripted import in_threads, key, keys, record, records
from tests.spool.homes import DURABLE, LARGE, LEASE, Home, home_of

NOW = 1_800_000_000.0


@pytest.fixture(params=["memory", *DURABLE])
def new_spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Make empty spools of each implementation; a second one shares the place of the first."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield lambda max_records=10_000, max_bytes=LARGE, when_full="drop_oldest": MemorySpool(
                max_records, max_bytes, when_full=when_full
            )
            return
        yield stack.enter_context(
            home_of(request.param, tmp_path, lambda: request.getfixturevalue("redis_server"))
        ).spool


@pytest.fixture
def spool(new_spool: Any) -> Any:
    """Return an empty spool of each implementation."""
    spool = new_spool()
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


# -- bounds --------------------------------------------------------------------------------------


def test_the_oldest_gives_way(new_spool: Any) -> None:
    """Beyond the bound each new record costs the oldest one, which is counted."""
    spool = new_spool(max_records=3)

    lost = [spool.append(records(3)), spool.append(records(2, start=3))]

    assert lost == [0, 2]
    assert (spool.pending(), spool.balance()) == (3, 3)
    assert drained(spool) == [key(2), key(3), key(4)]


def test_the_oldest_of_both_kinds_gives_way(new_spool: Any) -> None:
    """Whichever kind has the record that was made first."""
    spool = new_spool(max_records=2)
    spool.append([record(0, "metrics", created_at=1.0), record(1, "events", created_at=2.0)])

    spool.append([record(2, "events", created_at=3.0)])

    assert drained(spool) == [key(1), key(2)]


def test_nobody_gives_way(new_spool: Any) -> None:
    """Under "grow" the bound binds whoever asks for `room`, and nothing is ever lost."""
    spool = new_spool(max_records=3, when_full="grow")

    lost = spool.append(records(5))

    assert (lost, spool.pending(), spool.room()) == (0, 5, 0)


def test_bytes_are_bounded_too(new_spool: Any) -> None:
    """What a record takes in the spool counts, which may be its header, too."""
    spool = new_spool(max_bytes=3 * (100 + HEADER_BYTES))

    lost = spool.append(records(10, size=100))

    assert (lost, spool.pending(), spool.nbytes()) == (7, 3, 300)
    assert drained(spool) == [key(7), key(8), key(9)]


def test_a_record_that_can_never_fit_costs_no_other(new_spool: Any) -> None:
    """One larger than the whole spool is given up itself, and counted."""
    spool = new_spool(max_bytes=200)
    spool.append([record(0, size=40)])

    lost = spool.append([record(1, size=201)])

    assert (lost, spool.balance()) == (1, 1)
    assert drained(spool) == [key(0)]


def test_what_is_being_sent_does_not_give_way(new_spool: Any) -> None:
    """When all there is is being sent, the newcomer is lost."""
    spool = new_spool(max_records=2)
    spool.append(records(2))
    batch = claim(spool, 2)

    lost = spool.append([record(2)])
    spool.release(batch)

    assert lost == 1
    assert drained(spool) == [key(0), key(1)]


def test_an_evicted_record_is_settled(new_spool: Any) -> None:
    """A flush does not wait for what was lost."""
    spool = new_spool(max_records=2)
    spool.append(records(2))
    ticket = spool.ticket()

    spool.append(records(2, start=2))

    assert spool.is_settled(ticket)


def test_room_is_what_is_left(new_spool: Any) -> None:
    """It counts down to 0, claimed records included, and back."""
    spool = new_spool(max_records=3)
    rooms = [spool.room()]

    for n in range(4):
        spool.append([record(n)])
        rooms.append(spool.room())
    batch = claim(spool, 2)
    rooms.append(spool.room())
    spool.ack(batch)
    rooms.append(spool.room())

    assert rooms == [3, 2, 1, 0, 0, 0, 2]


def test_there_is_no_room_without_bytes(new_spool: Any) -> None:
    """A spool full of bytes has none, however few records they are."""
    spool = new_spool(max_bytes=4_096, when_full="grow")

    spool.append([record(0, size=4_000)])

    assert spool.room() == 0


# -- values --------------------------------------------------------------------------------------


def test_values_are_kept(spool: Spool) -> None:
    """The last one put under a name, as the bytes it was; nothing where nothing was put."""
    spool.put("rules", b"{}")
    spool.put("rules", bytes(range(256)))
    spool.put("empty", b"")

    assert spool.get("rules") == bytes(range(256))
    assert spool.get("empty") == b""
    assert spool.get("other") is None


# -- books ---------------------------------------------------------------------------------------


def test_the_balance_is_what_this_process_has_in_it(spool: Spool) -> None:
    """It falls with what is acknowledged, buried and expired, and with nothing else."""
    balances = []
    spool.append(records(6, created_at=1.0))
    for settle in (spool.release, spool.split, spool.ack, lambda one: spool.bury(one, "rejected")):
        settle(claim(spool, 2))  # type: ignore[operator]
        balances.append(spool.balance())
    spool.expire(2.0)
    balances.append(spool.balance())

    assert balances[:3] == [6, 6, 5]
    assert (balances[3:], spool.pending()) == ([4, 0], 0)


def test_a_healthy_spool_is_durable_or_not(spool: Spool) -> None:
    """What is at risk is all of a spool in memory and nothing of a durable one."""
    spool.append(records(2))

    assert spool.at_risk() == (0 if spool.durable else 2)


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
    """An answer that comes too late is not counted; what is durable is there for others."""
    spool.append(records(4))
    first, second = claim(spool, 2), claim(spool, 2)
    spool.close()

    settled = spool.ack(first)
    spool.release(second)

    assert settled == 0
    assert (spool.pending(), spool.nbytes()) == ((4, 160) if spool.durable else (0, 0))
    assert spool.claim(10, LARGE, NOW) is None


def test_one_appends_while_another_settles(spool: Spool) -> None:
    """Two threads at work together lose nothing and mix nothing up."""
    total = 2_000
    found: list[str] = []

    def work(number: int) -> None:
        if number == 0:
            for start in range(0, total, 50):
                spool.append(records(50, start=start, created_at=NOW))
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


# -- others --------------------------------------------------------------------------------------


def test_what_others_put_in_is_handed_out(home: Home) -> None:
    """In their order; each process's books hold what it put in less what it took out."""
    one, other = home.spool(), home.spool()
    one.append(records(3))
    other.append(records(2, start=3))

    found = drained(other)
    home.pass_time(2.0)
    one.look()

    assert found == [key(n) for n in range(5)]
    assert (one.pending(), other.pending()) == (0, 0)
    assert (one.balance(), other.balance()) == (3, -3)


def test_what_one_has_claimed_no_other_gets(home: Home) -> None:
    """Nor when it has come back to be sent again."""
    one, other = home.spool(), home.spool()
    one.append(records(4))
    batch = claim(one, 2)

    rest = drained(other)
    one.release(batch)

    assert rest == [key(2), key(3)]
    assert other.claim(10, LARGE, NOW) is None
    assert drained(one) == [key(0), key(1)]


def test_what_the_dead_held_is_taken_over(home: Home) -> None:
    """When its lease has run out: the same records under the same name, in the same bytes."""
    dead, other = home.agent(), home.spool()
    dead.spool.append(records(5))
    batch = claim(dead.spool, 3, now=NOW + 0.25)
    dead.crash()

    early = claim(other)
    home.pass_time(LEASE + 1)
    taken = claim(other, now=NOW + 50)

    assert keys(early.bodies) == [key(3), key(4)]
    assert (taken.batch_id, list(taken.bodies)) == (batch.batch_id, list(batch.bodies))
    assert taken.created_at == batch.created_at


def test_what_was_taken_over_is_taken_over_again(home: Home) -> None:
    """A second death changes nothing."""
    spools = [home.agent() for _ in range(3)]
    spools[0].spool.append(records(3))
    names = []

    for one in spools:
        names.append(claim(one.spool, 3).batch_id)
        one.crash()
        home.pass_time(LEASE + 1)

    assert len(set(names)) == 1


def test_what_is_left_of_a_split_batch_is_another_batch(home: Home) -> None:
    """The accepted half is gone, so the rest goes under a name of its own."""
    dead, other = home.agent(), home.spool()
    dead.spool.append(records(4))
    batch = claim(dead.spool)
    dead.spool.split(batch)
    dead.spool.ack(claim(dead.spool))
    dead.crash()

    home.pass_time(LEASE + 1)
    taken = claim(other)

    assert keys(taken.bodies) == [key(2), key(3)]
    assert taken.batch_id != batch.batch_id
    assert other.ack(taken) == 2


def test_what_was_taken_over_fits_the_new_bounds(home: Home) -> None:
    """A process with smaller batches cuts what it takes over, and loses nothing of it."""
    dead, other = home.agent(), home.spool()
    dead.spool.append(records(7, size=50))
    claim(dead.spool)
    dead.crash()

    home.pass_time(LEASE + 1)
    batches = [claim(other, 3, 102) for _ in range(4)]

    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    assert [one for batch in batches for one in keys(batch.bodies)] == [key(n) for n in range(7)]
    assert sum(other.ack(batch) for batch in batches) == 7
    assert other.pending() == 0


def test_the_living_keep_what_they_hold(home: Home) -> None:
    """However long a request takes: the lease is renewed, of what came back and of halves, too."""
    slow, other = home.spool(), home.spool()
    slow.append(records(9))
    sending, returned, halved = claim(slow, 3), claim(slow, 3), claim(slow, 3)
    slow.release(returned)
    slow.split(halved)

    for _ in range(30):
        home.pass_time(LEASE / 5)
        slow.tend()
        assert other.claim(10, LARGE, NOW) is None

    assert slow.ack(sending) == 3
    assert sorted(drained(slow)) == [key(n) for n in range(3, 9)]


def test_a_sleeper_does_not_take_from_itself(home: Home) -> None:
    """After a suspend its own leases look as if they had run out; it holds their records still."""
    spool = home.spool()
    spool.append(records(2))
    batch = claim(spool)

    home.pass_time(10 * LEASE)

    assert spool.claim(10, LARGE, NOW) is None
    assert spool.ack(batch) == 2


def test_who_comes_back_late_settles_nothing_twice(home: Home) -> None:
    """Records that another has settled meanwhile count for the other alone."""
    sleeper, other = home.spool(), home.spool()
    sleeper.append(records(4))
    batch = claim(sleeper)
    home.pass_time(LEASE + 1)

    taken = other.ack(claim(other))
    settled = sleeper.ack(batch)

    assert (taken, settled) == (4, 0)
    assert (sleeper.balance(), other.balance()) == (4, -4)


def test_who_stood_still_lets_go_of_what_another_took(home: Home) -> None:
    """It sends none of that again, whether it was sending it or had it back; the rest it does."""
    sleeper, other = home.spool(), home.spool()
    sleeper.append(records(6))
    sending, returned, halved = (claim(sleeper, 2) for _ in range(3))
    sleeper.release(returned)
    before = sleeper.is_ours(sending)
    home.pass_time(LEASE + 1)
    taken = [claim(other), claim(other)]

    after = [sleeper.is_ours(sending), sleeper.is_ours(halved)]
    sleeper.release(sending)
    sleeper.release(halved)
    found = drained(sleeper)

    assert (before, after) == (True, [False, True])
    assert found == [key(4), key(5)]
    assert sum(other.ack(batch) for batch in taken) == 4
    assert sleeper.balance() + other.balance() == 0


def test_who_stood_still_asks_before_it_goes_on(home: Home) -> None:
    """Nothing is handed out again without a look at who has it by now."""
    sleeper, other = home.spool(), home.spool()
    sleeper.append(records(2))
    sleeper.release(claim(sleeper))
    home.pass_time(LEASE + 1)

    taken = claim(other)

    assert sleeper.claim(10, LARGE, NOW) is None
    assert other.ack(taken) == 2


def test_a_late_answer_settles_what_another_has_not_sent(home: Home) -> None:
    """The backend has accepted it: whoever has the records by now need not send them."""
    sleeper, other = home.spool(), home.spool()
    sleeper.append(records(2))
    sending = claim(sleeper)
    home.pass_time(LEASE + 1)
    taken = claim(other)
    assert not sleeper.is_ours(sending)

    settled = sleeper.ack(sending)

    assert (settled, other.ack(taken)) == (2, 0)
    assert home.store().depth().records == 0


def test_what_is_handed_back_can_be_had_at_once(home: Home) -> None:
    """Who ends in order makes nobody wait for a lease; the batch keeps its name."""
    one, other = home.spool(), home.spool()
    one.append(records(3))
    batch = claim(one)

    one.hand_back()
    taken = claim(other)

    assert taken.batch_id == batch.batch_id
    assert one.ack(batch) == 0
    assert other.ack(taken) == 3


def test_a_spool_can_be_closed_and_opened_again(home: Home) -> None:
    """Records, claimed ones too, and values are there for the next process."""
    before = home.spool()
    before.append([*records(3), record(9, "metrics")])
    before.put("rules", b"{}")
    claim(before, 2)
    lost = before.close()

    after = home.spool()

    assert lost == 0
    assert after.get("rules") == b"{}"
    assert sorted(drained(after)) == [key(0), key(1), key(2), key(9)]


def test_a_ticket_is_settled_by_others_too(home: Home) -> None:
    """And does not wait for what they put in."""
    one, other = home.spool(), home.spool()
    one.append(records(2))
    ticket = one.ticket()
    other.append(records(2, start=2))
    states = [one.is_settled(ticket)]

    batch = claim(other, 2)
    states.append(one.is_settled(ticket))
    other.ack(batch)
    states.append(one.is_settled(ticket))

    assert states == [False, False, True]


def test_room_that_another_made_is_seen(home: Home) -> None:
    """A process that only fills a spool that was full goes on once somebody has emptied it."""
    filler = home.spool(max_records=3, when_full="grow", hands_over=True)
    filler.append(records(3))
    rooms = [filler.room()]

    drained(home.spool())
    home.pass_time(2.0)
    wait = filler.tend()
    rooms.append(filler.room())

    assert rooms == [0, 3]
    assert (wait, filler.pending()) == (2.0, 0)


def test_many_share_the_work(home: Home) -> None:
    """Two processes with two threads each: every record is claimed by exactly one of them."""
    spools, total = [home.spool(), home.spool()], 1_200
    found: list[list[str]] = [[], []]

    def work(number: int) -> None:
        spool, mine = spools[number % 2], found[number % 2]
        if number < 2:
            for start in range(number * total, (number + 1) * total, 40):
                spool.append(records(40, start=start, created_at=NOW))
            return
        turn = 0
        while sum(map(len, found)) < 2 * total:
            batch = spool.claim(70, LARGE, NOW)
            if batch is None:
                continue
            turn += 1
            if turn % 4 == 0:
                spool.release(batch)
            elif turn % 5 == 0 and len(batch) > 1:
                spool.split(batch)
            else:
                mine.extend(keys(batch.bodies))
                assert spool.ack(batch) == len(batch)

    in_threads(4, work)

    assert sorted(found[0] + found[1]) == [key(n) for n in range(2 * total)]
    assert sum(spool.balance() for spool in spools) == 0
    assert home.store().depth().records == 0
