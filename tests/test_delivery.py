"""When something is sent and what becomes of it, turn by turn, on a clock that is moved by hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardagent._quiet import MUTED
from guardagent.errors import (
    RejectedError,
    SetupError,
    TooLargeError,
    TransientError,
)
from guardagent.intake import Marker
from guardagent.spool import MemorySpool
from guardagent.spool.protocol import Batch
from guardagent.transport.answers import Answer, judge
from guardagent.transport.protocol import Receipt
from tests.room import Room
from tests.scripted import key, records
from tests.spool.homes import LEASE, home_of
from tests.support.redis_server import RedisServer

OUTAGE = TransientError("HTTP 503", status=503)
PATIENCE_ASKED = TransientError("HTTP 429", status=429, outage=False, retry_after=7.0)
REFUSED = RejectedError("HTTP 400: secret-in-body", status=400)
UNSUCCESSFUL = RejectedError("HTTP 200, but not successful", status=200, final=False)
TOO_LARGE = TooLargeError("HTTP 413: too large", status=413)
WRONG_KEY = SetupError("HTTP 401: the key is refused", status=401)


# -- when something is due -----------------------------------------------------------------------


def test_nothing_pending_waits_for_the_bell() -> None:
    """An idle agent does not wake up."""
    room = Room()

    assert room.run() is None
    assert room.transport.sent == []


def test_a_full_buffer_is_sent_at_once() -> None:
    """`buffer_size` pending records are due without waiting."""
    room = Room(buffer_size=3)

    room.append(3)
    wait = room.run()

    assert wait is None
    assert room.transport.accepted == [key(0), key(1), key(2)]
    room.assert_balanced()


def test_fewer_wait_for_the_interval() -> None:
    """They go out when the first of them has waited for `flush_interval`, together."""
    room = Room(buffer_size=3, flush_interval=30.0)

    room.append(1)
    first_wait = room.run()
    room.clock.advance(20.0)
    room.append(1)
    second_wait = room.run()
    before = list(room.transport.sent)
    room.clock.advance(10.0)
    room.run()

    assert (first_wait, second_wait, before) == (30.0, 10.0, [])
    assert room.sizes == [2]


def test_interval_begins_anew_after_a_flush() -> None:
    """What comes after everything was sent waits its own interval."""
    room = Room(buffer_size=9, flush_interval=30.0)
    room.append(1)
    room.run()
    room.clock.advance(30.0)
    room.run()

    room.clock.advance(100.0)
    room.append(1)

    assert room.run() == 30.0
    assert room.sizes == [1]


def test_events_and_metrics_are_sent_apart() -> None:
    """Both kinds go out in the same flush, each in requests of its own."""
    room = Room(buffer_size=4)

    room.append(2, "events")
    room.append(2, "metrics")
    room.run()

    assert [(sent.kind, len(sent.bodies)) for sent in room.transport.sent] == [
        ("events", 2),
        ("metrics", 2),
    ]


def test_batches_are_cut_by_count() -> None:
    """No request has more than `max_batch_size` records."""
    room = Room(max_batch_size=4)

    room.append(10)
    room.run()

    assert room.sizes == [4, 4, 2]
    room.assert_balanced()


def test_batches_are_cut_by_bytes() -> None:
    """The bodies of one request, with a comma each, keep to the bound."""
    room = Room(max_bytes=250)

    room.append(7, size=100)
    room.run()

    assert room.sizes == [2, 2, 2, 1]


def test_what_comes_during_a_flush_waits_its_turn() -> None:
    """A flush sends what was pending when it began; a few that came later wait for theirs."""
    room = Room(buffer_size=2, max_batch_size=1)
    room.append(2)

    room.delivery.turn()
    room.append(1)
    wait = room.run()

    assert room.transport.accepted == [key(0), key(1)]
    assert wait == 30.0


def test_while_more_streams_in_a_full_batch_is_awaited() -> None:
    """Between `buffer_size` and `max_batch_size` it waits as long as the queue is not empty."""
    room = Room(buffer_size=2, max_batch_size=5)
    room.is_filling = True

    room.append(4)
    early = room.run()
    room.append(1)
    room.run()

    assert early == 30.0
    assert room.sizes == [5]


def test_a_full_spool_is_due() -> None:
    """When the spool holds less than `buffer_size`, it is sent when it is full, not lost."""
    room = Room(buffer_size=100, spool=MemorySpool(10, 1 << 30, when_full="grow"))

    room.append(10)
    rang = room.rang
    room.run()

    assert rang
    assert room.sizes == [10]


def test_in_flight_is_what_is_being_sent() -> None:
    """It is 0 again when the answer is there, whatever it was."""
    room = Room()
    seen = []

    def answer(batch: Batch) -> Receipt:
        seen.append(room.delivery.in_flight)
        raise ValueError

    room.transport.script(answer)
    room.append(3)
    room.run()

    assert (seen, room.delivery.in_flight) == ([3], 0)


def test_send_is_not_heard() -> None:
    """Captures that the transport makes are refused."""
    room = Room()
    muted = []
    room.transport.script(
        lambda batch: (muted.append(threading.get_ident() in MUTED), Receipt())[1]
    )

    room.append(1)
    room.run()

    assert muted == [True]
    assert threading.get_ident() not in MUTED


# -- waking --------------------------------------------------------------------------------------


def test_first_record_wakes_the_thread() -> None:
    """It has to begin to count the interval."""
    room = Room(buffer_size=5)
    room.run()

    room.append(1)

    assert room.rang


def test_further_records_let_it_sleep() -> None:
    """Until `buffer_size` of them are there."""
    room = Room(buffer_size=3)
    room.append(1)
    room.run()
    room.rang  # noqa: B018

    room.append(1)
    second = room.rang
    room.append(1)
    third = room.rang

    assert (second, third) == (False, True)


def test_a_record_that_comes_while_it_goes_to_sleep_is_noticed() -> None:
    """Whatever is appended while a turn finds nothing pending wakes the thread again."""

    class Busy(MemorySpool):
        """Gets a record right after it was counted."""

        arriving: Callable[[], object] | None = None

        def pending(self) -> int:
            count = super().pending()
            arriving, self.arriving = self.arriving, None
            if arriving is not None:
                arriving()
            return count

    spool = Busy(100, 1 << 30)
    room = Room(spool=spool, buffer_size=5, flush_interval=30.0)
    room.append(5)
    room.delivery.turn()
    assert room.rang
    spool.arriving = lambda: room.append(1)

    wait = room.run()

    assert len(room.transport.accepted) == 5
    assert wait is not None or room.rang


# -- markers -------------------------------------------------------------------------------------


def test_a_marker_makes_everything_due() -> None:
    """A flush does not wait for the interval, and is over when the answer is there."""
    room = Room(buffer_size=100)
    room.append(2)
    room.run()

    marker = room.mark()
    rang, before = room.rang, marker.done.is_set()
    room.run()

    assert (rang, before, marker.done.is_set()) == (True, False, True)
    assert room.sizes == [2]


def test_a_marker_behind_nothing_is_over_at_once() -> None:
    """There is nothing to wait for, and nothing is sent."""
    room = Room()

    marker = room.mark()
    room.run()

    assert marker.done.is_set()
    assert room.transport.sent == []


def test_a_marker_waits_through_an_outage() -> None:
    """It is over when what was before it is settled, not before."""
    room = Room(OUTAGE, OUTAGE)
    room.append(1)
    marker = room.mark()
    states = []

    for _ in range(3):
        room.live(1.0)
        states.append(marker.done.is_set())

    assert states == [False, False, True]


def test_a_marker_does_not_wait_for_later_records() -> None:
    """Records that came after it, and wait for their interval, do not hold it up."""
    room = Room(buffer_size=100)
    room.append(1)
    marker = room.mark()
    room.append(1)

    room.run()

    assert marker.done.is_set()


def test_expired_records_free_a_marker() -> None:
    """A flush ends when what it waited for has expired."""
    room = Room(max_event_age=5.0, buffer_size=100)
    room.transport.default = OUTAGE
    room.append(2)
    marker = room.mark()

    room.live(8.0)

    assert marker.done.is_set()
    assert room.dropped == {"expired": 2}
    room.assert_balanced()


# -- answers -------------------------------------------------------------------------------------


def test_acceptance() -> None:
    """It is counted, with its bytes and its time, and the records are gone."""
    room = Room(Receipt(77), buffer_size=2)
    room.clock.advance(5.0)

    room.append(2)
    room.run()

    assert (room.ledger.delivered.value, room.ledger.bytes_sent) == (2, 77)
    assert (room.ledger.last_success_at, room.ledger.last_error) == (5.0, None)
    assert room.spool.pending() == 0


def test_records_refused_by_name_are_dropped() -> None:
    """The rest of the batch is delivered."""
    room = Room(Receipt(9, {key(1): "no such country", "unknown": "?"}), buffer_size=3)

    room.append(3)
    room.run()

    assert room.ledger.delivered.value == 2
    assert room.dropped == {"rejected": 1}
    room.assert_balanced()


def test_final_refusal_buries_the_batch() -> None:
    """It is dropped, told to `on_error`, and the next one goes on at once."""
    room = Room(REFUSED, max_batch_size=2)

    room.append(4)
    room.run()

    assert room.dropped == {"rejected": 2}
    assert room.transport.accepted == [key(2), key(3)]
    stage, error, context = room.errors[0]
    assert (stage, error, context["events"]) == ("transport_send", REFUSED, 2)
    assert context["batch_id"] == room.transport.sent[0].batch_id
    room.assert_balanced()


def test_refusals_do_not_open_the_breaker() -> None:
    """A backend that answers is there, whatever it says."""
    room = Room(*[REFUSED] * 20, max_batch_size=1)

    room.append(20)
    room.run()

    assert (room.delivery.breaker.state, room.dropped) == ("closed", {"rejected": 20})


def test_unsuccessful_answer_is_offered_again_then_buried() -> None:
    """A 2xx that says it failed may be a hiccup; after `retry_attempts` more it is believed."""
    room = Room(*[UNSUCCESSFUL] * 3, retry_attempts=2, backoff_factor=1.0)

    room.append(1)
    first = room.run()
    pending = room.spool.pending()
    room.live(60.0)

    assert (first, pending) == (1.0, 1)
    assert len({sent.batch_id for sent in room.transport.sent}) == 1
    assert (room.sizes, room.dropped) == ([1, 1, 1], {"rejected": 1})
    room.assert_balanced()


def test_unsuccessful_answer_then_accepted() -> None:
    """A hiccup costs nothing."""
    room = Room(UNSUCCESSFUL)

    room.append(1)
    room.live(10.0)

    assert room.transport.accepted == [key(0)]
    assert room.dropped == {}


def test_too_large_is_split_until_it_fits() -> None:
    """The halves go at once; what was accepted is never sent again."""

    def at_most_two(batch: Batch) -> Receipt:
        if len(batch) > 2:
            raise TOO_LARGE
        return Receipt()

    room = Room()
    room.transport.default = at_most_two

    given = room.append(7)
    room.run()

    assert room.transport.accepted == given
    assert room.sizes == [7, 3, 1, 2, 4, 2, 2]
    room.assert_balanced()


def test_a_single_record_that_is_too_large_is_dropped() -> None:
    """It is counted as too large; its neighbours arrive."""

    def not_the_third(batch: Batch) -> Receipt:
        if any(b"key-000002" in body for body in batch.bodies):
            raise TOO_LARGE
        return Receipt()

    room = Room()
    room.transport.default = not_the_third

    given = room.append(5)
    room.run()

    assert room.transport.accepted == [one for one in given if one != key(2)]
    assert room.dropped == {"too_large": 1}
    room.assert_balanced()


def test_accepted_half_survives_the_failure_of_the_other() -> None:
    """After a split one half is accepted, the other fails and is sent again alone."""
    room = Room(TOO_LARGE, Receipt(), OUTAGE)

    given = room.append(4)
    room.live(5.0)

    assert room.transport.accepted == given
    assert room.sizes == [4, 2, 2, 2]
    assert room.transport.sent[2].batch_id == room.transport.sent[3].batch_id


@pytest.mark.parametrize("error", [OUTAGE, PATIENCE_ASKED, WRONG_KEY, ValueError("x")])
def test_failure_keeps_the_batch_as_it_is(error: Exception) -> None:
    """The next attempt sends the same id and the same bytes."""
    room = Room(error)

    given = room.append(3)
    room.live(20.0)

    first, second = room.transport.sent
    assert (first.batch_id, first.bodies) == (second.batch_id, second.bodies)
    assert room.transport.accepted == given
    assert room.dropped == {}
    room.assert_balanced()


def test_setup_errors_pause_longer_each_time() -> None:
    """A key that is refused is asked for again, less and less often, and everything is kept."""
    room = Room()
    room.transport.default = WRONG_KEY
    room.append(1)

    waits = []
    for _ in range(12):
        wait = room.run()
        assert wait is not None
        waits.append(wait)
        room.clock.advance(wait)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]
    assert (room.spool.pending(), room.delivery.breaker.state) == (1, "closed")


def test_setup_error_resumes_when_the_key_is_right() -> None:
    """Nothing was lost by it."""
    room = Room(WRONG_KEY, WRONG_KEY)

    given = room.append(3)
    room.live(10.0)

    assert room.transport.accepted == given
    room.assert_balanced()


def test_no_event_wakes_a_paused_delivery() -> None:
    """New records do not cut a pause short."""
    room = Room(WRONG_KEY)
    room.append(1)
    room.run()

    room.append(5)
    wait = room.run()

    assert wait == 1.0
    assert len(room.transport.sent) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status: int) -> None:
    """The backend's wish is kept to, whichever answer it came with."""
    error = TransientError(f"HTTP {status}", status=status, outage=status > 500, retry_after=7.0)
    room = Room(error)
    room.append(1)

    wait = room.run()
    room.clock.advance(6.9)
    early = room.run()
    room.clock.advance(0.2)
    room.run()

    assert wait == 7.0
    assert early == pytest.approx(0.1)
    assert len(room.transport.sent) == 2


