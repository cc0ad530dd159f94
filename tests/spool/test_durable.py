"""The durable spool: a store that is away, half done or begun anew, and nothing lost by it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from guardagent.encoding import Record
from guardagent.errors import FrameError, SpoolError
from guardagent.spool.durable import DurableSpool
from guardagent.spool.frame import HEADER_BYTES, pack
from guardagent.spool.protocol import Batch
from tests.scripted import in_threads, key, keys, record, records
from tests.spool.homes import LARGE, LEASE, Agent, Home

NOW = 1_800_000_000.0


def claim(spool: DurableSpool, limit: int = 100) -> Batch:
    batch = spool.claim(limit, LARGE, NOW)

    assert batch is not None
    return batch


def drained(spool: DurableSpool) -> list[str]:
    found: list[str] = []
    while (batch := spool.claim(100, LARGE, NOW)) is not None:
        found += keys(batch.bodies)
        spool.ack(batch)
    return found


def come_back(home: Home, agent: Agent) -> None:
    """Mend the store and let the spool notice."""
    agent.store.mend()
    home.clock.advance(6.0)
    agent.spool.tend()


# -- away ----------------------------------------------------------------------------------------


def test_a_store_that_is_away_at_the_start(file: Home) -> None:
    """Records stay in memory and go straight to the backend; what is left moves later."""
    agent = file.agent()
    agent.store.break_down()

    lost = agent.spool.append(records(5))
    first = claim(agent.spool, 2)
    settled = agent.spool.ack(first)

    assert (lost, settled, keys(first.bodies)) == (0, 2, [key(0), key(1)])
    assert (agent.spool.at_risk(), agent.spool.pending(), agent.spool.balance()) == (3, 3, 3)
    assert not agent.spool.durable
    come_back(file, agent)
    assert agent.spool.durable
    assert (agent.spool.at_risk(), agent.spool.pending(), agent.spool.balance()) == (0, 3, 3)
    assert agent.store.store.depth().records == 3


def test_a_store_that_goes_away_and_comes_back(home: Home) -> None:
    """Nothing of before, of meanwhile or of after is lost, and others get it in order."""
    agent, other = home.agent(), home.spool()
    agent.spool.append(records(3, created_at=NOW))
    agent.store.break_down()
    agent.spool.append(records(3, start=3, created_at=NOW))
    away = (agent.spool.durable, agent.spool.at_risk(), agent.spool.pending())

    agent.store.mend()
    home.clock.advance(6.0)
    agent.spool.append(records(3, start=6, created_at=NOW))

    assert away == (False, 3, 6)
    assert (agent.spool.durable, agent.spool.balance()) == (True, 9)
    assert drained(other) == [key(n) for n in range(9)]


def test_an_outage_is_told_once(file: Home, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins and one when it is over; `on_error` hears of each failure."""
    agent = file.agent()
    agent.store.break_down()

    with caplog.at_level(logging.INFO, "guardagent"):
        for n in range(50):
            agent.spool.append([record(n)])
            file.clock.advance(1.0)
        come_back(file, agent)

    lines = [line.getMessage() for line in caplog.records]
    assert ["away" in lines[0], "back" in lines[1], len(lines)] == [True, True, 2]
    assert 5 < len(agent.errors) < 20
    assert all(isinstance(error, SpoolError) for error in agent.errors)


