"""The queue in front of the agent, its overflow policies, and the thread that drains it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from guardagent import BufferFull, SecurityEvent, SecurityMetric
from guardagent._clock import Bell
from guardagent._quiet import MUTED
from guardagent.drain import LINGER, SLICE, Drain, Pace
from guardagent.encoding import Encoder
from guardagent.errors import EncodeError, TooLargeError
from guardagent.fields import Item, named, take_event, take_metric
from guardagent.intake import Intake, Marker, release
from guardagent.redaction import Redactor
from guardagent.spool import MemorySpool
from guardagent.status import Callbacks, Ledger
from guardagent.testing.clock import ManualClock
from tests.scripted import PATIENCE, at_each_opcode, in_threads, keys, once_at

POLICIES = ["drop_oldest", "drop_newest", "block", "raise"]


def item(name: object) -> Item:
    """Return an event as `capture` puts it in, with a key of its own."""
    return take_event(SecurityEvent(event_type="probe", idempotency_key=key(name)))


def key(name: object) -> str:
    """Return a UUID that `named` knows again."""
    made = str(uuid.uuid5(uuid.NAMESPACE_OID, str(name)))
    _NAMES[made] = str(name)
    return made


_NAMES: dict[str, str] = {}


def names(items: list[Any]) -> list[str]:
    return ["marker" if isinstance(one, Marker) else _NAMES[one[1][0]] for one in items]


@attrs.define
class Entrance:
    """An intake and what came of it."""

    intake: Intake
    ledger: Ledger
    bell: Bell

    @classmethod
    def of(cls, capacity: int, overflow: str, block_timeout: float = 0.0) -> Entrance:
        bell, ledger = Bell(), Ledger()
        return cls(Intake(capacity, overflow, block_timeout, bell.ring, ledger), ledger, bell)

    def offer(self, *names: object) -> list[bool]:
        return [self.intake.offer(item(name)) for name in names]

    @property
    def inside(self) -> list[str]:
        return names(list(self.intake.queue))

    @property
    def overflowed(self) -> int:
        return self.ledger.dropped["overflow"].value


# -- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", POLICIES)
def test_items_leave_in_order(overflow: str) -> None:
    """Below the bound every policy is the same: first in, first out, nothing lost."""
    entrance = Entrance.of(5, overflow)

    taken = entrance.offer(1, 2, 3)
    items = entrance.intake.take(2) + entrance.intake.take(9)

    assert taken == [True, True, True]
    assert names(items) == ["1", "2", "3"]
    assert (entrance.overflowed, entrance.intake.depth) == (0, 0)


def test_drop_oldest() -> None:
    """The newcomer is taken; the oldest one goes and is counted."""
    entrance = Entrance.of(2, "drop_oldest")

    taken = entrance.offer(1, 2, 3, 4)

    assert taken == [True] * 4
    assert (entrance.inside, entrance.overflowed) == (["3", "4"], 2)


def test_drop_newest() -> None:
    """The newcomer is refused and counted; what is inside stays."""
    entrance = Entrance.of(2, "drop_newest")

    taken = entrance.offer(1, 2, 3, 4)

    assert taken == [True, True, False, False]
    assert (entrance.inside, entrance.overflowed) == (["1", "2"], 2)


def test_raise() -> None:
    """The caller hears of it, and it is counted."""
    entrance = Entrance.of(2, "raise")
    entrance.offer(1, 2)

    with pytest.raises(BufferFull, match="2 events are waiting"):
        entrance.offer(3)

    assert (entrance.inside, entrance.overflowed) == (["1", "2"], 1)


def test_block_gives_up_at_last() -> None:
    """When no room was made in time the newcomer is refused, and the drain was called for."""
    entrance = Entrance.of(1, "block", block_timeout=0.01)
    entrance.offer(1)
    entrance.bell.wait(0)

    taken = entrance.offer(2)

    assert taken == [False]
    assert (entrance.inside, entrance.overflowed) == (["1"], 1)
    assert entrance.bell.wait(0)


def test_block_waits_for_room() -> None:
    """Whoever waits goes on as soon as the drain has taken something."""
    entrance = Entrance.of(1, "block", block_timeout=PATIENCE)
    entrance.offer(1)
    entrance.bell.wait(0)
    taken: list[bool] = []

    thread = threading.Thread(target=lambda: taken.extend(entrance.offer(2)))
    thread.start()
    assert entrance.bell.wait(PATIENCE)
    first = entrance.intake.take(1)
    thread.join(PATIENCE)

    assert names(first) == ["1"]
    assert (taken, entrance.inside, entrance.overflowed) == ([True], ["2"], 0)


def test_close_frees_whoever_waits_for_room() -> None:
    """They are refused: nothing stays in a closed queue."""
    entrance = Entrance.of(1, "block", block_timeout=PATIENCE)
    entrance.offer(1)
    entrance.bell.wait(0)
    taken: list[bool] = []

    thread = threading.Thread(target=lambda: taken.extend(entrance.offer(2)))
    thread.start()
    assert entrance.bell.wait(PATIENCE)
    left = entrance.intake.close()
    thread.join(PATIENCE)

    assert (left, taken, entrance.inside) == (1, [False], [])
    assert entrance.overflowed == 1


def test_block_never_waits_in_the_drain() -> None:
    """The thread that makes the room is refused at once, or it would wait for itself."""
    entrance = Entrance.of(1, "block", block_timeout=PATIENCE * 10)
    entrance.intake.take(0)
    entrance.offer(1)

    (taken,) = in_threads(1, lambda _: (entrance.intake.take(0), entrance.offer(2))[1])

    assert taken == [False]
    assert entrance.overflowed == 1


def test_take_survives_a_policy_at_work() -> None:
    """Items that a policy drops while the drain takes are no error of the drain's."""
    entrance = Entrance.of(3, "drop_oldest")
    entrance.offer(1, 2, 3)

    class Shrinking(type(entrance.intake.queue)):  # type: ignore[misc]
        def __len__(self) -> int:
            return super().__len__() + 2

    entrance.intake.queue = Shrinking(entrance.intake.queue)

    assert names(entrance.intake.take(9)) == ["1", "2", "3"]


