"""How many steps a regular expression takes at most on the worst text of a given length (pure).

Python's engine backtracks, holds the interpreter while it does, and cannot be interrupted. So the
time is bounded beforehand, from the parsed expression: each loop that can be left at several
points, where what follows it might match as well, multiplies the ways to try. Loops of loops that
can share a text in several ways are exponential.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from guardagent._charsets import NEWLINE, union
from guardagent._regextree import (
    Back,
    Branch,
    Char,
    Edge,
    Guard,
    Lead,
    Node,
    Plain,
    Repeat,
    Run,
    edge_before,
    period,
)

__all__ = ["steps"]

#: The search itself takes so many steps for each character of the text.
_SCAN = 3.0
#: A loop over more than a single character takes so many steps for each, and two for each node.
_GROUP = 12.0
#: Beginning a loop takes so many, comparing a single character, and telling the place in the text.
_ENTRY = 5.0
_COMPARED = 2.0
_PLACED = 6.0
#: Loops of fewer turns end close to where they begin.
_FEW = 8


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


def steps(expression: Run, length: int) -> float:
    """Estimate the steps of a search through a text; infinity: beyond all count.

    Args:
        expression: what is searched for.
        length: characters of the text.
    """
    return _through(
        expression, _Flow(total=length + 1.0, work=_SCAN * length), Edge(), length, is_whole=True
    ).work


def _through(run: Run, flow: _Flow, follow: Edge, length: int, *, is_whole: bool = False) -> _Flow:
    """Pass nodes one after the other; `follow` is what can come after them."""
    ahead = [attrs.evolve(follow, lead=())]
    for node in reversed(run.nodes):
        ahead.append(edge_before(node, ahead[-1]))
    end = _end(run.nodes) if is_whole else len(run.nodes)
    for index, node in enumerate(run.nodes):
        after = ahead[-2 - index]
        if isinstance(node, Repeat):
            is_end = index >= end
            flow = _repeat(node, flow, after, length, is_end=is_end)
        else:
            flow = _pass(node, flow, after, length)
        places = flow.peak * (length / run.periods[index] + 1)
        if places < flow.total:
            flow = attrs.evolve(flow, total=places)
    return flow


def _end(nodes: Sequence[Node]) -> int:
    """Return where the last loops begin: behind them is nothing that could fail."""
    end = len(nodes)
    for node in reversed(nodes):
        if not isinstance(node, Repeat):
            break
        end -= 1
        if node.least:
            break
    return end


def _pass(node: Plain, flow: _Flow, follow: Edge, length: int) -> _Flow:
    match node:
        case Char():
            return attrs.evolve(flow, work=flow.work + flow.total * _COMPARED, before=node.chars)
        case Branch():
            return _branch(node, flow, follow, length)
        case Guard():
            # Once it has matched it is left for good: the ways within it are tried, but not kept.
            inner = _through(node.body, attrs.evolve(flow, work=0.0), Edge(), length)
            peak = flow.peak if node.is_assertion else flow.total
            return attrs.evolve(flow, work=flow.work + inner.work, peak=peak, before=None)
        case Back():
            work = flow.work + flow.total * length
            return attrs.evolve(flow, work=work, peak=flow.total, before=None)
    total = min(flow.total, flow.peak) if node.is_start else flow.total
    before = NEWLINE if node.is_line else flow.before
    work = flow.work + flow.total * _PLACED
    return attrs.evolve(flow, total=total, work=work, before=before)


def _repeat(node: Repeat, flow: _Flow, after: Edge, length: int, *, is_end: bool) -> _Flow:
    body, least, width = node.body, node.least, node.width
    alone = body.edge().first
    count = float(max(min(node.most, length // max(1, width)), least))
    turn = _through(body, _Flow(), attrs.evolve(after, first=alone | after.first), length)
    if least:
        before: int | None = body.chars
    else:
        before = None if flow.before is None else flow.before | body.chars
    if turn.total > 1:  # several ways for one text
        return _explode(flow, _power(turn.total, count), turn.work, before)
    step = _step(node, length)
    if is_end:
        needed = least * step + (turn.work if least and node.is_grouped else 0.0)
        return attrs.evolve(flow, work=flow.work + flow.total * (_ENTRY + needed), before=before)
    # Behind a character it cannot hold itself, a loop begins at one place for each of its ends.
    is_anchored = flow.before is not None and not flow.before & body.chars
    reach = min(count * max(1, width), length)
    scans = min(flow.total * reach, flow.peak * length if is_anchored else math.inf)
    if not node.is_possessive:
        step += after.steps  # it is left at each of its ends, in vain at least
    # One that reaches far from each start reaches half as far on average.
    order = flow.loops + 1 if reach > length / 2 else 1
    work = flow.work + flow.total * _ENTRY + scans * step / order
    if node.is_grouped:  # and its last turn fails, wherever that is
        work += (flow.peak if is_anchored else flow.total) * turn.work
    is_vague = least != count and bool(after.first & alone or not width) and not node.is_possessive
    if not is_vague:
        peak = flow.peak if is_anchored else min(flow.total, flow.peak * count)
        return attrs.evolve(flow, work=work, peak=peak, before=before)
    return _leave(
        flow, work, count - least + 1, after.lead, length, before, is_anchored=is_anchored
    )


def _step(node: Repeat, length: int) -> float:
    """Return the steps that one turn of a loop takes."""
    if node.is_grouped:
        return _GROUP + 2.0 * (node.body.size + node.body.looks * length)
    char = node.body.nodes[0]
    return char.steps if isinstance(char, Char) else _GROUP


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
        ways = flow.total * ends
        return _Flow(ways, flow.peak * ends, work + ways * _COMPARED, flow.loops, before)
    loops = flow.loops + (ends >= length / 4)
    order = loops if loops > flow.loops and not is_anchored else 1
    ways = flow.total * ends / order
    if is_anchored:
        ways = min(ways, flow.peak * length)
    apart = period(lead)
    places = length / apart + 1
    passing = ways / apart + flow.total if lead else ways
    peak = flow.peak if is_anchored else min(flow.total, flow.peak * ends)
    return _Flow(min(passing, peak * places), peak, work + ways, loops, before)


def _branch(node: Branch, flow: _Flow, follow: Edge, length: int) -> _Flow:
    entered = attrs.evolve(flow, work=0.0)
    left = [_through(part, entered, follow, length) for part in node.parts]
    shared = [[left[index] for index in rivals] for rivals in node.rivals(follow)]
    known = [out.before for out in left if out.before is not None]
    return _Flow(
        total=max(sum(out.total for out in group) for group in shared),
        # Alternatives of different lengths that begin at different places may end at one.
        peak=sum(out.peak for out in left),
        work=flow.work + sum(out.work + flow.total for out in left),
        loops=max(out.loops for out in left),
        before=union(known) if len(known) == len(left) else None,
    )


def _power(ways: float, count: float) -> float:
    try:
        return math.pow(ways, count)
    except OverflowError:
        return math.inf