def test_a_store_that_is_away_is_not_asked_at_every_turn(file: Home) -> None:
    """After the first failure it has half a second's peace, then more, and at most five."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(1))
    gaps, asked_at, asked = [], 0.0, agent.store.calls.total()

    while len(gaps) < 6:
        file.clock.advance(0.25)
        agent.spool.append([])
        agent.spool.claim(1, LARGE, NOW)
        agent.spool.tend()
        agent.spool.look()
        agent.spool.expire(0.0)
        if agent.store.calls.total() > asked:
            assert agent.store.calls.total() == asked + 1
            gaps.append(file.clock.monotonic() - asked_at)
            asked_at, asked = file.clock.monotonic(), agent.store.calls.total()

    assert gaps == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_tend_says_when_to_look_again(file: Home) -> None:
    """Whoever sleeps is woken when a store goes away, and tends it when it is time to."""
    agent = file.agent()
    idle = agent.spool.tend()
    agent.store.break_down()
    agent.spool.append(records(1))
    wait = agent.spool.tend()
    agent.store.mend()
    assert wait is not None
    file.clock.advance(wait)

    after = agent.spool.tend()

    assert (idle, wait, after, len(agent.wakes)) == (None, 0.5, None, 1)
    assert agent.spool.durable


def test_the_start_tells_whether_there_is_a_store(file: Home) -> None:
    """Before the first event: a spool that nobody can reach is not called durable."""
    agent = file.agent()
    agent.store.break_down()

    agent.spool.tend()

    assert not agent.spool.durable
    assert agent.spool.claim(1, LARGE, NOW) is None


def test_questions_to_a_store_that_is_away(file: Home) -> None:
    """They have an answer: nothing found, nothing kept, nothing expired."""
    agent, other = file.agent(), file.agent()
    agent.spool.append([record(0)])
    for one in (agent, other):
        one.store.break_down()
        one.spool.put("rules", b"{}")

    assert agent.spool.get("rules") is None
    assert agent.spool.expire(NOW) == 0
    assert not agent.spool.is_settled(agent.spool.ticket())
    assert other.spool.is_settled(other.spool.ticket()), "it has put nothing in"
    come_back(file, agent)
    assert agent.spool.get("rules") is None
    assert not agent.spool.is_settled(agent.spool.ticket())


def test_the_shelter_is_bounded(file: Home) -> None:
    """An outage longer than memory lasts costs the oldest, and they are counted."""
    agent = file.agent(shelter_records=4)
    agent.store.break_down()

    lost = agent.spool.append(records(6, created_at=NOW))
    come_back(file, agent)

    assert (lost, agent.spool.balance()) == (2, 4)
    assert drained(agent.spool) == [key(n) for n in range(2, 6)]


def test_room_is_that_of_memory_while_the_store_is_away(file: Home) -> None:
    """And the store's again when all is there."""
    agent = file.agent(shelter_records=4, max_records=50)
    agent.spool.append(records(3))
    rooms = [agent.spool.room()]

    agent.store.break_down()
    agent.spool.append(records(1))
    rooms.append(agent.spool.room())
    come_back(file, agent)
    rooms.append(agent.spool.room())

    assert rooms == [47, 3, 46]


def test_a_full_store_loses_what_moves_into_it(file: Home) -> None:
    """Its oldest give way, as they do in any append, and are told as lost."""
    agent = file.agent(max_records=4)
    agent.spool.append(records(3, created_at=NOW - 10))
    agent.store.break_down()
    agent.spool.append(records(3, start=3, created_at=NOW))

    come_back(file, agent)

    assert agent.lost == [("overflow", 2)]
    assert agent.spool.balance() == 4
    assert drained(agent.spool) == [key(n) for n in range(2, 6)]


def test_a_move_that_fails_half_way_loses_nothing(file: Home) -> None:
    """What could not be moved is back in memory."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(1_500))
    agent.store.mend()
    agent.store.fail("append", times=1)
    file.clock.advance(6.0)

    agent.spool.tend()
    half = (agent.spool.at_risk(), agent.spool.durable, agent.spool.balance())
    come_back(file, agent)

    assert half == (1_500, False, 1_500)
    assert (agent.spool.at_risk(), agent.lost) == (0, [])
    assert sorted(drained(agent.spool)) == [key(n) for n in range(1_500)]


def test_a_long_move_lets_others_have_their_turn(file: Home) -> None:
    """It goes on with the next turn; what comes meanwhile goes behind what is to be moved."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(3_000, created_at=NOW))
    ticket = agent.spool.ticket()
    agent.store.mend()
    file.clock.advance(6.0)
    seen = []

    def take_long() -> None:
        file.clock.advance(1.0)
        agent.store.after("append", take_long)

    take_long()
    for n in range(2):
        wait = agent.spool.tend()
        agent.spool.append(records(1, start=3_000 + n, created_at=NOW))
        seen.append((agent.spool.at_risk(), wait))
        assert not agent.spool.is_settled(ticket)

    assert seen == [(1_001, 0.05), (0, 0.05)]
    assert drained(file.spool()) == [key(n) for n in range(3_002)]