def test_eight_threads_overrun_the_bound_by_eight_at_most() -> None:
    """Every item is inside or counted, and the bound holds but for those on their way."""
    entrance = Entrance.of(50, "drop_oldest")

    in_threads(8, lambda number: entrance.offer(*(f"{number}-{n}" for n in range(200))))

    assert len(entrance.inside) + entrance.overflowed == 1_600
    assert len(entrance.inside) <= 58


def test_drop_oldest_meets_an_empty_queue() -> None:
    """When the drain took everything in that very moment, nothing is dropped."""
    entrance = Entrance.of(2, "drop_oldest")

    class Emptied(type(entrance.intake.queue)):  # type: ignore[misc]
        """Says that it is full until it is looked into."""

        def __len__(self) -> int:
            return 2

    entrance.intake.queue = Emptied()

    assert entrance.offer(1) == [True]
    assert (entrance.inside, entrance.overflowed) == (["1"], 0)


def test_drop_oldest_finds_nothing_to_drop() -> None:
    """Markers alone, however many, never give way."""
    entrance = Entrance.of(2, "drop_oldest")
    entrance.intake.queue.extend([Marker(), Marker()])

    assert entrance.offer(1) == [True]
    assert (entrance.inside, entrance.overflowed) == (["marker", "marker", "1"], 0)


def test_a_wake_up_that_fails_is_tried_again() -> None:
    """When it raised, the next item calls for the drain again."""
    calls: list[int] = []

    def wake() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    intake = Intake(10, "drop_oldest", 0.0, wake, Ledger())

    with pytest.raises(KeyboardInterrupt):
        intake.offer(item(1))
    intake.offer(item(2))

    assert (len(calls), intake.depth) == (2, 2)


# -- markers -------------------------------------------------------------------------------------


def test_a_marker_is_no_event() -> None:
    """It counts neither as depth nor, when everything is let go, as lost."""
    entrance = Entrance.of(5, "drop_oldest")
    entrance.offer(1, 2)
    entrance.intake.mark(Marker())

    depth = entrance.intake.depth

    assert (depth, entrance.intake.close()) == (2, 2)
    assert entrance.inside == []


