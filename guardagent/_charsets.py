"""The characters that a part of a regular expression can match, as bits of a number (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["ALL", "NEWLINE", "characters", "union"]

#: One bit for each character of Latin-1, and four for the kinds of all others.
_OTHERS = {"letter": 1 << 256, "digit": 1 << 257, "space": 1 << 258, "rest": 1 << 259}
ALL = (1 << 260) - 1
NEWLINE = 1 << 10
_UPPER: int = sum(1 << code for code in (*range(0x41, 0x5B), *range(0xC0, 0xDF)))
_LOWER = _UPPER << 32


def union(masks: Iterable[int]) -> int:
    """Return the characters of all of them."""
    found = 0
    for mask in masks:
        found |= mask
    return found


def _bit(code: int) -> int:
    if code < 256:
        return 1 << code
    char = chr(code)
    kind = "digit" if char.isdecimal() else "letter" if char.isalnum() else "rest"
    return _OTHERS["space" if char.isspace() else kind]


def _both_cases(mask: int) -> int:
    return mask | (mask & _LOWER) >> 32 | (mask & _UPPER) << 32


_DIGIT = union(_bit(code) for code in range(256) if chr(code).isdecimal()) | _OTHERS["digit"]
_SPACE = union(_bit(code) for code in range(256) if chr(code).isspace()) | _OTHERS["space"]
_WORD = union(_bit(code) for code in range(256) if chr(code).isalnum() or code == 0x5F)
_WORD |= _OTHERS["letter"] | _OTHERS["digit"]
_CATEGORIES = {
    "CATEGORY_DIGIT": _DIGIT,
    "CATEGORY_NOT_DIGIT": ALL & ~_DIGIT,
    "CATEGORY_SPACE": _SPACE,
    "CATEGORY_NOT_SPACE": ALL & ~_SPACE,
    "CATEGORY_WORD": _WORD,
    "CATEGORY_NOT_WORD": ALL & ~_WORD,
}


def characters(name: str, value: Any) -> int:
    """Return what a node of that name for a single character matches, in any case."""
    if name == "ANY":
        return ALL
    if name == "LITERAL":
        return _both_cases(_bit(value))
    others = union(_OTHERS.values())
    if name == "NOT_LITERAL":
        return ALL & ~_both_cases(_bit(value)) | others
    found, is_negated, is_partial = 0, False, False
    for op, inner in value:
        kind = str(op)
        if kind == "NEGATE":
            is_negated = True
        elif kind == "LITERAL":
            found |= _bit(inner)
            is_partial |= inner > 255
        elif kind == "RANGE":
            low, high = inner
            is_partial |= high > 255
            found |= ((1 << min(high, 255) + 1) - (1 << low)) if low < 256 else 0
            found |= others if high > 255 else 0
        else:
            found |= _CATEGORIES[str(inner)]
    found = _both_cases(found)
    if is_negated:
        # Some character of a kind in the set does not mean that all others of it are.
        return ALL & ~found | (others if is_partial else 0)
    return found
