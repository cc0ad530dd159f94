"""What is the memory spool's own: its bounds, and who gives way."""

from __future__ import annotations

import pytest

from guardagent.spool import MemorySpool
from guardagent.spool.protocol import Batch
from tests.scripted import key, keys, record, records

LARGE = 1 << 30


def everything(spool: MemorySpool) -> list[str]:
    found: list[str] = []
    while (batch := spool.claim(1_000, LARGE, 0.0)) is not None:
        found += keys(batch.bodies)
        spool.ack(batch)
    return found


def claimed(spool: MemorySpool, limit: int) -> Batch:
    batch = spool.claim(limit, LARGE, 0.0)

    assert batch is not None
    return batch


def test_memory_is_not_durable() -> None:
    """It says so itself."""
    assert MemorySpool(1, LARGE).durable is False


def test_the_oldest_gives_way() -> None:
    """Beyond the bound each new record costs the oldest one, which is counted."""
    spool = MemorySpool(3, LARGE)

    lost = [spool.append(records(3)), spool.append(records(2, start=3))]

    assert lost == [0, 2]
    assert everything(spool) == [key(2), key(3), key(4)]


def test_the_oldest_of_both_kinds_gives_way() -> None:
    """Whichever kind has the record that was made first."""
    spool = MemorySpool(2, LARGE)
    spool.append([record(0, "metrics", created_at=1.0), record(1, "events", created_at=2.0)])

    spool.append([record(2, "events", created_at=3.0)])

    assert everything(spool) == [key(1), key(2)]


def test_the_newcomer_gives_way() -> None:
    """Under "drop_newest" what is inside stays."""
    spool = MemorySpool(3, LARGE, when_full="drop_newest")

    lost = spool.append(records(5))

    assert lost == 2
    assert everything(spool) == [key(0), key(1), key(2)]


def test_nobody_gives_way() -> None:
    """Under "grow" the bound binds whoever asks for `room`, and nothing is ever lost."""
    spool = MemorySpool(3, LARGE, when_full="grow")

    lost = spool.append(records(5))

    assert (lost, spool.pending(), spool.room()) == (0, 5, 0)


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
def test_bytes_are_bounded_too(when_full: str) -> None:
    """The sum of the bodies never exceeds the bound."""
    spool = MemorySpool(1_000, 250, when_full=when_full)  # type: ignore[arg-type]

    lost = spool.append(records(10, size=100))

    assert (lost, spool.pending(), spool.nbytes()) == (8, 2, 200)


def test_a_large_record_costs_as_many_as_it_takes() -> None:
    """Room for one may cost several small ones."""
    spool = MemorySpool(1_000, 300)
    spool.append(records(6, size=50))

    lost = spool.append([record(6, size=120)])

    assert lost == 3
    assert everything(spool) == [key(n) for n in (3, 4, 5, 6)]


def test_a_record_that_can_never_fit_is_lost_itself() -> None:
    """One larger than the whole spool is given up, and counted."""
    spool = MemorySpool(10, 100)

    assert spool.append([record(0, size=101)]) == 1
    assert (spool.pending(), spool.nbytes()) == (0, 0)


def test_a_record_that_can_never_fit_costs_no_other() -> None:
    """What is inside is not thrown out for it."""
    spool = MemorySpool(10, 100)
    spool.append([record(0, size=40)])

    lost = spool.append([record(1, size=101)])

    assert lost == 1
    assert everything(spool) == [key(0)]


def test_what_is_being_sent_does_not_give_way() -> None:
    """When all there is is being sent, the newcomer is lost."""
    spool = MemorySpool(2, LARGE)
    spool.append(records(2))
    batch = claimed(spool, 2)

    lost = spool.append([record(2)])
    spool.release(batch)

    assert lost == 1
    assert everything(spool) == [key(0), key(1)]


def test_what_was_sent_in_vain_gives_way() -> None:
    """In an outage a batch that came back holds the oldest records: the newest are kept."""
    spool = MemorySpool(4, LARGE)
    spool.append(records(4))
    spool.release(claimed(spool, 4))

    lost = spool.append(records(2, start=4))

    assert lost >= 2
    assert {key(4), key(5)} <= set(everything(spool))


def test_room_is_what_is_left() -> None:
    """It counts down to 0, claimed records included."""
    spool = MemorySpool(3, 130)
    rooms = [spool.room()]

    for n in range(3):
        spool.append([record(n)])
        rooms.append(spool.room())
    claimed(spool, 2)
    rooms.append(spool.room())

    assert rooms == [3, 2, 1, 0, 0]


def test_there_is_no_room_without_bytes() -> None:
    """A spool full of bytes has none, however few records they are."""
    spool = MemorySpool(1_000, 100, when_full="grow")

    spool.append([record(0, size=100)])

    assert spool.room() == 0


def test_an_evicted_record_is_settled() -> None:
    """A flush does not wait for what was lost."""
    spool = MemorySpool(2, LARGE)
    spool.append(records(2))
    ticket = spool.ticket()

    spool.append(records(2, start=2))

    assert spool.is_settled(ticket)


def test_ages_do_not_grow() -> None:
    """Notes on the age of records go with them, however long the spool lives."""
    spool = MemorySpool(100, LARGE)

    for n in range(500):
        spool.append(records(2, created_at=float(n)))
        spool.ack(claimed(spool, 10))

    assert len(spool._lanes["events"].ages) <= 2