def test_a_marker_wakes_the_drain() -> None:
    """A flush does not wait for half the queue to fill."""
    entrance = Entrance.of(100, "drop_oldest")
    entrance.intake.relax(99)

    entrance.intake.mark(Marker())

    assert entrance.bell.wait(0)


@pytest.mark.parametrize("overflow", POLICIES)
def test_markers_survive_every_overflow(overflow: str) -> None:
    """A flood after a flush drops events and never the marker of the flush."""
    entrance = Entrance.of(3, overflow)
    marker = Marker()
    entrance.offer(1)
    entrance.intake.mark(marker)

    for n in range(10):
        try:
            entrance.offer(n + 2)
        except BufferFull:
            continue

    assert marker in entrance.intake.queue
    assert "marker" in names(entrance.intake.take(99))


def test_a_queue_of_markers_takes_events() -> None:
    """Where nothing but markers could give way, the newcomer comes in all the same."""
    entrance = Entrance.of(2, "drop_oldest")
    markers = [Marker(), Marker()]
    for marker in markers:
        entrance.intake.mark(marker)

    taken = entrance.offer(1)

    assert taken == [True]
    assert (entrance.inside, entrance.overflowed) == (["marker", "marker", "1"], 0)


@pytest.mark.parametrize("overflow", POLICIES)
def test_markers_take_no_room_from_events(overflow: str) -> None:
    """However many flushes are under way, as many events fit as the setting says."""
    entrance = Entrance.of(2, overflow)
    for _ in range(3):
        entrance.intake.mark(Marker())

    taken = entrance.offer(1, 2)

    assert taken == [True, True]
    assert (entrance.intake.depth, entrance.overflowed) == (2, 0)


# -- the drain -----------------------------------------------------------------------------------