def test_impatience_is_slowed_down() -> None:
    """A 429 without a time is answered by growing pauses of our own, at most a minute."""
    room = Room()
    room.transport.default = TransientError("HTTP 429", status=429, outage=False)
    room.append(1)

    waits = []
    for _ in range(9):
        wait = room.run()
        assert wait is not None
        waits.append(wait)
        room.clock.advance(wait)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert room.delivery.breaker.state == "closed"


def test_outages_open_the_breaker() -> None:
    """After five in a row it asks seldom; one success closes it again."""
    room = Room(*[OUTAGE] * 5, backoff_factor=0.0)
    room.append(1)

    room.run()
    state, attempts = room.delivery.breaker.state, len(room.transport.sent)
    room.live(5.0)

    assert (state, attempts) == ("open", 5)
    assert room.delivery.breaker.state == "closed"
    assert room.transport.accepted == [key(0)]


def test_breaker_asks_less_and_less_often() -> None:
    """The probes of a long outage come at growing distances, at most half a minute."""
    room = Room(backoff_factor=0.0)
    room.transport.default = OUTAGE
    room.append(1)
    room.run()
    started = len(room.transport.sent)

    room.live(300.0)

    assert started == 5
    assert 8 <= len(room.transport.sent) - started <= 16


def test_a_probe_that_is_killed_does_not_block_the_breaker() -> None:
    """When the thread is interrupted in the half-open breaker's one request, another follows."""
    room = Room(*[OUTAGE] * 5, SystemExit(), backoff_factor=0.0)
    room.append(1)
    room.run()
    room.clock.advance(60.0)

    with pytest.raises(SystemExit):
        room.run()
    room.live(120.0)

    assert room.transport.accepted == [key(0)]
    room.assert_balanced()


