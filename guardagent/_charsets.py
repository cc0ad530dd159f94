"""The characters that a part of a regular expression can match, as bits of a number (pure).

What is told is never too little: whether two parts might match the same character decides whether
an expression is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["ALL", "LETTERS", "NEWLINE", "characters", "union"]

NEWLINE = 1 << 10
#: Characters that `re.IGNORECASE` links, beside the pairs of Latin-1: the groups that reach beyond
#: it, and the one group whose members are of different kinds. The test of this module compares
#: them with what the running Python links, for every character there is.
_LINKED: tuple[str, ...] = (
    "iI\u0130\u0131",
    "kK\u212a",
    "sS\u017f",
    "\xb5\u039c\u03bc",
    "\xe5\xc5\u212b",
)
_LINKED += ("\xdf\u1e9e", "\xff\u0178", "\u0399\u03b9\u0345\u1fbe")
#: Those beyond Latin-1 have bits of their own, behind one for each character of Latin-1.
_APART = {
    char: 1 << 256 + place
    for place, char in enumerate(sorted(char for char in "".join(_LINKED) if char > "\xff"))
}
#: All others share one for each kind.
_KINDS = {
    kind: 1 << 256 + len(_APART) + place
    for place, kind in enumerate(("letter", "digit", "space", "rest"))
}
_OTHERS = sum(_KINDS.values())
ALL = (1 << 256 + len(_APART) + len(_KINDS)) - 1

_SINGLE = {chr(code): 1 << code for code in range(256)} | _APART


def union(masks: Iterable[int]) -> int:
    """Return the characters of all of them."""
    found = 0
    for mask in masks:
        found |= mask
    return found


def _bit(char: str) -> int:
    return _SINGLE.get(char) or _KINDS[_kind(char)]


def _kind(char: str) -> str:
    if char.isspace():
        return "space"
    return "digit" if char.isdecimal() else "letter" if char.isalnum() else "rest"


def _of_kinds(*kinds: str) -> int:
    single = union(bit for char, bit in _SINGLE.items() if _kind(char) in kinds)
    return single | union(_KINDS[kind] for kind in kinds)


#: As numbers: with those of an enumeration all of this takes twice as long.
_IGNORECASE, _ASCII_ONLY = int(re.IGNORECASE), int(re.ASCII)
_ASCII = (1 << 128) - 1
LETTERS = _of_kinds("letter")
_DIGIT, _SPACE = _of_kinds("digit"), _of_kinds("space")
_WORD = _of_kinds("letter", "digit") | _SINGLE["_"]
#: With `re.ASCII` \x1c to \x1f are no spaces.
_ASCII_SPACE = union(_SINGLE[char] for char in " \t\n\r\f\v")
_CATEGORIES = {
    "DIGIT": (_DIGIT, _DIGIT & _ASCII),
    "SPACE": (_SPACE, _ASCII_SPACE),
    "WORD": (_WORD, _WORD & _ASCII),
}

_UPPER = union(1 << code for code in (*range(0x41, 0x5B), *range(0xC0, 0xD7), *range(0xD8, 0xDF)))
_GROUPS = [union(map(_bit, group)) for group in _LINKED]


def _in_any_case(mask: int, flags: int) -> int:
    """Return a set with all that its characters are linked with."""
    if not flags & _IGNORECASE:
        return mask
    upper = _UPPER & _ASCII if flags & _ASCII_ONLY else _UPPER
    mask |= (mask & upper) << 32 | (mask & upper << 32) >> 32
    if not flags & _ASCII_ONLY:
        mask |= union(group for group in _GROUPS if mask & group)
    return mask


def characters(name: str, value: Any, flags: int) -> int:
    """Return what a node of that name for a single character matches, under these flags."""
    if name == "LITERAL":
        return _in_any_case(_bit(chr(value)), flags)
    if name == "NOT_LITERAL":
        return ALL & ~_in_any_case(_SINGLE.get(chr(value), 0), flags)
    # A kind of which some are in the set is in it, and in its complement too.
    some, whole, named, is_negated = 0, 0, 0, False
    for op, inner in value:
        kind = str(op)
        if kind == "CATEGORY":
            named |= _category(str(inner), flags)
        elif kind == "NEGATE":
            is_negated = True
        elif kind == "LITERAL":
            some |= _bit(chr(inner))
            whole |= _SINGLE.get(chr(inner), 0)
        else:
            single = _range(*inner)
            whole |= single
            some |= single | (_OTHERS if inner[1] > 255 else 0)
    if is_negated:
        return ALL & ~(_in_any_case(whole, flags) | named)
    return _in_any_case(some, flags) | named


def _range(low: int, high: int) -> int:
    """Return those characters of a range that have bits of their own."""
    latin = (1 << min(high, 255) + 1) - (1 << low) if low < 256 else 0
    return latin | union(bit for char, bit in _APART.items() if low <= ord(char) <= high)


def _category(name: str, flags: int) -> int:
    r"""Return what `\w` and the like match, which is closed under case as it is."""
    kind = name.removeprefix("CATEGORY_")
    found = _CATEGORIES[kind.removeprefix("NOT_")][bool(flags & _ASCII_ONLY)]
    return ALL & ~found if kind.startswith("NOT_") else found