class Room:
    """A drain with everything around it, turned by hand."""

    def __init__(
        self,
        *,
        capacity: int = 1_000,
        overflow: str = "drop_oldest",
        spool: MemorySpool | None = None,
        pace: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        self.bell, self.ledger, self.clock = Bell(), Ledger(), ManualClock()
        self.intake = Intake(capacity, overflow, 0.0, self.bell.ring, self.ledger)
        self.spool = spool or MemorySpool(10_000, 1 << 30)
        self.errors: list[tuple[str, BaseException]] = []
        self.markers: list[Marker] = []
        self.spooled = 0
        self.drain = Drain(
            self.intake,
            self.spool,
            Encoder(Redactor(["authorization"], 1_024), 100_000),
            self.ledger,
            Callbacks(lambda stage, error, context: self.errors.append((stage, error))),
            self.clock,
            on_spooled=self.note,
            on_marker=self.markers.append,
            pace=Pace(linger=LINGER, **(pace or {})),
            **options,
        )

    def note(self) -> None:
        self.spooled += 1

    def offer(self, *names: object) -> None:
        for name in names:
            assert self.intake.offer(item(name))

    def run(self) -> float | None:
        """Turn until there is nothing more to do."""
        for _ in range(1_000):
            wait = self.drain.turn()
            if wait is None or self.drain.is_held_up:
                return wait
        raise AssertionError("it does not come to rest")

    @property
    def kept(self) -> list[str]:
        """Take everything out of the spool."""
        found: list[str] = []
        while (batch := self.spool.claim(1_000, 1 << 30, 0.0)) is not None:
            found += [_NAMES[one] for one in keys(batch.bodies)]
            self.spool.ack(batch)
        return found

    @property
    def dropped(self) -> dict[str, int]:
        return {reason: n for reason, n in self.ledger.losses().items() if n}


def test_drain_moves_events_to_the_spool() -> None:
    """In the order of capture, events and metrics alike."""
    room = Room()
    room.offer(1, 2)
    metric = SecurityMetric(metric_type="block_rate", value=0.5, idempotency_key=key(3))
    room.intake.offer(take_metric(metric))

    room.run()

    assert room.spool.pending() == 3
    assert room.kept == ["1", "2", "3"]
    assert room.drain.depth == 0


def test_drain_waits_for_the_bell_when_there_is_nothing() -> None:
    """An idle agent does not wake up."""
    assert Room().drain.turn() is None


def test_drain_lingers_once() -> None:
    """After the first event it waits a moment for more; then it takes them all."""
    room = Room()
    room.offer(1)

    first = room.drain.turn()
    room.offer(2)
    room.drain.turn()

    assert first == LINGER
    assert room.kept == ["1", "2"]


@pytest.mark.parametrize("why", ["full slice", "marker"])
def test_drain_does_not_linger(why: str) -> None:
    """A full slice is no reason to wait, and somebody who flushes is waiting already."""
    room = Room()
    room.offer(1)
    if why == "marker":
        room.intake.mark(Marker())
    else:
        room.offer(*range(2, SLICE + 1))

    wait = room.drain.turn()

    assert wait is not None
    assert 0 < wait < LINGER
    assert room.spool.pending() == (1 if why == "marker" else SLICE)


def test_drain_lingers_anew_after_it_was_idle() -> None:
    """Each burst gets one wait."""
    room = Room()
    room.offer(1)
    room.run()
    room.offer(2)

    assert room.drain.turn() == LINGER


def test_one_slice_at_a_time() -> None:
    """A long queue is worked off in slices, so that other threads get their turn."""
    room = Room()
    room.offer(*range(SLICE * 3))
    sizes = []

    for _ in range(3):
        room.drain.turn()
        sizes.append(room.spool.pending())

    assert sizes == [SLICE, SLICE * 2, SLICE * 3]
    assert room.spooled == 3


def test_what_waits_together_goes_into_the_spool_together() -> None:
    """Encoded in slices still, and in no more operations than there is need for."""
    room = Room(pace={"together": SLICE * 3})
    room.offer(*range(SLICE * 5))
    seen = []

    for _ in range(5):
        room.drain.turn()
        seen.append((room.spool.pending(), room.drain.depth, room.intake.depth))

    assert seen == [
        (0, SLICE, SLICE * 4),
        (0, SLICE * 2, SLICE * 3),
        (SLICE * 3, 0, SLICE * 2),
        (SLICE * 3, SLICE, SLICE),
        (SLICE * 5, 0, 0),
    ]
    assert room.spooled == 2
    assert room.kept == [str(n) for n in range(SLICE * 5)]


@pytest.mark.parametrize("why", ["time", "bytes"])
def test_what_waits_does_not_wait_for_more_than_a_moment(why: str) -> None:
    """Encoding may take long, when the application needs the processor, and records be large."""
    room = Room(pace={"together": SLICE * 10})
    metadata = {str(n): "x" * 1_000 for n in range(5 if why == "bytes" else 0)}
    for n in range(SLICE * 3):
        event = SecurityEvent(event_type="probe", idempotency_key=key(n), metadata=metadata)
        assert room.intake.offer(take_event(event))

    room.drain.turn()
    before = room.spool.pending()
    room.clock.advance(LINGER if why == "time" else 0.0)
    room.drain.turn()

    assert (before, room.spool.pending()) == (0, SLICE * 2)


def test_close_counts_what_is_encoded() -> None:
    """It is in no spool yet."""
    room = Room(pace={"together": SLICE * 3})
    room.offer(*range(SLICE * 2))
    room.drain.turn()

    assert room.drain.depth == SLICE
    assert (room.drain.close(), room.intake.close(), room.drain.depth) == (SLICE, SLICE, 0)


def test_an_interrupted_append_is_done_again() -> None:
    """By a thread that was killed in it: rather twice than never."""
    room = Room()
    append, killed = room.spool.append, [True]

    def die_once(records: Any) -> int:
        if killed:
            raise SystemExit(killed.pop())
        return append(records)

    room.spool.append = die_once  # type: ignore[method-assign]
    room.offer(1, 2)
    room.drain.turn()

    with pytest.raises(SystemExit):
        room.drain.turn()
    in_between = room.drain.depth
    room.run()

    assert in_between == 2
    assert room.kept == ["1", "2"]


def test_what_waits_for_the_spool_is_late_after_a_while() -> None:
    """As long as something of that moment has not got there, and no longer."""
    room = Room(spool=MemorySpool(2, 1 << 30, when_full="grow"), waits_for_room=True)
    room.offer(1, 2, 3)
    room.drain.turn()
    room.drain.turn()
    states = [room.drain.is_late]

    for _ in range(3):
        room.drain.turn()
        room.clock.advance(0.5)
        states.append(room.drain.is_late)
    found = room.kept
    room.run()
    states.append(room.drain.is_late)

    assert found + room.kept == ["1", "2", "3"]
    assert states == [False, False, False, True, False]


def test_a_busy_drain_is_not_late() -> None:
    """However long the queue has not been empty, and whatever the hook has dropped of it."""
    room = Room(before_send=lambda _: None)
    states = []

    for _ in range(20):
        room.offer(*range(SLICE * 2))
        room.drain.turn()
        room.clock.advance(0.3)
        room.drain.turn()
        room.drain.turn()
        states.append(room.drain.is_late)
        room.offer("one more")

    assert not any(states)


def test_marker_passes_behind_what_came_before() -> None:
    """When it is handed on, everything captured before it is in the spool, and nothing after it."""
    pending = []
    room = Room()
    room.drain._on_marker = lambda marker: pending.append(room.spool.pending())
    room.offer(1, 2)
    room.intake.mark(Marker())
    room.offer(3)

    room.run()

    assert pending == [2]
    assert room.kept == ["1", "2", "3"]
    assert room.intake.markers == set()


def test_two_markers_in_a_row() -> None:
    """Each is handed on once."""
    room = Room()
    markers = [Marker(), Marker()]
    for marker in markers:
        room.intake.mark(marker)

    room.run()

    assert room.markers == markers


def test_a_spool_that_is_full_loses_by_its_own_policy() -> None:
    """What the spool could not keep is counted as overflow."""
    room = Room(spool=MemorySpool(2, 1 << 30))
    room.offer(1, 2, 3)

    room.run()

    assert room.kept == ["2", "3"]
    assert room.dropped == {"overflow": 1}


def test_drain_waits_for_room() -> None:
    """Under "block" and "raise" it takes no more than the spool has room for."""
    room = Room(spool=MemorySpool(2, 1 << 30, when_full="grow"), waits_for_room=True)
    room.offer(1, 2, 3)

    wait = room.run()
    held_up = (room.drain.is_held_up, room.spool.pending(), room.intake.depth)
    kept = room.kept
    room.run()

    assert (wait, held_up) == (1.0, (True, 2, 1))
    assert kept + room.kept == ["1", "2", "3"]
    assert (room.drain.is_held_up, room.dropped) == (False, {})


def test_close_counts_what_is_in_hand() -> None:
    """Markers are not counted; whoever waits for one goes on."""
    room, marker = Room(), Marker()
    room.drain._in_hand = [item(1), marker, item(2)]

    assert (room.drain.close(), room.drain.depth) == (2, 0)
    assert marker.done.is_set()


def test_enough_events_end_the_wait() -> None:
    """Who asks for small batches wants to see them at once."""
    room = Room(pace={"enough": 3})
    room.offer(1)
    room.bell.wait(0)
    room.drain.turn()

    room.offer(2)
    early = room.bell.wait(0)
    room.offer(3)

    assert (early, room.bell.wait(0)) == (False, True)


def test_release_lets_everybody_go() -> None:
    """It counts what is lost by it."""
    marker = Marker()

    assert release([item(1), marker, item(2)]) == 2
    assert marker.done.is_set()


@pytest.mark.parametrize("outcome", ["changed", "dropped", "raised"])
def test_a_hook_that_outlives_the_drain_counts_no_more(outcome: str) -> None:
    """What is in hand was counted when the drain was closed."""
    lost = []

    def hook(item: Item) -> Item | None:
        if not lost:
            lost.append(room.drain.close())
        if outcome == "raised":
            raise ValueError
        return item if outcome == "changed" else None

    room = Room(before_send=hook)
    room.offer(1, 2, 3)
    room.drain.turn()

    room.drain.turn()

    assert lost == [3]
    assert (room.kept, room.dropped, room.drain.depth) == ([], {}, 0)


def test_encoding_that_outlives_the_drain_counts_no_more() -> None:
    """Neither as spooled nor as unencodable."""

    def encode(item: Item, now: float) -> Any:
        room.drain.close()
        raise EncodeError("x")

    room = Room()
    room.drain._encode = encode
    room.offer(1, 2)
    room.drain.turn()

    room.drain.turn()

    assert (room.kept, room.dropped) == ([], {})


# -- exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_interrupted_turn_loses_nothing(at: int) -> None:
    """Whatever ends a slice in the middle, what is encoded is kept and the rest is tried again."""
    calls = 0

    def encode(item: Item, now: float) -> Any:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise SystemExit("the thread is killed")
        return record(item, now)

    room = Room()
    record = room.drain._encode
    room.drain._encode = encode
    room.offer(1, 2, 3, 4)
    room.drain.turn()

    with pytest.raises(SystemExit):
        room.drain.turn()
    in_between = room.spool.pending() + room.drain.depth
    room.run()

    assert in_between == 4
    assert room.kept == ["1", "2", "3", "4"]
    assert room.dropped == {}


def test_an_interrupted_marker_is_handed_on_later() -> None:
    """A flush is not forgotten because its marker met an exception."""
    room, fails = Room(), [True]

    def pass_on(marker: Marker) -> None:
        if fails.pop():
            fails.append(False)
            raise SystemExit
        fails.append(False)
        room.markers.append(marker)

    room.drain._on_marker = pass_on
    marker = Marker()
    room.offer(1)
    room.intake.mark(marker)

    with pytest.raises(SystemExit):
        room.drain.turn()
    room.run()

    assert room.markers == [marker]
    assert room.kept == ["1"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EncodeError("x"), "unencodable"),
        (TooLargeError("x"), "too_large"),
        (RecursionError(), "unencodable"),
    ],
)
def test_a_bad_event_costs_no_other(error: Exception, reason: str) -> None:
    """It is dropped, counted and told to `on_error`; its neighbours arrive."""

    def encode(item: Item, now: float) -> Any:
        if named(item)["idempotency_key"] == key(2):
            raise error
        return record(item, now)

    room = Room()
    record = room.drain._encode
    room.drain._encode = encode
    room.offer(1, 2, 3)

    room.run()

    assert room.kept == ["1", "3"]
    assert room.dropped == {reason: 1}
    assert room.errors == [("encode", error)]


