"""A regular expression as nodes of few kinds, and what each of them can begin with (pure).

Made once from what Python's own parser returns; all that does not depend on the length of a text
is found out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from guardagent._charsets import ALL, LETTERS, NEWLINE, characters, union

__all__ = [
    "Back",
    "Branch",
    "Char",
    "Edge",
    "Guard",
    "Lead",
    "Mark",
    "Node",
    "Plain",
    "Repeat",
    "Run",
    "edge_before",
    "period",
    "read",
]

_SINGLE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
_GUARDS = frozenset({"ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"})
_TYPES = int(re.ASCII | re.UNICODE | re.LOCALE)
_IGNORECASE, _DOTALL = int(re.IGNORECASE), int(re.DOTALL)
#: How many characters that must come first are looked at.
_LEAD = 16
#: Groups within groups that are looked into.
_DEEPEST = 20
#: Steps of a loop over ".", over one other character or set, and over a set with letters: where
#: case does not matter, each is looked up in a table first.
_ANY, _SET, _SLOW_SET = 1.0, 1.5, 6.0
#: Steps of comparing a character or a place, of beginning a loop or an alternative, and a group.
_COMPARED, _PLACED, _ENTRY, _GROUP = 2.0, 6.0, 5.0, 20.0
#: Stands for what follows a part, where the part may be empty.
_WHAT_FOLLOWS = ALL + 1

Lead = tuple[int, ...]


@attrs.frozen
class Edge:
    """How what comes next can begin.

    Args:
        first: what the first character can be.
        lead: the characters that must come first.
        steps: what it takes when the first character is another.
    """

    first: int = 0
    lead: Lead = ()
    steps: float = 0.0


@attrs.frozen(eq=False)
class Run:
    """Nodes one after the other.

    Args:
        periods: for each of the nodes the least distance of two places at which it is left.
        chars: every character it can hold.
        size: how many nodes it has, those within them included.
        looks: how many of them look at text that is not theirs.
    """

    nodes: tuple[Node, ...]
    periods: tuple[int, ...]
    chars: int
    size: int
    looks: int
    _edge: Edge

    def edge(self, follow: Edge = Edge()) -> Edge:
        """Return how it begins, `follow` being what can come behind it."""
        own = self._edge
        if own.first & _WHAT_FOLLOWS:
            return Edge(own.first & ALL | follow.first, own.lead, own.steps + follow.steps)
        return own


@attrs.frozen(eq=False)
class Char:
    """One character; `steps` is what a loop takes for each."""

    chars: int
    steps: float


@attrs.frozen(eq=False)
class Repeat:
    """A loop; `width` is the least length of a turn."""

    body: Run
    least: int
    most: int
    width: int
    is_possessive: bool
    is_grouped: bool


@attrs.define(eq=False)
class Branch:
    """Alternatives."""

    parts: Sequence[Run]
    _rivals: dict[int, list[list[int]]] = attrs.field(factory=dict, init=False)

    def rivals(self, follow: Edge) -> list[list[int]]:
        """Return for each alternative those that may match the same text, itself among them."""
        if follow.first not in self._rivals:
            edges = [part.edge(follow) for part in self.parts]
            found: list[list[int]] = [[index] for index in range(len(edges))]
            for index, one in enumerate(edges):
                for other in range(index):
                    if one.first & edges[other].first and _may_share(one.lead, edges[other].lead):
                        found[index].append(other)
                        found[other].append(index)
            self._rivals[follow.first] = found
        return self._rivals[follow.first]


@attrs.frozen(eq=False)
class Guard:
    """A part that is left for good once it has matched; an assertion takes no text."""

    body: Run
    is_assertion: bool


@attrs.frozen(eq=False)
class Back:
    """What a group has matched, once more."""


@attrs.frozen(eq=False)
class Mark:
    """A place in the text: its start, that of a line, the end of it or of a line, or any other."""

    is_start: bool
    is_line: bool
    is_end: bool


Plain = Char | Branch | Guard | Back | Mark
Node = Plain | Repeat


def read(tree: Any) -> Run:
    """Return the expression that Python's parser made this of.

    Raises:
        ValueError: it is nested too deeply, or has a part that is not known here.
    """
    return _read(tree, int(tree.state.flags), 0)


def edge_before(node: Node, follow: Edge) -> Edge:
    """Return how a node begins that has this behind it."""
    match node:
        case Char():
            return Edge(node.chars, (node.chars, *follow.lead[: _LEAD - 1]), _COMPARED)
        case Repeat():
            body = node.body.edge()
            steps = body.steps + (_GROUP if node.is_grouped else _ENTRY)
            if node.least and node.width:
                follow = Edge(lead=body.lead)
            else:
                follow = attrs.evolve(follow, lead=())
            return Edge(body.first | follow.first, follow.lead, steps + follow.steps)
        case Branch():
            edges = [part.edge(follow) for part in node.parts]
            leads = zip(*(edge.lead for edge in edges), strict=False)
            steps = sum(_ENTRY + edge.steps for edge in edges)
            return Edge(union(edge.first for edge in edges), tuple(map(union, leads)), steps)
        case Mark():
            first = NEWLINE if node.is_end else follow.first
            return Edge(first, follow.lead, _PLACED + follow.steps)
        case Guard(is_assertion=True):
            return attrs.evolve(follow, steps=_GROUP + node.body.edge().steps + follow.steps)
    return Edge(ALL, (), _GROUP)


def period(chars: Lead) -> int:
    """Return the least distance at which two texts with these characters can begin."""
    for shift in range(1, len(chars)):
        if all(a & b for a, b in zip(chars, chars[shift:], strict=False)):
            return shift
    return max(1, len(chars))


def _may_share(one: Lead, other: Lead) -> bool:
    return all(a & b for a, b in zip(one, other, strict=False))


def _read(tree: Iterable[Any], flags: int, depth: int) -> Run:
    if depth > _DEEPEST:
        raise ValueError(f"a regular expression not nested deeper than {_DEEPEST} levels")
    nodes = tuple(_nodes(tree, flags, depth))
    edge = Edge(_WHAT_FOLLOWS)
    for node in reversed(nodes):
        edge = edge_before(node, edge)
    return Run(
        nodes,
        tuple(_periods(nodes)),
        union(map(_chars, nodes)),
        sum(1 + sum(run.size for run in _within(node)) for node in nodes),
        sum(_looks(node) + sum(run.looks for run in _within(node)) for node in nodes),
        edge,
    )


def _periods(nodes: Iterable[Node]) -> Iterator[int]:
    recent: Lead = ()
    for node in nodes:
        if isinstance(node, Char):
            recent = (*recent, node.chars)[-_LEAD:]
        elif not isinstance(node, Mark):
            recent = ()
        yield period(recent)


def _nodes(tree: Iterable[Any], flags: int, depth: int) -> Iterator[Node]:
    """Yield the nodes of a sequence, with those of its plain groups in their place."""
    for op, value in tree:
        name = str(op)
        if name == "SUBPATTERN":
            _, added, taken, inner = value
            kept = flags & ~_TYPES if added & _TYPES else flags
            yield from _nodes(inner, (kept | added) & ~taken, depth)
        elif name in _SINGLE:
            yield _char(name, value, flags)
        elif name in _REPEATS:
            yield _repeat(name, value, flags, depth)
        else:
            yield _node(name, value, flags, depth)


def _char(name: str, value: Any, flags: int) -> Char:
    if name == "ANY":
        return Char(ALL if flags & _DOTALL else ALL & ~NEWLINE, _ANY)
    steps = _SET
    if name == "IN":
        words = any("WORD" in str(inner) for _, inner in value)
        plain = [(op, inner) for op, inner in value if str(op) in ("LITERAL", "RANGE")]
        if words or (flags & _IGNORECASE and characters(name, plain, 0) & LETTERS):
            steps = _SLOW_SET
    return Char(characters(name, value, flags), steps)


def _repeat(name: str, value: Any, flags: int, depth: int) -> Repeat:
    least, most, inner = value
    return Repeat(
        body=_read(inner, flags, depth + 1),
        least=int(least),
        most=int(most),
        width=inner.getwidth()[0],
        is_possessive=name == "POSSESSIVE_REPEAT",
        is_grouped=not (len(inner) == 1 and str(inner[0][0]) in _SINGLE),
    )


def _node(name: str, value: Any, flags: int, depth: int) -> Node:
    if name == "BRANCH":
        return Branch([_read(part, flags, depth + 1) for part in value[1]])
    if name == "GROUPREF_EXISTS":
        return Branch([_read(part or (), flags, depth + 1) for part in value[1:]])
    if name in _GUARDS:
        inner = value if name == "ATOMIC_GROUP" else value[1]
        return Guard(_read(inner, flags, depth + 1), is_assertion=name != "ATOMIC_GROUP")
    if name == "GROUPREF":
        return Back()
    if name in ("AT", "FAILURE"):
        place = str(value)
        return Mark(
            is_start=place == "AT_BEGINNING_STRING",
            is_line=place == "AT_BEGINNING",
            is_end=place.startswith("AT_END"),
        )
    raise ValueError(f"a regular expression without {name}")


def _within(node: Node) -> Sequence[Run]:
    match node:
        case Repeat(body=body) | Guard(body=body):
            return (body,)
        case Branch(parts=parts):
            return parts
    return ()


def _chars(node: Node) -> int:
    """Return every character that a node can hold."""
    match node:
        case Char(chars=chars):
            return chars
        case Repeat() | Branch():
            return union(run.chars for run in _within(node))
        case Mark() | Guard(is_assertion=True):
            return 0
    return ALL


def _looks(node: Node) -> int:
    return isinstance(node, Back) or (isinstance(node, Guard) and node.is_assertion)
