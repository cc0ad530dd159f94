"""How many steps a regular expression takes at most on the worst text of a given length (pure).

Python's engine backtracks, holds the interpreter while it does, and cannot be interrupted. So the
time is bounded beforehand, from the parsed expression: each loop that can be left at several
points, where what follows it might match as well, multiplies the ways to try. Loops of loops that
can share a text in several ways are exponential.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from guardagent._charsets import ALL, NEWLINE, characters, union

__all__ = ["steps"]

_SINGLE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
#: How many characters that must come next are looked at.
_LEAD = 16
#: Groups within groups that are looked into.
_DEEPEST = 20
#: A loop over more than a single character takes so many steps for each, and two for each node.
_GROUP = 12.0
#: So does one over a character or set other than ".", which is compared in any case.
_SET = 2.5
#: Loops of fewer turns end close to where they begin.
_FEW = 8

Node = tuple[Any, Any]
Lead = tuple[int, ...]


@attrs.frozen
class _Flow:
    """The ways to arrive at a point of the expression, of all starts together.

    Args:
        total: how many there are.
        peak: how many at most for one position of the text.
        work: steps so far.
        loops: long ones so far that can end anywhere, the search's own included.
        before: what the last character can be; None when that is not known.
    """

    total: float = 1.0
    peak: float = 1.0
    work: float = 0.0
    loops: int = 1
    before: int | None = None


def steps(tree: Iterable[Node], length: int) -> float:
    """Estimate the steps of a search through a text; infinity: beyond all count.

    Args:
        tree: as Python's own parser makes it.
        length: characters of the text.

    Raises:
        ValueError: it is nested too deeply, or has a part that is not known here.
    """
    items = _flat(tree)
    _, lead = _edge(items)
    is_anchored = items[:1] and str(items[0][1]) == "AT_BEGINNING_STRING"
    starts = 1.0 if is_anchored else length / _period(lead) + 1
    return _through(items, _Flow(total=starts, work=2.0 * length), 0, length, 0).work


def _flat(tree: Iterable[Node]) -> list[Node]:
    """Return the nodes of a sequence, with those of its plain groups in their place."""
    found: list[Node] = []
    for op, value in tree:
        if str(op) == "SUBPATTERN":
            found += _flat(value[-1])
        else:
            found.append((op, value))
    return found


def _through(items: Sequence[Node], flow: _Flow, follow: int, length: int, depth: int) -> _Flow:
    """Pass a sequence; `follow` is what can come after it."""
    if depth > _DEEPEST:
        raise ValueError(f"not nested deeper than {_DEEPEST} levels")
    ahead: list[tuple[int, Lead]] = [(follow, ())]
    for item in reversed(items):
        ahead.append(_edge_before(item, *ahead[-1]))
    for index, (op, value) in enumerate(items):
        after = ahead[-2 - index]
        name = str(op)
        if name in _REPEATS:
            is_end = depth == 0 and index == len(items) - 1
            flow = _repeat(name, value, flow, after, length, depth, is_end=is_end)
        else:
            flow = _pass(name, value, flow, after, length, depth)
    return flow


def _pass(
    name: str, value: Any, flow: _Flow, after: tuple[int, Lead], length: int, depth: int
) -> _Flow:
    if name in _SINGLE:
        return attrs.evolve(flow, work=flow.work + flow.total, before=characters(name, value))
    if name == "BRANCH":
        return _branch(value[1], flow, after, length, depth)
    if name == "GROUPREF_EXISTS":
        return _branch([value[1], value[2] or ()], flow, after, length, depth)
    if name in ("ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"):
        # Once it has matched it is left for good: the ways within it are tried, but not kept.
        tree = value if name == "ATOMIC_GROUP" else value[1]
        inner = _through(_flat(tree), attrs.evolve(flow, work=0.0), 0, length, depth + 1)
        return attrs.evolve(flow, work=flow.work + inner.work, before=None)
    if name == "GROUPREF":
        return attrs.evolve(flow, work=flow.work + flow.total * length, before=None)
    if name in ("AT", "FAILURE"):
        return attrs.evolve(flow, work=flow.work + flow.total)
    raise ValueError(f"without {name}")


def _repeat(
    name: str, value: Any, flow: _Flow, after: tuple[int, Lead], length: int, depth: int,
    *, is_end: bool,
) -> _Flow:  # fmt: skip
    least, most, items = int(value[0]), int(value[1]), _flat(value[2])
    alone, _ = _edge(items)
    width = value[2].getwidth()[0]
    count = float(max(min(most, length // max(1, width)), least))
    body = _through(items, _Flow(), alone | after[0], length, depth + 1)
    chars = _chars(items)
    if least:
        before: int | None = chars
    else:
        before = None if flow.before is None else flow.before | chars
    # Behind a character it cannot hold itself, a loop begins at one place for each of its ends.
    is_anchored = flow.before is not None and not flow.before & chars
    if body.total > 1:  # several ways for one text
        return _explode(flow, _power(body.total, count), body.work, before)
    step = _GROUP + 2.0 * _size(items, length)
    if len(value[2]) == 1 and str(value[2][0][0]) in _SINGLE:  # not even in a group
        step = 1.0 if str(value[2][0][0]) == "ANY" else _SET
    if is_end:
        return attrs.evolve(flow, work=flow.work + flow.total * least * step, before=before)
    reach = min(count * max(1, width), length)
    scans = min(flow.total * reach, flow.peak * length if is_anchored else math.inf)
    work = flow.work + scans * step / (flow.loops + 1)
    is_vague = least != most and bool(after[0] & alone or not width) and name[0] != "P"
    if not is_vague or count == least:
        peak = flow.peak if is_anchored else min(flow.total, flow.peak * count)
        return attrs.evolve(flow, work=work, peak=peak, before=before)
    return _leave(flow, work, count - least + 1, after[1], length, before, is_anchored=is_anchored)


def _explode(flow: _Flow, ways: float, work: float, before: int | None) -> _Flow:
    return _Flow(
        flow.total * ways,
        flow.peak * ways,
        flow.work + flow.total * ways * work,
        flow.loops,
        before,
    )


def _leave(
    flow: _Flow, work: float, ends: float, lead: Lead, length: int, before: int | None,
    *, is_anchored: bool,
) -> _Flow:  # fmt: skip
    """Leave a loop at each of its ends where what must come next might come."""
    if ends <= _FEW:
        return _Flow(flow.total * ends, flow.peak * ends, work, flow.loops, before)
    loops = flow.loops + (ends >= length / 4)
    order = loops if loops > flow.loops and not is_anchored else 1
    ways = flow.total * ends / order
    if is_anchored:
        ways = min(ways, flow.peak * length)
    places = length / _period(lead) + 1 if lead else length
    passing = ways / _period(lead) + flow.total if lead else ways
    peak = flow.peak if is_anchored else min(flow.total, flow.peak * ends)
    return _Flow(min(passing, peak * places), peak, work + ways, loops, before)


def _branch(
    trees: Sequence[Any], flow: _Flow, after: tuple[int, Lead], length: int, depth: int
) -> _Flow:
    parts = [_flat(tree) for tree in trees]
    edges = [_edge(part, after[0]) for part in parts]
    entered = attrs.evolve(flow, work=0.0)
    left = [_through(part, entered, after[0], length, depth + 1) for part in parts]
    shared = [
        [b for b, other in zip(left, edges, strict=True) if b is a or _may_share(edge, other)]
        for a, edge in zip(left, edges, strict=True)
    ]
    known = [out.before for out in left if out.before is not None]
    return _Flow(
        total=max(sum(out.total for out in group) for group in shared),
        peak=max(sum(out.peak for out in group) for group in shared),
        work=flow.work + sum(out.work + flow.total for out in left),
        loops=max(out.loops for out in left),
        before=union(known) if len(known) == len(left) else None,
    )


def _may_share(one: tuple[int, Lead], other: tuple[int, Lead]) -> bool:
    """Tell whether a text might match both."""
    if not (one[1] and other[1]):
        return bool(one[0] & other[0])
    return all(a & b for a, b in zip(one[1], other[1], strict=False))


def _edge(items: Sequence[Node], first: int = 0) -> tuple[int, Lead]:
    """Return what the first character can be, and the characters that must come first."""
    lead: Lead = ()
    for item in reversed(items):
        first, lead = _edge_before(item, first, lead)
    return first, lead


def _edge_before(item: Node, first: int, lead: Lead) -> tuple[int, Lead]:
    name, value = str(item[0]), item[1]
    if name in _SINGLE:
        mask = characters(name, value)
        return mask, (mask, *lead[: _LEAD - 1])
    if name in _REPEATS:
        inner, needed = _edge(_flat(value[2]))
        if value[0] and value[2].getwidth()[0]:
            return inner, needed
        return first | inner, ()
    if name == "BRANCH":
        edges = [_edge(_flat(tree), first) for tree in value[1]]
        needed = tuple(map(union, zip(*(edge[1] for edge in edges), strict=False)))
        return union(edge[0] for edge in edges), needed
    if name in ("AT", "ASSERT", "ASSERT_NOT"):
        return (NEWLINE if str(value).startswith("AT_END") else first), lead
    return ALL, ()


def _chars(items: Iterable[Node]) -> int:
    """Return every character that a part can hold."""
    found = 0
    for op, value in items:
        name = str(op)
        if name in _SINGLE:
            found |= characters(name, value)
        elif name in _REPEATS:
            found |= _chars(_flat(value[2]))
        elif name == "BRANCH":
            found |= union(_chars(_flat(tree)) for tree in value[1])
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            return ALL
    return found


def _size(items: Iterable[Node], length: int) -> int:
    """Return how many nodes a part has; one that compares with earlier text counts for more."""
    found = 0
    for op, value in items:
        name = str(op)
        found += length if name == "GROUPREF" else 1
        if name in _REPEATS:
            found += _size(_flat(value[2]), length)
        elif name == "BRANCH":
            found += sum(_size(_flat(tree), length) for tree in value[1])
        elif name in ("ASSERT", "ASSERT_NOT"):
            found += length
    return found


def _period(lead: Sequence[int]) -> int:
    """Return the least distance at which two texts with these characters can begin."""
    for shift in range(1, len(lead)):
        if all(a & b for a, b in zip(lead, lead[shift:], strict=False)):
            return shift
    return max(1, len(lead))


def _power(ways: float, count: float) -> float:
    try:
        return math.pow(ways, count)
    except OverflowError:
        return math.inf
