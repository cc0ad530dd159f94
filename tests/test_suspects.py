"""A batch that the backend cannot digest does not hold up the others; an outage buries nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from guardagent.errors import RejectedError, TransientError
from guardagent.spool.memory import MemorySpool
from guardagent.spool.protocol import Batch
from guardagent.suspects import Suspects
from guardagent.transport.protocol import Receipt
from tests.room import Room
from tests.scripted import OUTAGE, key, keys, records

BROKEN = TransientError("HTTP 500", status=500)
AWAY = TransientError("ConnectionRefusedError")


def choking_on(*poison: str) -> Callable[[Batch], Receipt]:
    """Answer 500 whenever one of these records is in the request, and accept all others."""

    def answer(batch: Batch) -> Receipt:
        if not set(poison).isdisjoint(keys(batch.bodies)):
            raise BROKEN
        return Receipt()

    return answer


def moments(room: Room, seconds: float) -> list[float]:
    """Let it live so long, and return when a request was made."""
    made: list[float] = []
    answer = room.transport.default

    def noted(batch: Batch) -> Receipt:
        made.append(room.clock.monotonic())
        if isinstance(answer, BaseException):
            raise answer
        return Receipt()

    room.transport.default = noted
    room.live(seconds)
    return made


@pytest.mark.parametrize("number", [0, 10, 49, 533])
def test_one_poisonous_record_is_all_that_is_lost(number: int) -> None:
    """It is found by halves, and buried when it was refused time and again while others passed."""
    room = Room(max_batch_size=50)
    room.transport.default = choking_on(key(number))

    given = room.append(1_000)
    room.live(120.0)

    assert sorted(room.transport.accepted) == [one for one in given if one != key(number)]
    assert room.dropped == {"rejected": 1}
    assert len(room.transport.sent) < 20 + 30
    (error,) = [error for _, error, _ in room.errors if isinstance(error, RejectedError)]
    assert "while others are accepted" in str(error)
    room.assert_balanced()


def test_a_poisonous_record_in_each_batch() -> None:
    """Where no batch passes as it is, halves of halves do."""
    room = Room(max_batch_size=50)
    poison = [key(number) for number in range(7, 1_000, 50)]
    room.transport.default = choking_on(*poison)

    given = room.append(1_000)
    room.live(3_600.0)
    room.append(1)
    room.live(60.0)

    assert set(given).difference(room.transport.accepted) == set(poison)
    assert room.dropped == {"rejected": len(poison)}
    room.assert_balanced()


@pytest.mark.parametrize("count", [300, 500])
def test_a_flood_of_poison(count: int) -> None:
    """Batches of nothing else are gone past; it goes away as fast as others are accepted."""
    room = Room(max_batch_size=50)
    poison = {key(number) for number in range(count)}
    room.transport.default = choking_on(*poison)

    given = room.append(1_000)
    room.live(7_200.0)
    first = len(room.transport.accepted)
    for _ in range(100):
        given += room.append(1)
        room.live(300.0)

    assert first == 1_000 - count
    assert set(room.transport.accepted) == set(given) - poison
    assert 10 < room.dropped["rejected"] <= count
    room.assert_balanced()


def test_a_batch_that_is_alone() -> None:
    """With nothing else to try its own halves tell; the last record waits for another's success."""
    room = Room(max_batch_size=50)
    room.transport.default = choking_on(key(3))

    given = room.append(10)
    room.live(120.0)
    first, waiting = set(room.transport.accepted), room.spool.pending()
    for _ in range(3):
        room.append(1)
        room.live(60.0)

    assert first == set(given) - {key(3)}
    assert waiting in (0, 1)
    assert room.dropped == {"rejected": 1}
    room.assert_balanced()


@pytest.mark.parametrize("count", [1, 30, 1_000])
def test_an_outage_buries_nothing(count: int) -> None:
    """While everything is refused nobody is guilty, nor is anyone when it is over."""
    room = Room(max_batch_size=50)
    room.transport.default = BROKEN

    given = room.append(count)
    room.live(86_400.0)
    during = room.dropped
    room.transport.default = Receipt()
    requests = len(room.transport.sent)
    room.live(120.0)

    assert (during, room.dropped) == ({}, {})
    assert sorted(room.transport.accepted) == given
    assert len(room.transport.sent) - requests < count // 50 + 60
    room.assert_balanced()


