"""A spool against a plain model of it, through sequences nobody would think of."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from guardagent.spool import MemorySpool
from guardagent.spool.memory import WhenFull
from guardagent.spool.protocol import Batch
from tests.scripted import key, keys, record

MAX_RECORDS, MAX_BYTES = 12, 700


class Books(RuleBasedStateMachine):
    """Counts what goes in and what comes of it; the ledger equation must hold after each step."""

    when_full: WhenFull = "drop_oldest"

    def __init__(self) -> None:
        super().__init__()
        self.spool = MemorySpool(MAX_RECORDS, MAX_BYTES, when_full=self.when_full)
        self.held: list[Batch] = []
        self.appended: list[str] = []
        self.settled: set[str] = set()
        self.lost = 0
        self.clock = 0.0
        self.sizes: dict[str, int] = {}

    # -- what may happen -------------------------------------------------------------------------

    @rule(
        sizes=st.lists(st.integers(40, 150), min_size=1, max_size=6),
        kind=st.sampled_from(["events", "metrics"]),
        passes=st.floats(0.0, 2.0),
    )
    def append(self, sizes: list[int], kind: str, passes: float) -> None:
        self.clock += passes
        start = len(self.appended)
        given = [
            record(start + n, kind, created_at=self.clock, size=size)  # type: ignore[arg-type]
            for n, size in enumerate(sizes)
        ]
        self.appended += [key(start + n) for n in range(len(sizes))]
        self.sizes.update((key(start + n), size) for n, size in enumerate(sizes))
        self.lost += self.spool.append(given)

    @rule(limit=st.integers(1, 5), max_bytes=st.integers(1, 400))
    def claim(self, limit: int, max_bytes: int) -> None:
        batch = self.spool.claim(limit, max_bytes, self.clock)
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
        self.spool.ack(batch)
        self.settled.update(keys(batch.bodies))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        batch = self._pick(data)
        self.spool.bury(batch, "rejected")
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

    @rule(age=st.floats(0.0, 5.0))
    def expire(self, age: float) -> None:
        self.lost += self.spool.expire(self.clock - age)

    @precondition(lambda self: not self.held)
    @rule()
    def drain(self) -> None:
        ticket = self.spool.ticket()
        while (batch := self.spool.claim(4, 300, self.clock)) is not None:
            self.spool.ack(batch)
            self.settled.update(keys(batch.bodies))
        assert self.spool.pending() == 0
        assert self.spool.is_settled(ticket)

    # -- what must be true -----------------------------------------------------------------------

    @invariant()
    def the_ledger_balances(self) -> None:
        assert len(self.appended) == self.spool.pending() + len(self.settled) + self.lost

    @invariant()
    def the_bounds_hold(self) -> None:
        assert 0 <= self.spool.nbytes()
        if self.when_full != "grow":
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


class BooksOfNewest(Books):
    """The same with newcomers that give way."""

    when_full: WhenFull = "drop_newest"


class BooksWithoutLoss(Books):
    """The same with nobody giving way."""

    when_full: WhenFull = "grow"


# derandomize: the same sequences in every run; nothing is written beside the tests.
_SETTINGS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None
)

TestDropOldest = Books.TestCase
TestDropOldest.settings = _SETTINGS
TestDropNewest = BooksOfNewest.TestCase
TestDropNewest.settings = _SETTINGS
TestGrow = BooksWithoutLoss.TestCase
TestGrow.settings = _SETTINGS