def test_jitter_spreads_a_fleet() -> None:
    """Agents that failed together come back at different moments, at most a fifth later."""
    waits = []
    for n in range(100):
        room = Room(PATIENCE_ASKED)
        room.delivery._rng = lambda: n / 100  # noqa: B023
        room.append(1)
        waits.append(room.run())

    assert len(set(waits)) == 100
    assert min(waits) == 7.0  # type: ignore[type-var]
    assert 8.3 < max(waits) <= 8.4  # type: ignore[operator,type-var]


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt()])
def test_an_interrupted_turn_loses_nothing(error: BaseException) -> None:
    """Whatever ends a request in the middle, the batch is sent again as it was."""
    room = Room(error)
    given = room.append(2)

    with pytest.raises(type(error)):
        room.run()
    room.assert_balanced()
    room.run()

    assert room.transport.accepted == given
    assert len({sent.batch_id for sent in room.transport.sent}) == 1


def test_an_error_of_a_foreign_transport_is_told_as_it_is() -> None:
    """`on_error` gets the exception itself, the log and the stats only its class."""
    error = ValueError("secret-in-message")
    room = Room(error)

    room.append(1)
    room.run()

    assert room.errors[0][1] is error
    assert room.ledger.last_error == "ValueError"


# -- age -----------------------------------------------------------------------------------------


