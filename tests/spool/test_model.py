"""Spools against a plain model of them, through sequences nobody would think of."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from guardagent.spool import MemorySpool, Spool
from guardagent.spool.frame import HEADER_BYTES
from guardagent.spool.protocol import Batch
from guardagent.testing.clock import ManualClock
from tests.scripted import key, keys, record, records
from tests.spool.homes import DURABLE, LARGE, LEASE, Agent, Home, home_of

MAX_RECORDS, MAX_BYTES = 12, 700


class Books(RuleBasedStateMachine):
    """Counts what goes in and what comes of it; the ledger equation must hold after each step.

    Of one process that nothing happens to, which is all there is to a spool in memory. Crashes,
    outages and other processes, and what they do to one that survives them, are the `Fleet`'s.
    """

    def __init__(self, spool: Spool, clock: ManualClock, *, is_bounded: bool) -> None:
        super().__init__()
        self.spool = spool
        self.clock = clock
        self.is_bounded = is_bounded
        self.held: list[Batch] = []
        self.appended: list[str] = []
        self.settled: set[str] = set()
        self.lost = 0

    # -- what may happen -------------------------------------------------------------------------

    @rule(
        sizes=st.lists(st.integers(40, 150), min_size=1, max_size=6),
        kind=st.sampled_from(["events", "metrics"]),
        passes=st.sampled_from([0.0, 0.5, 2.0]),
    )
    def append(self, sizes: list[int], kind: str, passes: float) -> None:
        self.clock.advance(passes)
        start = len(self.appended)
        given = [
            record(start + n, kind, created_at=self.clock.now(), size=size)  # type: ignore[arg-type]
            for n, size in enumerate(sizes)
        ]
        self.appended += [key(start + n) for n in range(len(sizes))]
        self.lost += self.spool.append(given)

    @rule(limit=st.integers(1, 5), max_bytes=st.integers(1, 400))
    def claim(self, limit: int, max_bytes: int) -> None:
        batch = self.spool.claim(limit, max_bytes, self.clock.now())
        if batch is None:
            assert self.spool.pending() == sum(map(len, self.held))
            return
        found = keys(batch.bodies)
        assert found == sorted(found), "the order of capture is kept"
        assert not self.settled.intersection(found), "what is settled never comes back"
        assert not {one for other in self.held for one in keys(other.bodies)}.intersection(found)
        self.held.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        batch = self._pick(data)
        assert self.spool.ack(batch) == len(batch)
        self.settled.update(keys(batch.bodies))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        batch = self._pick(data)
        assert self.spool.bury(batch, "rejected") == len(batch)
        self.settled.update(keys(batch.bodies))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        batch = self._pick(data)
        self.spool.release(batch)

    @precondition(lambda self: any(len(batch) > 1 for batch in self.held))
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from([one for one in self.held if len(one) > 1]))
        self.held.remove(batch)
        self.spool.split(batch)

    @rule(age=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def expire(self, age: float) -> None:
        self.lost += self.spool.expire(self.clock.now() - age)

    @precondition(lambda self: not self.held)
    @rule()
    def drain(self) -> None:
        ticket = self.spool.ticket()
        while (batch := self.spool.claim(4, 300, self.clock.now())) is not None:
            self.spool.ack(batch)
            self.settled.update(keys(batch.bodies))
        assert self.spool.pending() == 0
        assert self.spool.is_settled(ticket)

    # -- what must be true -----------------------------------------------------------------------

    @invariant()
    def the_ledger_balances(self) -> None:
        assert len(self.appended) == self.spool.pending() + len(self.settled) + self.lost
        assert self.spool.balance() == self.spool.pending()

    @invariant()
    def the_bounds_hold(self) -> None:
        assert 0 <= self.spool.nbytes()
        if self.is_bounded:
            assert self.spool.pending() <= MAX_RECORDS
            assert self.spool.nbytes() <= MAX_BYTES
        if not self.spool.pending():
            assert self.spool.nbytes() == 0
            assert self.spool.is_settled(self.spool.ticket())

    @invariant()
    def what_is_held_is_not_settled(self) -> None:
        if self.held:
            assert not self.spool.is_settled(self.spool.ticket())

    def _pick(self, data: st.DataObject) -> Batch:
        batch = data.draw(st.sampled_from(self.held))
        self.held.remove(batch)
        return batch


#: The same sequences in every run; nothing is written beside the tests.
_SETTINGS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None
)


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "grow"])
def test_the_books_of_a_spool_in_memory(when_full: Any) -> None:
    """Whoever gives way."""

    def begin() -> Books:
        spool = MemorySpool(MAX_RECORDS, MAX_BYTES, when_full=when_full)
        return Books(spool, ManualClock(), is_bounded=when_full != "grow")

    run_state_machine_as_test(begin, settings=_SETTINGS)


@pytest.fixture
def new_home(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Make places, one for each sequence; the former one is closed."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(kind: str) -> Home:
            stack.close()
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            server = request.getfixturevalue
            return stack.enter_context(home_of(kind, folder, lambda: server("redis_server")))

        yield make


@pytest.mark.parametrize("when_full", ["drop_oldest", "grow"])
@pytest.mark.parametrize("kind", DURABLE)
def test_the_books_of_a_durable_spool(
    new_home: Callable[[str], Home], kind: str, when_full: str
) -> None:
    """Of one process alone, which nothing happens to."""

    def begin() -> Books:
        home = new_home(kind)
        spool = home.spool(max_records=MAX_RECORDS, max_bytes=MAX_BYTES, when_full=when_full)
        return Books(spool, home.clock, is_bounded=when_full != "grow")

    run_state_machine_as_test(begin, settings=settings(_SETTINGS, max_examples=12))


@attrs.define(eq=False)
class Member:
    """One process and its books."""

    agent: Agent
    held: list[Batch] = attrs.field(factory=list)
    appended: int = 0
    settled: int = 0
    lost: int = 0

    @property
    def all_lost(self) -> int:
        return self.lost + sum(n for _, n in self.agent.lost)


_who = st.integers(0, 1)
_which = st.integers(0, 3)
SIZES, WAYS = [1, 100, LARGE], ["ack", "ack", "bury"]
_OPERATIONS = ["append", "claim", "settle", "bury", "renew", "give_back", "depth", "expire", "put"]
BOUND = 30


class Fleet(RuleBasedStateMachine):
    """Two processes share a place; each may lose touch with it, stand still, end, or be killed.

    A record may be delivered twice only if an answer of the store was lost, or a process could not
    keep its lease while it was sending: such records are noted as doubtful. It may be lost
    uncounted only if the store itself gave it up in an operation whose answer was lost.

    Args:
        is_calm: the store never fails; then none is doubtful, and every loss is counted to one.
    """

    def __init__(self, home: Home, *, is_calm: bool) -> None:
        super().__init__()
        self.home = home
        self.is_calm = is_calm
        self.members = [self._new_member() for _ in range(2)]
        self.former: list[Member] = []
        self.number = 0
        self.delivered: Counter[str] = Counter()
        self.doubtful: set[str] = set()
        self.died_in_memory = 0
        self.purged = self.purged_in_hand = 0
        self.is_in_doubt = False

    def _new_member(self) -> Member:
        return Member(self.home.agent(max_records=BOUND, shelter_records=20))

    # -- what may happen -------------------------------------------------------------------------

    @rule(who=_who, count=st.integers(1, 8), kind=st.sampled_from(["events", "metrics"]))
    def append(self, who: int, count: int, kind: Any) -> None:
        member = self.members[who]
        given = records(count, kind, start=self.number, created_at=self.home.clock.now())
        self.number += count
        lost = self._watched(
            member, keys(one.body for one in given), member.agent.spool.append, given
        )
        member.appended += count
        member.lost += lost

    @rule(who=_who, limit=st.integers(1, 5), max_bytes=st.sampled_from(SIZES))
    def claim(self, who: int, limit: int, max_bytes: int) -> None:
        member = self.members[who]
        batch = self._watched(
            member, [], member.agent.spool.claim, limit, max_bytes, self.home.clock.now()
        )
        if batch is None:
            return
        found = keys(batch.bodies)
        mine = {one for other in member.held for one in keys(other.bodies)}
        assert not mine.intersection(found) - self.doubtful
        others = {one for other in self.members[1 - who].held for one in keys(other.bodies)}
        assert not others.intersection(found) - self.doubtful, "two hold it at a time"
        assert not {one for one in found if self.delivered[one]} - self.doubtful
        member.held.append(batch)

    @rule(who=_who, which=_which, way=st.sampled_from(WAYS))
    def settle(self, who: int, which: int, way: str) -> None:
        member = self.members[who]
        if which < len(member.held):
            batch = member.held.pop(which)
            found = keys(batch.bodies)
            self.delivered.update(found)
            rest = () if way == "ack" else ("rejected",)
            done = getattr(member.agent.spool, way)
            member.settled += self._watched(member, found, done, batch, *rest)

    @rule(who=_who, which=_which, way=st.sampled_from(["release", "split"]))
    def keep(self, who: int, which: int, way: str) -> None:
        member = self.members[who]
        if which < len(member.held) and (way == "release" or len(member.held[which]) > 1):
            batch = member.held.pop(which)
            done = getattr(member.agent.spool, way)
            self._watched(member, keys(batch.bodies), done, batch)

    @rule(who=_who, age=st.sampled_from([1.0, 10.0, 60.0]))
    def expire(self, who: int, age: float) -> None:
        member = self.members[who]
        before = self.home.clock.now() - age
        member.lost += self._watched(member, [], member.agent.spool.expire, before)

    @precondition(lambda self: not self.is_calm)
    @rule(who=_who)
    def break_down(self, who: int) -> None:
        self.members[who].agent.store.break_down()

    @precondition(lambda self: not self.is_calm)
    @rule(who=_who)
    def mend(self, who: int) -> None:
        self.members[who].agent.store.mend()

    @precondition(lambda self: not self.is_calm)
    @rule(who=_who, name=st.sampled_from(_OPERATIONS), after=st.booleans())
    def fail(self, who: int, name: str, after: bool) -> None:
        self.members[who].agent.store.fail(name, after=after)

    @rule(seconds=st.sampled_from([0.1, 1.0, LEASE / 4]))
    def pass_time(self, seconds: float) -> None:
        self.home.pass_time(seconds)
        for member in self.members:
            self._watched(member, [], member.agent.spool.tend)
            self._watched(member, [], member.agent.spool.look)

    @rule(who=_who)
    def freeze(self, who: int) -> None:
        """Let one stand still for longer than its lease, in the middle of its requests."""
        frozen, other = self.members[who], self.members[1 - who]
        self.doubtful.update(one for batch in frozen.held for one in keys(batch.bodies))
        for _ in range(5):
            self.home.pass_time(LEASE / 4)
            self._watched(other, [], other.agent.spool.tend)

    @rule(count=st.integers(1, 4))
    def requeue(self, count: int) -> None:
        """Have an operator put dead letters back, as far as none would have to give way."""
        store = self.home.store()
        letters = store.dead(min(count, max(0, BOUND - store.depth().records)))
        if letters:
            assert store.requeue([letter.id for letter in letters]) == len(letters)
            self.delivered.subtract(keys(letter.frame[HEADER_BYTES:] for letter in letters))

    @rule()
    def purge(self) -> None:
        """Have an operator empty it; what somebody has in hand may be sent all the same."""
        holdings = [member.agent.spool._holding for member in self.members]
        self.purged_in_hand += sum(map(len, holdings))
        self.purged += self.home.store().purge()

    @rule(who=_who)
    def crash(self, who: int) -> None:
        member = self.members[who]
        self.died_in_memory += member.agent.spool.at_risk()
        member.agent.crash()
        self._replace(who)

    @rule(who=_who)
    def restart(self, who: int) -> None:
        member = self.members[who]
        member.lost += self._watched(member, [], member.agent.spool.close)
        self._replace(who)

    # -- what must be true -----------------------------------------------------------------------

    @invariant()
    def every_ledger_balances(self) -> None:
        for member in self.members:
            balance = member.agent.spool.balance()
            assert member.appended == member.settled + member.all_lost + balance

    @invariant()
    def what_is_durable_is_not_at_risk(self) -> None:
        for member in self.members:
            spool = member.agent.spool
            assert not (spool.durable and spool.at_risk())
            assert spool.at_risk() == spool._shelter.pending()

    def teardown(self) -> None:
        """Let all recover and one of them deliver what is left."""
        for who, member in enumerate(self.members):
            member.agent.store.mend()
            self.home.clock.advance(6.0)
            self._watched(member, [], member.agent.spool.tend)
            assert member.agent.spool.durable or member.held
            member.lost += member.agent.spool.close()
            self._replace(who)
        self.home.pass_time(LEASE + 1)
        last = self.members[0].agent.spool
        while (batch := last.claim(100, LARGE, self.home.clock.now())) is not None:
            self.delivered.update(keys(batch.bodies))
            last.ack(batch)
        assert self.home.store().depth().records == 0
        self._judge()

    def _judge(self) -> None:
        issued = {key(n) for n in range(self.number)}
        lost = sum(one.all_lost for one in (*self.former, *self.members)) + self.died_in_memory
        unheard = sum(one.agent.store.unheard for one in (*self.former, *self.members))
        repeated = {one for one, n in self.delivered.items() if n > 1}
        missing = issued - (+self.delivered).keys()
        assert self.delivered.keys() <= issued
        assert repeated <= self.doubtful, "delivered twice for no reason"
        assert len(missing) <= lost + self.purged + unheard, "lost and not counted"
        assert not (self.is_calm and self.is_in_doubt)
        if not self.is_in_doubt:
            assert len(missing) >= lost + self.purged - self.purged_in_hand

    def _replace(self, who: int) -> None:
        self.former.append(self.members[who])
        self.members[who] = self._new_member()

    def _watched(
        self, member: Member, concerned: list[str], work: Callable[..., Any], *given: Any
    ) -> Any:
        """Do it; what it concerns is in doubt if the store failed, or was away already."""
        errors = len(member.agent.errors)
        result = work(*given)
        if len(member.agent.errors) > errors or not member.agent.spool.durable:
            self.is_in_doubt = True
            self.doubtful.update(concerned)
            self.doubtful.update(one for batch in member.held for one in keys(batch.bodies))
            held = member.agent.spool._holding._all()
            self.doubtful.update(one for batch in held for one in keys(batch.bodies))
        return result


@pytest.mark.slow
@pytest.mark.parametrize("is_calm", [True, False], ids=["calm", "stormy"])
@pytest.mark.parametrize("kind", DURABLE)
def test_a_fleet(new_home: Callable[[str], Home], kind: str, is_calm: bool) -> None:
    """Whatever happens, in whatever order."""
    run_state_machine_as_test(
        lambda: Fleet(new_home(kind), is_calm=is_calm),
        settings=settings(_SETTINGS, max_examples=15 if is_calm else 30),
    )


def walk(fleet: Fleet, rng: random.Random, steps: int) -> None:
    """Take many steps, in which a spool gets fuller and older than in hypothesis's few."""

    def who() -> int:
        return rng.randrange(2)

    def kind() -> str:
        return rng.choice(["events", "metrics"])

    moves: list[tuple[float, Callable[[], Any]]] = [
        (5, lambda: fleet.append(who=who(), count=rng.randrange(1, 9), kind=kind())),
        (7, lambda: fleet.claim(who=who(), limit=rng.randrange(1, 6), max_bytes=rng.choice(SIZES))),
        (5, lambda: fleet.settle(who=who(), which=rng.randrange(3), way=rng.choice(WAYS))),
        (1, lambda: fleet.keep(who=who(), which=rng.randrange(3), way="release")),
        (1, lambda: fleet.keep(who=who(), which=rng.randrange(3), way="split")),
        (0.3, lambda: fleet.expire(who=who(), age=rng.choice([1.0, 10.0, 60.0]))),
        (4, lambda: fleet.pass_time(seconds=rng.choice([0.1, 1.0, LEASE / 4]))),
        (0.3, lambda: fleet.crash(who=who())),
        (0.3, lambda: fleet.restart(who=who())),
        (0.5, lambda: fleet.freeze(who=who())),
        (0.3, lambda: fleet.requeue(count=rng.randrange(1, 5))),
        (0.1, lambda: fleet.purge()),
    ]
    if not fleet.is_calm:
        moves += [
            (0.5, lambda: fleet.break_down(who=who())),
            (1.5, lambda: fleet.mend(who=who())),
            (
                1,
                lambda: fleet.fail(
                    who=who(), name=rng.choice(_OPERATIONS), after=rng.random() < 0.5
                ),
            ),
        ]
    for move in rng.choices([one for _, one in moves], [weight for weight, _ in moves], k=steps):
        move()
        fleet.every_ledger_balances()
        fleet.what_is_durable_is_not_at_risk()
    fleet.teardown()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_calm", [True, False], ids=["calm", "stormy"])
@pytest.mark.parametrize("kind", DURABLE)
def test_a_long_walk(new_home: Callable[[str], Home], kind: str, is_calm: bool, seed: int) -> None:
    """The same fleet through hundreds of steps."""
    walk(Fleet(new_home(kind), is_calm=is_calm), random.Random(seed), 400)