def test_close_moves_all_of_it(file: Home) -> None:
    """However long it takes, when the store takes it in."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(3_000))
    agent.store.mend()

    def take_long() -> None:
        file.clock.advance(1.0)
        agent.store.after("append", take_long)

    take_long()

    assert agent.spool.close() == 0
    assert len(drained(file.spool())) == 3_000


def test_what_is_being_sent_from_memory_moves_when_it_comes_back(file: Home) -> None:
    """A batch in a request stays; released, it goes where it is safe."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(4))
    sending, refused = claim(agent.spool, 2), claim(agent.spool, 2)
    come_back(file, agent)
    meanwhile = agent.spool.at_risk()

    agent.spool.release(refused)
    settled = agent.spool.ack(sending)

    assert (meanwhile, settled) == (4, 2)
    assert (agent.spool.at_risk(), agent.spool.balance(), agent.spool.durable) == (0, 2, True)
    assert drained(agent.spool) == [key(2), key(3)]


def test_close_saves_what_is_in_memory(file: Home) -> None:
    """If the store can be reached, though it was away a moment ago."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(3))
    agent.store.mend()

    lost = agent.spool.close()

    assert lost == 0
    assert drained(file.spool()) == [key(0), key(1), key(2)]


def test_close_counts_what_it_cannot_save(file: Home) -> None:
    """Memory goes with the process."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(3))

    assert agent.spool.close() == 3
    assert agent.spool.close() == 0


def _take_nothing_in(agent: Agent) -> None:
    """Answer and give out, as a Redis without memory or a file on a full disk does."""
    agent.store.fail("append", "put", times=1_000_000)