# -- before_send ---------------------------------------------------------------------------------


def hooked(hook: Callable[[Item], Item | None]) -> Room:
    return Room(before_send=hook)


def test_hook_may_change_an_event() -> None:
    """What it returns is what is sent."""
    changed = take_event(SecurityEvent(event_type="e", reason="changed", idempotency_key=key(1)))
    room = hooked(lambda _: changed)
    room.offer(1)

    room.run()
    batch = room.spool.claim(1, 1 << 20, 0.0)

    assert batch is not None
    assert b'"reason":"changed"' in batch.bodies[0]


def test_hook_may_drop_an_event() -> None:
    """None drops it; that is counted and no error."""
    room = hooked(lambda item: None if named(item)["idempotency_key"] == key(2) else item)
    room.offer(1, 2, 3)

    room.run()

    assert room.kept == ["1", "3"]
    assert (room.dropped, room.errors) == ({"filtered": 1}, [])


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
def test_hook_that_raises_fails_closed(error: BaseException) -> None:
    """The event is dropped, never sent as it was; the others go on."""

    def hook(item: Item) -> Item:
        if named(item)["idempotency_key"] == key(2):
            raise error
        return item

    room = hooked(hook)
    room.offer(1, 2, 3)

    room.run()

    assert room.kept == ["1", "3"]
    assert room.dropped == {"hook_failed": 1}
    assert room.errors == [("before_send", error)]