def test_old_records_expire() -> None:
    """They are counted, and not sent."""
    room = Room(max_event_age=10.0, buffer_size=100, flush_interval=60.0)
    room.append(2)
    room.run()
    room.clock.advance(8.0)
    room.append(1)

    room.clock.advance(5.0)
    room.run()

    assert room.dropped == {"expired": 2}
    assert room.spool.pending() == 1
    room.assert_balanced()


def test_nothing_expires_by_default() -> None:
    """However long the outage is."""
    room = Room(OUTAGE, buffer_size=1)
    room.append(1)

    room.live(86_400.0)

    assert room.transport.accepted == [key(0)]


# -- the log -------------------------------------------------------------------------------------


def test_a_streak_of_failures_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """One when it begins, one when it ends."""
    caplog.set_level(logging.INFO)
    room = Room(OUTAGE, OUTAGE, OUTAGE)

    room.append(1)
    room.live(60.0)

    begin, end = caplog.records
    assert (begin.levelname, end.levelname) == ("WARNING", "INFO")
    assert "fails (HTTP 503)" in begin.message
    assert end.message.startswith("Delivery works again")


def test_a_wrong_key_is_an_error_line(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has to do something about it; once is enough."""
    room = Room(*[WRONG_KEY] * 4)

    room.append(1)
    room.live(14.0)

    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 413, 429, 503])
def test_nothing_of_an_answer_is_logged(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A backend may quote events or keys: log and stats name the status, and no word of its own."""
    caplog.set_level(logging.DEBUG)

    def answer(batch: Batch) -> Receipt:
        body = b'{"success": false, "detail": "quoted secret-42"}'
        return judge(Answer(status, {}, body), bytes_sent=1, now=0.0)

    room = Room(answer)

    room.append(1)
    room.run()

    assert room.ledger.last_error is not None
    assert str(status) in room.ledger.last_error
    assert "secret-42" not in room.ledger.last_error + caplog.text


def test_on_error_hears_of_every_failure() -> None:
    """Unlike the log, it is not throttled."""
    room = Room(OUTAGE, OUTAGE, OUTAGE)

    room.append(1)
    room.live(60.0)

    assert [error for _, error, _ in room.errors] == [OUTAGE] * 3


# -- the wait before a retry ---------------------------------------------------------------------


def test_pause_takes_its_time() -> None:
    """It is not shortened by rings that mean something else."""
    room = Room()
    room.bell.ring()

    assert room.delivery.pause(5.0) is True
    assert room.clock.monotonic() == 5.0


def test_pause_of_nothing() -> None:
    """It waits for nothing."""
    assert Room().delivery.pause(0.0) is True


def test_a_batch_that_another_has_ends_a_pause(tmp_path: Path) -> None:
    """A process that stood still between two attempts does not make the second one."""
    waited = []
    with home_of("sqlite", tmp_path, RedisServer) as home:
        room = Room(spool=home.spool())

        def send(batch: Batch, deadline: float | None) -> Receipt:
            waited.append(room.delivery.pause(1.0))
            home.pass_time(LEASE + 1)
            assert home.spool().claim(10, 1 << 20, 0.0) is not None
            waited.append(room.delivery.pause(1.0))
            raise OUTAGE

        room.transport.send = send  # type: ignore[method-assign]
        room.append(2)
        room.run()

        assert waited == [True, False]
        assert room.spool.claim(10, 1 << 20, 0.0) is None


def test_last_round_ends_a_pause() -> None:
    """A back-off never holds up a stop."""
    room = Room()
    room.delivery.hurry(100.0, Marker())

    assert room.delivery.pause(60.0) is False
    assert room.clock.monotonic() == 0.0


def test_closing_ends_a_pause() -> None:
    """Nor does one that begins later."""
    room = Room()
    room.delivery.is_closing = True

    assert room.delivery.pause(60.0) is False


# -- the last round ------------------------------------------------------------------------------


def hurry(room: Room, seconds: float = 5.0) -> Any:
    """Begin the last round with its marker through the drain already."""
    marker = Marker()
    over = room.delivery.hurry(room.clock.monotonic() + seconds, marker)
    room.delivery.receive(marker)
    return over


def test_last_round_waits_for_what_comes_between_two_looks() -> None:
    """The drain may put the last events in just behind a look that found none."""
    room = Room()
    marker, given = Marker(), []
    over = room.delivery.hurry(5.0, marker)
    claim = room.spool.claim

    def claim_too_early(*args: Any) -> Batch | None:
        found = claim(*args)
        if not given:
            given.extend(room.append(2))
            room.delivery.receive(marker)
        return found

    room.spool.claim = claim_too_early  # type: ignore[method-assign]
    room.live(1.0)

    assert room.transport.accepted == given
    assert over.is_set()


def test_last_round_sends_everything_at_once() -> None:
    """Neither interval nor buffer size matter; the transport is told the deadline."""
    room = Room(buffer_size=1_000, max_batch_size=2)
    given = room.append(5)

    over = hurry(room)
    room.run()

    assert over.is_set()
    assert room.transport.accepted == given
    assert {sent.deadline for sent in room.transport.sent} == {5.0}


def test_last_round_ignores_pauses_and_the_breaker() -> None:
    """One attempt is made even in the middle of a back-off."""
    room = Room(*[OUTAGE] * 5, WRONG_KEY, backoff_factor=0.0)
    given = room.append(1)
    room.run()
    assert room.delivery.breaker.state == "open"

    hurry(room)
    room.run()
    room.delivery.relax()
    hurry(room)
    room.run()

    assert room.transport.accepted == given


def test_last_round_makes_one_attempt_for_each_batch() -> None:
    """What failed is kept in its order, and nothing is tried twice."""
    room = Room(max_batch_size=2)
    room.transport.default = OUTAGE
    room.append(6)

    over = hurry(room)
    first = room.delivery.turn()
    room.run()
    after = room.spool.pending()
    attempts = [sent.keys for sent in room.transport.sent]
    room.transport.default = Receipt()
    room.delivery.relax()
    room.live(60.0)

    assert over.is_set()
    assert attempts == [[key(0), key(1)], [key(2), key(3)], [key(4), key(5)]]
    assert (first, after) == (0.0, 6)
    assert room.transport.accepted == [key(n) for n in range(6)]


def test_last_round_is_over_once() -> None:
    """A ring that comes after its end does not begin it anew."""
    room = Room()
    room.transport.default = OUTAGE
    room.append(1)
    over = hurry(room)
    room.run()
    assert over.is_set()

    room.append(1)
    room.run()

    assert len(room.transport.sent) <= 2
    assert [sent.keys for sent in room.transport.sent].count([key(0)]) == 1


def test_last_round_waits_for_the_drain() -> None:
    """It is not over before its marker has come through."""
    room = Room()
    marker = Marker()
    over = room.delivery.hurry(5.0, marker)

    wait, before = room.run(), over.is_set()
    room.append(1)
    room.delivery.receive(marker)
    room.run()

    assert (wait, before, over.is_set()) == (0.01, False, True)
    assert room.transport.accepted == [key(0)]


def test_last_round_keeps_to_its_deadline() -> None:
    """Past it nothing is sent any more and nothing is lost."""
    room = Room()
    room.append(3)
    over = hurry(room, 5.0)
    room.clock.advance(5.0)

    room.run()

    assert over.is_set()
    assert room.transport.sent == []
    room.assert_balanced()


def test_a_retry_that_the_last_round_interrupted_is_sent_once_more() -> None:
    """The attempt does not count: the round makes its own, with the same batch."""
    room = Room()
    given = room.append(2)
    rounds: list[Any] = []

    def interrupted(batch: Batch) -> Receipt:
        rounds.append(hurry(room))
        raise TransientError("interrupted: the agent stops", outage=False)

    room.transport.script(interrupted)
    room.run()

    assert rounds[0].is_set()
    assert room.transport.accepted == given
    assert len({sent.batch_id for sent in room.transport.sent}) == 1
    assert room.errors == []


def test_a_request_that_outlives_its_round_is_kept() -> None:
    """When the round was called off while it hung, its batch is given back all the same."""
    room = Room()
    given = room.append(2)

    def hanging(batch: Batch) -> Receipt:
        room.delivery.relax()
        raise OUTAGE

    room.transport.script(hanging)
    hurry(room)
    room.run()
    room.live(10.0)

    assert room.transport.accepted == given
    room.assert_balanced()


def test_relax_without_a_round() -> None:
    """It does nothing."""
    room = Room()

    room.delivery.relax()

    assert room.run() is None


def test_a_half_open_breaker_survives_a_round() -> None:
    """When the probe is interrupted by a round that is too late to send, sending resumes."""
    room = Room(*[OUTAGE] * 5, backoff_factor=0.0)
    given = room.append(1)
    room.run()
    room.clock.advance(60.0)

    def interrupted(batch: Batch) -> Receipt:
        hurry(room, 0.0)
        raise TransientError("interrupted: the agent stops", outage=False)

    room.transport.script(interrupted)
    room.run()
    room.delivery.relax()
    room.live(120.0)

    assert room.transport.accepted == given


# -- after the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Receipt(5), REFUSED])
def test_an_answer_that_comes_too_late_counts_no_more(answer: Any) -> None:
    """Its records were counted as left behind already."""
    room = Room()
    room.append(2)

    def late(batch: Batch) -> Receipt:
        room.delivery.is_closed = True
        room.ledger.drop("shutdown", room.spool.close())
        if isinstance(answer, Receipt):
            return answer
        raise answer

    room.transport.script(late)
    room.run()

    assert room.dropped == {"shutdown": 2}
    assert (room.ledger.delivered.value, room.ledger.bytes_sent) == (0, 0)
    room.assert_balanced()


def test_a_failure_that_names_no_record_of_the_batch_is_no_acceptance() -> None:
    """`"success": false` with somebody else's keys: the batch is offered again."""
    doubtful = Receipt(9, {"unknown": "?"}, is_doubtful=True)
    room = Room(doubtful, buffer_size=3)
    room.spool.append(records(3))

    room.delivery.turn()

    assert room.ledger.delivered.value == 0
    assert room.spool.pending() == 3