def test_a_short_outage_leaves_the_batch_alone() -> None:
    """Two answers are no reason to cut it up or to try another."""
    room = Room(BROKEN, OUTAGE, max_batch_size=50, retry_attempts=0)

    given = room.append(100)
    room.live(60.0)

    assert room.sizes == [50, 50, 50, 50]
    assert len({sent.batch_id for sent in room.transport.sent[:3]}) == 1
    assert room.transport.accepted == given


def test_a_backend_that_sheds_load_condemns_nothing() -> None:
    """503, or a time to come back, says something of the backend and nothing of the event."""
    room = Room(max_batch_size=1)
    busy = [
        TransientError("HTTP 503", status=503),
        TransientError("HTTP 500", status=500, retry_after=0.1),
    ]
    turns = 0

    def shed(batch: Batch) -> Receipt:
        nonlocal turns
        turns += 1
        if turns % 5:
            raise busy[turns % 2]
        return Receipt()

    room.transport.default = shed
    given = room.append(50)
    room.live(7_200.0)

    assert sorted(room.transport.accepted) == given
    assert room.dropped == {}


def test_a_suspect_gets_one_attempt_at_a_time() -> None:
    """Each that fails holds up the others for a back-off, and more of them tell nothing."""
    room = Room(max_batch_size=50, retry_attempts=3)
    room.transport.default = choking_on(key(3))

    room.append(100)
    room.live(120.0)

    first, *others = [sent for sent in room.transport.sent if key(3) in keys(sent.bodies)]
    assert first.deadline is None
    assert [sent for sent in others if sent.deadline is None] == []
    assert room.dropped == {"rejected": 1}


def test_what_is_good_beside_a_lone_suspect_waits_for_nobody() -> None:
    """Once another has passed, a larger one is cut up though the smallest is a single record."""
    spool = MemorySpool(1_000, 1 << 20)
    suspects = Suspects(spool)
    for size in (1, 50):
        spool.append(records(size))
        batch = spool.claim(size, 1 << 20, 0.0)
        assert batch is not None
        suspects.take(batch, answers=3)
    spool.append(records(1))

    suspects.convict()  # the one of 50: it gets another turn, and is refused again
    again = spool.claim(500, 1 << 20, 0.0)
    assert again is not None
    suspects.take(again)
    suspects.retry()
    half = spool.claim(500, 1 << 20, 0.0)

    assert (len(again), half is not None and len(half)) == (50, 25)


def test_outages_one_after_the_other_bury_nothing() -> None:
    """A record that is first in each of two outages is not the cause of either."""
    room = Room(*[BROKEN] * 5, Receipt(), *[BROKEN] * 5, max_batch_size=1)

    given = room.append(10)
    room.live(300.0)

    assert sorted(room.transport.accepted) == given
    assert room.dropped == {}
    room.assert_balanced()


def test_an_outage_is_asked_as_seldom_as_ever() -> None:
    """However many batches are tried in turn, the breaker says when."""
    broken, away = Room(max_batch_size=50), Room(max_batch_size=50)
    broken.transport.default, away.transport.default = BROKEN, AWAY
    for room in (broken, away):
        room.append(1_000)

    assert moments(broken, 3_600.0) == moments(away, 3_600.0)


def test_a_lost_connection_makes_no_suspect() -> None:
    """Without an answer the batch stays first and whole, as long as it takes."""
    room = Room(*[AWAY] * 50, max_batch_size=50)

    given = room.append(200)
    room.live(3_600.0)

    assert set(room.sizes) == {50}
    assert room.transport.accepted == given


def test_what_was_put_aside_has_its_last_attempt() -> None:
    """The last round tries every batch, whatever it is suspected of."""
    room = Room(*[BROKEN] * 4, max_batch_size=50)
    given = room.append(200)
    room.live(4.0)
    sent = len(room.transport.sent)

    room.delivery.hurry(room.clock.monotonic() + 10.0, room.mark())
    room.run()

    assert sent >= 3
    assert sorted(room.transport.accepted) == given
    room.assert_balanced()


def test_what_was_put_aside_expires() -> None:
    """It grows too old like everything else."""
    room = Room(max_batch_size=50, max_event_age=600.0)
    room.transport.default = BROKEN

    room.append(400)
    room.live(3_600.0)

    assert room.dropped == {"expired": 400}
    room.assert_balanced()
