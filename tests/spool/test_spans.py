"""Which records of a shared spool are this process's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent.errors import SpoolError
from guardagent.spool.spans import Spans
from tests.scripted import in_threads


class Kept:
    """A store's ids; `holds` is what spans ask."""

    def __init__(self, *ids: Any) -> None:
        self.ids = set(ids)
        self.asked: list[tuple[Any, Any]] = []

    def holds(self, _kind: str, first: Any, last: Any) -> bool:
        self.asked.append((first, last))
        return any(first <= one <= last for one in self.ids)


def test_nothing_is_settled_at_once() -> None:
    """Nobody is asked about it."""
    spans, kept = Spans(), Kept(1, 2, 3)

    assert spans.is_settled(spans.mark(), kept.holds)
    assert kept.asked == []


def test_a_mark_waits_for_what_came_before_it() -> None:
    """And for nothing that came after, though the ids follow each other."""
    spans, kept = Spans(), Kept(1, 2, 3, 4)
    spans.add({"events": (1, 2)})
    mark = spans.mark()
    spans.add({"events": (3, 4)})
    states = [spans.is_settled(mark, kept.holds)]

    kept.ids = {2, 3}
    states.append(spans.is_settled(mark, kept.holds))
    kept.ids = {3, 4}
    states.append(spans.is_settled(mark, kept.holds))

    assert states == [False, False, True]
    assert not spans.is_settled(spans.mark(), kept.holds)


def test_it_does_not_wait_for_what_others_put_between() -> None:
    """Where there is something at all, its own ids alone count."""
    spans, kept = Spans(), Kept(3, 4)
    spans.add({"events": (1, 2)})
    spans.add({"events": (5, 6)})

    assert spans.is_settled(spans.mark(), kept.holds)
    assert kept.asked == [(1, 6), (1, 2), (5, 6)]


def test_where_nothing_is_left_one_question_is_enough() -> None:
    """However many spans there are; and none afterwards."""
    spans, kept = Spans(), Kept(8)
    for n in (1, 3, 5):
        spans.add({"events": (n, n)})
    mark = spans.mark()
    spans.add({"events": (8, 8)})

    settled = [spans.is_settled(mark, kept.holds) for _ in range(2)]

    assert (settled, kept.asked) == ([True, True], [(1, 5)])


def test_both_kinds_are_waited_for() -> None:
    """Each by its own ids."""
    spans = Spans()
    spans.add({"events": (1, 2), "metrics": (1, 1)})

    def holds(kind: str, *_: Any) -> bool:
        return kind == "metrics"

    assert not spans.is_settled(spans.mark(), holds)


def test_what_is_settled_is_not_asked_for_again() -> None:
    """A flush looks many times; each span goes when nothing of it is left."""
    spans, kept = Spans(), Kept(9)
    for n in (1, 3, 5, 9):
        spans.add({"events": (n, n)})
    mark = spans.mark()

    spans.is_settled(mark, kept.holds)
    first, kept.asked = kept.asked, []
    spans.is_settled(mark, kept.holds)

    assert first == [(1, 9), (1, 1), (3, 3), (5, 5), (9, 9)]
    assert kept.asked == [(9, 9)]


def test_consecutive_spans_are_one() -> None:
    """A process that is alone asks one question, however many appends there were."""
    spans, kept = Spans(), Kept(999)
    for n in range(0, 1_000, 10):
        spans.add({"events": (n, n + 9)})

    assert not spans.is_settled(spans.mark(), kept.holds)
    assert kept.asked == [(0, 999)]


@pytest.mark.parametrize("of", [lambda n: n, lambda n: (n // 7, n)], ids=["numbers", "tuples"])
@pytest.mark.parametrize("count", [511, 512, 513, 2_001])
def test_many_spans_are_joined(of: Any, count: int) -> None:
    """Their number is bounded, and nothing of them is missed."""
    spans = Spans()
    for n in range(count):
        spans.add({"events": (of(3 * n), of(3 * n + 1))})
    mark = spans.mark()

    assert len(spans._spans["events"]) <= 512
    for n in (0, 1, count // 2, count - 1):
        assert not spans.is_settled(mark, Kept(of(3 * n + 1)).holds)
    assert spans.is_settled(mark, Kept(of(3 * count)).holds)


def test_late_spans_are_older_than_their_ids() -> None:
    """A mark that was made while they waited elsewhere waits for them."""
    spans, kept = Spans(), Kept(5, 6)
    since = spans.late
    mark = spans.mark()
    spans.add({"events": (1, 4)})

    spans.add_late({"events": (5, 6)}, since)
    states = [spans.is_settled(mark, kept.holds)]
    kept.ids = {1}
    states.append(spans.is_settled(mark, kept.holds))

    assert states == [False, True]


def test_a_mark_does_not_wait_for_later_late_spans() -> None:
    """What began to wait after it is not its business."""
    spans, kept = Spans(), Kept(1, 9)
    spans.add_late({"events": (1, 1)}, spans.late)
    mark = spans.mark()
    spans.add_late({"metrics": (2, 2)}, spans.late)
    spans.add_late({"events": (9, 9)}, spans.late)
    kept.ids = {9}

    assert spans.is_settled(mark, kept.holds)


def test_a_lost_store_is_waited_for_no_more() -> None:
    """Its ids mean nothing in the next one."""
    spans, kept = Spans(), Kept(1, 2)
    spans.add({"events": (1, 1)})
    spans.add_late({"events": (2, 2)}, 0)
    mark = spans.mark()

    spans.clear()

    assert spans.is_settled(mark, kept.holds)


def test_no_answer_changes_nothing() -> None:
    """The question can be asked again."""
    spans = Spans()
    spans.add({"events": (1, 1)})
    spans.add_late({"metrics": (1, 1)}, 0)
    mark = spans.mark()

    def fail(*_: Any) -> bool:
        raise SpoolError("away")

    with pytest.raises(SpoolError):
        spans.is_settled(mark, fail)

    assert not spans.is_settled(mark, Kept(1).holds)
    assert spans.is_settled(mark, Kept().holds)


def _is_settled_too_soon(spans: Spans) -> bool:
    mark = spans.mark()
    newest = Kept(mark.last.get("events"))
    return newest.ids != {None} and spans.is_settled(mark, newest.holds)


def test_one_adds_while_another_asks() -> None:
    """A mark is never settled before its records are, however the threads meet."""
    spans, total = Spans(), 4_000

    def work(number: int) -> bool:
        if number == 0:
            for n in range(total):
                spans.add({"events": (2 * n, 2 * n)})
            return True
        return not any(_is_settled_too_soon(spans) for _ in range(300))

    assert in_threads(2, work) == [True, True]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "skip", "mark", "settle"]), st.integers(1, 4)),
        max_size=40,
    )
)
def test_against_a_plain_list(steps: list[tuple[str, int]]) -> None:
    """A mark is settled exactly when none of the ids that were added before it is kept."""
    spans, kept, tail = Spans(), Kept(), 0
    added: list[int] = []
    marks: list[tuple[Any, list[int]]] = []
    for step, n in steps:
        if step == "add":
            new = list(range(tail + 1, tail + n + 1))
            spans.add({"events": (new[0], new[-1])})
            kept.ids.update(new)
            added += new
            tail += n
        elif step == "skip":
            kept.ids.update(range(tail + 1, tail + n + 1))  # another process's
            tail += n
        elif step == "mark":
            marks.append((spans.mark(), list(added)))
        else:
            kept.ids -= set(sorted(kept.ids)[:n])
        for mark, before in marks:
            assert spans.is_settled(mark, kept.holds) == (not kept.ids.intersection(before))