def test_hook_is_not_heard() -> None:
    """Captures of the hook's are refused."""
    muted = []

    def hook(item: Item) -> Item:
        muted.append(threading.get_ident() in MUTED)
        return item

    room = hooked(hook)
    room.offer(1)
    room.run()

    assert muted == [True]
    assert threading.get_ident() not in MUTED


# -- waking: no interleaving loses a wake-up -----------------------------------------------------


def is_asleep_beside_work(room: Room, wait: float | None) -> bool:
    """Tell whether the drain would sleep for good although there is something to do."""
    return wait is None and bool(room.intake.queue) and not room.bell.wait(0)


def test_drain_overtakes_offer_at_any_bytecode() -> None:
    """Wherever a capture is preempted by the drain going to sleep, the drain is woken again."""
    stuck, steps, step = [], 1, 0
    while step < steps:
        room, waits = Room(), [None]
        room.run()
        sleep = once_at(step, lambda: waits.append(room.run()))  # noqa: B023
        steps = at_each_opcode([Intake.offer], sleep, lambda: room.offer(1))  # noqa: B023
        if is_asleep_beside_work(room, waits[-1]):
            stuck.append(step)
        step += 1

    assert steps > 20
    assert stuck == []


def test_offer_overtakes_drain_at_any_bytecode() -> None:
    """Wherever the drain is preempted on its way to sleep, a capture wakes it."""
    stuck, steps, step = [], 1, 0
    while step < steps:
        room, waits = Room(), []
        room.offer(0)
        room.drain.turn()
        capture = once_at(step, lambda: room.offer(1))  # noqa: B023
        functions = [Drain.turn, Intake.arm, Intake.take, Intake.relax]
        steps = at_each_opcode(functions, capture, lambda: waits.append(room.run()))  # noqa: B023
        if is_asleep_beside_work(room, waits[-1]):
            stuck.append(step)
        step += 1

    assert steps > 50
    assert stuck == []