def test_a_store_that_takes_nothing_in_is_not_back(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it answers; not even when nothing is left that it would have to take."""
    agent = home.agent()
    _take_nothing_in(agent)
    states = []

    with caplog.at_level(logging.INFO, "guardagent"):
        for n in range(20):
            agent.spool.append([record(n)])
            drained(agent.spool)
            home.clock.advance(6.0)
            agent.spool.tend()
            states.append((agent.spool.durable, agent.spool.pending()))
        come_back(home, agent)

    assert states == [(False, 0)] * 20
    assert agent.spool.durable
    lines = [line.getMessage() for line in caplog.records]
    assert ["away" in lines[0], "back" in lines[1], len(lines)] == [True, True, 2]


def test_a_store_that_takes_nothing_in_is_emptied(home: Home) -> None:
    """What it holds is delivered and settled, or its memory would never be free again."""
    agent, other = home.agent(), home.spool()
    agent.spool.append(records(4))
    batch = claim(agent.spool, 2)
    _take_nothing_in(agent)
    agent.spool.append(records(1, start=4))
    home.clock.advance(LEASE / 3)
    home.age(LEASE / 3)
    agent.spool.tend()

    settled = agent.spool.ack(batch)
    found = drained(agent.spool)

    assert (settled, found) == (2, [key(4), key(2), key(3)])
    assert (agent.spool.durable, agent.spool.balance(), drained(other)) == (False, 0, [])
    assert agent.store.store.depth().records == 0


def test_a_store_that_comes_and_goes_is_told_now_and_then(
    file: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """A line when it goes and one when it comes, each twice a minute at most, with the number."""
    agent = file.agent()

    with caplog.at_level(logging.INFO, "guardagent"):
        for _ in range(100):
            if agent.spool.durable:
                agent.store.fail("append")
            agent.spool.append([record(0)])
            file.clock.advance(1.0)
            agent.spool.tend()

    lines = [line.getMessage() for line in caplog.records]
    assert ["away" in line for line in lines] == [True, False] * (len(lines) // 2)
    assert 6 <= len(lines) <= 8
    assert "times since this was last said" in lines[2]


def test_an_outage_that_was_not_told_at_once_is_told_later(
    file: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """The last line is true, however soon the store went away again."""
    agent = file.agent()

    with caplog.at_level(logging.INFO, "guardagent"):
        for _ in range(2):
            agent.store.break_down()
            agent.spool.append([record(0)])
            come_back(file, agent)
        agent.store.break_down()
        agent.spool.append([record(0)])
        for _ in range(6):
            file.clock.advance(6.0)
            agent.spool.tend()

    assert "away" in caplog.records[-1].getMessage()
    assert not agent.spool.durable


def test_a_store_that_soon_goes_away_again_is_asked_less_often(file: Home) -> None:
    """Only after it has held for a while a failure counts as the first one."""
    agent, waits = file.agent(), []

    for held in (1.0, 1.0, 1.0, 20.0):
        agent.store.break_down()
        agent.spool.append([record(0)])
        waits.append(agent.spool.tend())
        come_back(file, agent)
        file.clock.advance(held)
    agent.store.break_down()
    agent.spool.append([record(0)])
    waits.append(agent.spool.tend())

    assert waits == [0.5, 1.0, 2.0, 4.0, 0.5]


_CALLS = ["append", "claim", "settle", "expire", "depth", "holds", "get", "renew", "give_back"]


@pytest.mark.parametrize("name", _CALLS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_any_exception_of_a_store_is_an_outage(file: Home, name: str, after: bool) -> None:
    """A fault of its own, or a limit nobody thought of: told, done without, and nothing lost."""
    agent = file.agent()
    agent.store.error = UnicodeError
    agent.spool.append(records(2))
    ticket, batch = agent.spool.ticket(), claim(agent.spool, 1)
    agent.store.fail(name, after=after, times=2)

    file.clock.advance(LEASE / 2)
    agent.spool.append([record(2)])
    agent.spool.look()
    agent.spool.tend()
    agent.spool.get("rules")
    agent.spool.is_settled(ticket)
    agent.spool.expire(0.0)
    agent.spool.ack(batch)
    rest = drained(agent.spool)
    agent.spool.hand_back()
    come_back(file, agent)
    file.pass_time(LEASE + 1)  # a claim without an answer is a lease that nobody knows of
    rest += drained(file.spool())

    assert {type(error) for error in agent.errors} <= {UnicodeError}
    assert set(rest) == {key(1), key(2)}
    assert agent.spool.durable
    assert agent.spool.close() == 0


def test_close_survives_a_store_that_cannot_close(file: Home) -> None:
    """Stopping an agent never raises."""
    agent = file.agent()
    agent.spool.append(records(2))

    def close() -> None:
        raise UnicodeError

    agent.store.close = close

    assert agent.spool.close() == 0
    assert [type(error) for error in agent.errors] == [UnicodeError]


# -- settlements ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settle", ["ack", "bury"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_settlement_that_fails_is_made_good(home: Home, settle: str, after: bool) -> None:
    """It counts at once, once, and the store is told when it is back, effect or no effect."""
    agent = home.agent()
    agent.spool.append(records(4))
    batch = claim(agent.spool, 3)
    agent.store.fail("settle", "bury", after=after)

    arguments = (batch, "rejected") if settle == "bury" else (batch,)
    settled = getattr(agent.spool, settle)(*arguments)
    come_back(home, agent)

    assert (settled, agent.spool.balance(), agent.spool.pending()) == (3, 1, 1)
    assert agent.store.store.depth().records == 1
    assert agent.store.store.count_dead() == (3 if settle == "bury" else 0)
    assert drained(agent.spool) == [key(3)]


def test_settlements_during_an_outage_are_made_good(home: Home) -> None:
    """All of them, and nobody is sent those records again."""
    agent, other = home.agent(), home.spool()
    agent.spool.append(records(6))
    batches = [claim(agent.spool, 2) for _ in range(3)]
    agent.store.break_down()
    agent.spool.append(records(1, start=6))

    settled = [agent.spool.ack(batches[0]), agent.spool.bury(batches[1], "rejected")]
    agent.spool.release(batches[2])
    come_back(home, agent)

    assert settled == [2, 2]
    assert agent.spool.balance() == 3
    home.pass_time(LEASE + 1)
    assert sorted(drained(other)) == [key(4), key(5), key(6)]


def test_a_settlement_in_the_last_moment_of_an_outage(file: Home) -> None:
    """Made by another thread just when the store is back: it is not forgotten."""
    agent = file.agent()
    agent.spool.append(records(2))
    batch = claim(agent.spool)
    agent.store.break_down()
    agent.spool.append(records(1, start=2))
    agent.store.mend()
    agent.store.after("depth", lambda: agent.spool.ack(batch))
    file.clock.advance(6.0)

    agent.spool.tend()
    file.clock.advance(6.0)
    agent.spool.tend()

    assert agent.store.store.depth().records == 1


def test_close_makes_settlements_good(file: Home) -> None:
    """They are not left for a process that sends the records again."""
    agent = file.agent()
    agent.spool.append(records(3))
    batch = claim(agent.spool, 2)
    agent.store.fail("settle")
    agent.spool.ack(batch)

    agent.spool.close()

    assert drained(file.spool()) == [key(2)]


# -- operations that took effect all the same ----------------------------------------------------


def test_an_append_whose_answer_was_lost_repeats_its_records(home: Home) -> None:
    """Rather twice than never; the books balance."""
    agent = home.agent()
    agent.store.fail("append", after=True)

    agent.spool.append(records(2))
    come_back(home, agent)
    settled = drained(agent.spool)

    assert sorted(settled) == [key(0), key(0), key(1), key(1)]
    assert 2 == len(settled) + agent.spool.balance()


def test_a_claim_whose_answer_was_lost_comes_back(home: Home) -> None:
    """To the very process that does not know of it, if that is the only one."""
    agent = home.agent()
    agent.spool.append(records(4))
    agent.store.fail("claim", after=True)
    assert agent.spool.claim(2, LARGE, NOW) is None
    come_back(home, agent)
    held = claim(agent.spool, 2)

    found: list[str] = []
    for _ in range(10):
        home.pass_time(LEASE / 4)
        agent.spool.tend()
        found += drained(agent.spool)

    assert agent.spool.ack(held) == 2
    assert sorted(found + keys(held.bodies)) == [key(n) for n in range(4)]


# -- tickets -------------------------------------------------------------------------------------


def test_a_ticket_of_an_outage_waits_for_what_moved(home: Home) -> None:
    """What was in memory when it was made is waited for in the store."""
    agent = home.agent()
    agent.store.break_down()
    agent.spool.append(records(2))
    ticket = agent.spool.ticket()
    states = [agent.spool.is_settled(ticket)]

    come_back(home, agent)
    agent.spool.append(records(1, start=2))
    states.append(agent.spool.is_settled(ticket))
    agent.spool.ack(claim(agent.spool, 2))
    states.append(agent.spool.is_settled(ticket))

    assert states == [False, False, True]


def test_a_ticket_from_before_an_outage(home: Home) -> None:
    """It waits for the store's answer, and not for what came later."""
    agent = home.agent()
    agent.spool.append(records(2))
    ticket = agent.spool.ticket()
    agent.store.break_down()
    agent.spool.append(records(2, start=2))
    states = [agent.spool.is_settled(ticket)]

    come_back(home, agent)
    states.append(agent.spool.is_settled(ticket))
    agent.spool.ack(claim(agent.spool))
    states.append(agent.spool.is_settled(ticket))

    assert states == [False, False, True]


def test_a_ticket_is_not_settled_in_the_middle_of_a_move(file: Home) -> None:
    """Between memory and store a record is in neither; nothing says that it is gone."""
    agent = file.agent()
    agent.store.break_down()
    agent.spool.append(records(2))
    batch, ticket = claim(agent.spool), agent.spool.ticket()
    come_back(file, agent)
    seen: list[Any] = []
    agent.store.after(
        "append",
        lambda: seen.append(
            (agent.spool.is_settled(ticket), agent.spool.at_risk(), agent.spool.durable)
        ),
    )

    agent.spool.release(batch)

    assert seen == [(False, 2, False)]
    assert not agent.spool.is_settled(ticket)
    assert drained(agent.spool) == [key(0), key(1)]
    assert agent.spool.is_settled(ticket)


def test_whoever_hands_over_does_not_wait_for_others(home: Home) -> None:
    """With `deliver=False` what is in the store is settled; what is in memory is not."""
    agent = home.agent(hands_over=True)
    agent.spool.append(records(2))
    states = [agent.spool.is_settled(agent.spool.ticket())]

    agent.store.break_down()
    agent.spool.append(records(1, start=2))
    ticket = agent.spool.ticket()
    states.append(agent.spool.is_settled(ticket))
    come_back(home, agent)
    states.append(agent.spool.is_settled(ticket))

    assert states == [True, False, True]


# -- leases --------------------------------------------------------------------------------------


def test_leases_are_renewed_in_time(file: Home) -> None:
    """Every third of a lease while something is held; nobody is woken for it otherwise."""
    agent = file.agent(lease=9.0)
    agent.spool.append(records(2))
    batch = claim(agent.spool)
    waits = [agent.spool.tend()]

    for _ in range(3):
        file.clock.advance(3.0)
        waits.append(agent.spool.tend())
    agent.spool.ack(batch)
    file.clock.advance(3.0)
    waits.append(agent.spool.tend())

    assert waits == [3.0, 3.0, 3.0, 3.0, None]
    assert (agent.store.calls["renew"], len(agent.wakes)) == (3, 1)


def test_a_renewal_that_fails_is_an_outage(file: Home) -> None:
    """The batch is kept, and its lease begins anew when the store is back."""
    agent, other = file.agent(), file.spool()
    agent.spool.append(records(2))
    batch = claim(agent.spool)
    agent.store.fail("renew")
    file.clock.advance(LEASE / 3)
    agent.spool.tend()
    away = agent.spool.durable

    for _ in range(5):
        file.clock.advance(LEASE / 3)
        agent.spool.tend()

    assert not away
    assert other.claim(10, LARGE, NOW) is None
    assert agent.spool.ack(batch) == 2


def test_nothing_is_handed_back_to_a_store_that_is_away(file: Home) -> None:
    """The lease runs out by itself."""
    agent, other = file.agent(), file.spool()
    agent.spool.append(records(2))
    claim(agent.spool)
    agent.store.fail("give_back")

    agent.spool.hand_back()
    early = other.claim(10, LARGE, NOW)
    file.pass_time(LEASE + 1)

    assert early is None
    assert drained(other) == [key(0), key(1)]


def test_what_others_do_is_looked_at_now_and_then(file: Home) -> None:
    """At intervals, not at each turn."""
    agent, other = file.agent(poll_interval=2.0), file.spool()
    agent.spool.look()
    asked, seen = agent.store.calls["depth"], []

    for _ in range(4):
        other.append(records(1))
        file.clock.advance(1.0)
        agent.spool.look()
        seen.append(agent.spool.pending())

    assert seen == [0, 2, 2, 4]
    assert agent.store.calls["depth"] == asked + 2


# -- records that cannot be read -----------------------------------------------------------------


def _damaged() -> list[bytes]:
    sound = pack(record(7, created_at=NOW))
    return [
        b"",
        sound[: HEADER_BYTES - 2],
        sound[:HEADER_BYTES],
        sound[:-1] + b"!",
        b"\x7f" + sound[1:],
        b"not of ours at all",
    ]


def test_damaged_records_are_put_away(home: Home) -> None:
    """Counted, told, kept as they are among the dead letters; the rest is delivered."""
    agent, frames = home.agent(), _damaged()
    agent.spool.append([record(0, created_at=NOW)])
    agent.store.store.append({"events": frames})
    agent.spool.append([record(1, created_at=NOW)])

    found = drained(agent.spool)

    assert found == [key(0), key(1)]
    assert sum(n for reason, n in agent.lost if reason == "corrupt") == len(frames)
    assert {reason for reason, _ in agent.lost} == {"corrupt"}
    assert any(isinstance(error, FrameError) for error in agent.errors)
    dead = agent.store.store.dead(100)
    assert sorted(one.frame for one in dead) == sorted(frames)
    assert {(one.kind, one.reason) for one in dead} == {("events", "corrupt")}
    assert agent.store.store.depth().records == 0


def test_a_spool_of_damaged_records_only(home: Home) -> None:
    """Claim after claim of them ends with nothing, not with an error."""
    agent = home.agent()
    agent.store.store.append({"events": _damaged() * 3, "metrics": _damaged()})

    assert agent.spool.claim(2, 50, NOW) is None
    assert agent.store.store.count_dead() == 4 * len(_damaged())


def test_a_batch_without_its_damaged_records_is_another(file: Home) -> None:
    """Taken over with one of them damaged meanwhile, it does not go under its old name."""
    dead, other = file.agent(), file.agent()
    dead.spool.append(records(3))
    batch = claim(dead.spool)
    dead.crash()
    other.store.store._file.transaction(
        lambda db: db.execute(
            "UPDATE events SET frame = x'00' WHERE id = (SELECT min(id) FROM events)"
        )
    )

    file.pass_time(LEASE + 1)
    taken = claim(other.spool)

    assert keys(taken.bodies) == [key(1), key(2)]
    assert taken.batch_id != batch.batch_id


# -- a store that has lost everything ------------------------------------------------------------


def _begin_anew(home: Home) -> None:
    """Delete the file, as somebody does who wants an empty spool."""
    path = home.store()._file.path  # type: ignore[attr-defined]
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def test_records_of_a_lost_store_are_counted(file: Home) -> None:
    """As soon as a new one is seen; what this process holds is not lost."""
    agent = file.agent()
    agent.spool.append(records(5))
    batch = claim(agent.spool, 2)

    _begin_anew(file)
    agent.spool.append(records(1, start=5))

    assert agent.lost == [("spool_lost", 3)]
    assert (agent.spool.balance(), agent.spool.pending()) == (3, 1)
    assert agent.spool.ack(batch) == 2
    assert drained(agent.spool) == [key(5)]
    assert agent.spool.balance() == 0


def test_a_flush_waits_for_what_is_held_of_a_lost_store(file: Home) -> None:
    """It is going to be delivered; what was lost is not waited for."""
    agent = file.agent()
    agent.spool.append(records(5))
    ticket = agent.spool.ticket()
    batch = claim(agent.spool, 2)
    _begin_anew(file)
    file.clock.advance(3.0)
    agent.spool.look()
    states = [agent.spool.is_settled(ticket)]

    agent.spool.ack(batch)
    states.append(agent.spool.is_settled(ticket))

    assert states == [False, True]


@pytest.mark.parametrize("is_away", [False, True], ids=["at once", "owed"])
def test_a_settlement_does_not_reach_a_later_store(file: Home, is_away: bool) -> None:
    """What others have put into the new file is not taken for the old one's."""
    agent, other = file.agent(), file.agent()
    agent.spool.append(records(5))
    batch = claim(agent.spool)
    if is_away:
        agent.store.fail("settle")
        agent.spool.ack(batch)
    _begin_anew(file)
    other.spool.append(records(5, start=10))

    agent.spool.ack(batch)
    come_back(file, agent)

    assert other.store.store.depth().records == 5
    assert drained(other.spool) == [key(10 + n) for n in range(5)]


def test_what_others_have_delivered_is_not_lost(file: Home) -> None:
    """Only what was there when the store was last seen can be."""
    agent, other = file.agent(), file.agent()
    agent.spool.append(records(100))
    drained(other.spool)
    agent.spool.append(records(2, start=100))

    _begin_anew(file)
    file.clock.advance(3.0)
    agent.spool.look()

    assert agent.lost == [("spool_lost", 2)]


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_two_threads_through_many_outages(home: Home, after: bool) -> None:
    """One appends, one settles, the store fails all the time: each record arrives, all balance."""
    agent, total = home.agent(), 1_000
    found: list[str] = []

    def work(number: int) -> None:
        if number == 0:
            for n in range(0, total, 20):
                if n % 100 == 0:
                    agent.store.fail("append", "settle", "depth", after=after)
                agent.spool.append(records(20, start=n, created_at=NOW))
                home.clock.advance(0.1)
            return
        while len(set(found)) < total:
            batch = agent.spool.claim(30, LARGE, NOW)
            if batch is None:
                home.clock.advance(0.01)
                agent.spool.tend()
            elif len(batch) % 7 == 0:
                agent.spool.release(batch)
                agent.spool.claim(30, LARGE, NOW)
                agent.spool.ack(batch)
                found.extend(keys(batch.bodies))
            else:
                found.extend(keys(batch.bodies))
                agent.spool.ack(batch)

    in_threads(2, work)
    home.clock.advance(10.0)
    agent.spool.tend()

    assert set(found) == {key(n) for n in range(total)}
    if not after:
        assert len(found) == total
        assert agent.spool.balance() == 0
    assert agent.lost == []


def test_a_large_record_goes_alone(home: Home) -> None:
    """Larger than a batch may be: it is handed out all the same."""
    spool = home.spool()
    spool.append([Record("events", b"x" * n, NOW) for n in (10, 5_000, 10)])

    sizes = []
    while (batch := spool.claim(10, 100, NOW)) is not None:
        sizes.append([len(body) for body in batch.bodies])
        spool.ack(batch)

    assert sizes == [[10], [5_000], [10]]
