"""How much work it is to make a regular expression ready, told before any of it is done (pure).

Python looks up each character of a range in any case, one by one, and alternatives are compared
with each other to tell which may match the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["effort"]

_LATIN_1 = 0xFF
_BASIC_PLANE = 0xFFFF
#: For a set beyond Latin-1 a map of the whole plane is made, whatever is in it.
_MAP = 4096


def effort(tree: Iterable[Any]) -> int:
    """Return characters of ranges, pairs of alternatives, and nodes.

    Args:
        tree: as Python's own parser makes it.
    """
    found = 0
    for op, value in tree:
        name = str(op)
        found += 1
        if name == "IN":
            found += _of_set(value)
        elif name == "BRANCH":
            found += len(value[1]) ** 2 // 2
        found += sum(map(effort, _within(name, value)))
    return found


def _of_set(parts: Iterable[Any]) -> int:
    found, highest = 0, 0
    for op, value in parts:
        name = str(op)
        if name == "RANGE":
            low, high = value
            found += max(0, min(high, _BASIC_PLANE) - low + 1)
            highest = max(highest, high)
        elif name == "LITERAL":
            highest = max(highest, value)
    return found + (_MAP if highest > _LATIN_1 else 0)


def _within(name: str, value: Any) -> Iterable[Any]:
    """Return the trees within a node."""
    if name in ("SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return (value[-1],)
    if name in ("ASSERT", "ASSERT_NOT"):
        return (value[1],)
    if name == "ATOMIC_GROUP":
        return (value,)
    if name == "GROUPREF_EXISTS":
        return [tree for tree in value[1:] if tree]
    return tuple(value[1]) if name == "BRANCH" else ()