def test_two_captures_and_the_drain_at_any_bytecode() -> None:
    """A capture overtaken by the drain and by another capture leaves nobody asleep."""
    stuck, steps, step = [], 1, 0
    while step < steps:
        room, waits = Room(), [None]
        room.run()

        def overtake() -> None:
            room.offer(2)  # noqa: B023
            if room.bell.wait(0):  # noqa: B023
                waits.append(room.run())  # noqa: B023

        steps = at_each_opcode([Intake.offer], once_at(step, overtake), lambda: room.offer(1))  # noqa: B023
        if is_asleep_beside_work(room, waits[-1]):
            stuck.append(step)
        step += 1

    assert stuck == []


def test_an_exception_at_any_bytecode_of_offer_silences_nothing() -> None:
    """A Ctrl-C in the middle of a capture does not keep the next one from waking the drain."""
    stuck, steps, step = [], 1, 0

    def interrupt() -> None:
        raise KeyboardInterrupt

    while step < steps:
        room = Room()
        room.run()
        try:
            offer = lambda: room.offer(1)  # noqa: B023, E731
            steps = at_each_opcode([Intake.offer], once_at(step, interrupt), offer)
        except KeyboardInterrupt:
            steps = step + 2
        room.offer(2)
        if not room.bell.wait(0):
            stuck.append(step)
        step += 1

    assert step > 20
    assert stuck == []


def test_captures_inside_captures() -> None:
    """A finalizer that captures at each bytecode of a capture is taken like any other."""
    room = Room()
    numbers = iter(range(1, 1_000))

    nested = at_each_opcode(
        [Intake.offer], lambda: room.offer(next(numbers)), lambda: room.offer("outer")
    )
    room.run()

    kept = room.kept
    assert nested > 20
    assert sorted(kept) == sorted([*(str(n) for n in range(1, nested + 1)), "outer"])


def test_a_busy_drain_is_not_rung_for_each_event() -> None:
    """While it lingers, captures ring only when half the queue is in use."""
    room = Room(capacity=10)
    room.offer(1)
    room.bell.wait(0)
    room.drain.turn()

    room.offer(2, 3, 4, 5)
    early = room.bell.wait(0)
    room.offer(6)
    half = room.bell.wait(0)

    assert (early, half) == (False, True)
