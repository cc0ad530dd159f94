"""What is told of the characters that a part of an expression matches, against the engine."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent._charsets import characters
from guardagent._regextree import read

if sys.version_info >= (3, 11):
    from re import _parser
else:
    import sre_parse as _parser


def told(source: str) -> int:
    """Return the characters of an expression that matches a single one."""
    return read(_parser.parse(source, re.IGNORECASE)).chars


def bit(char: str) -> int:
    return characters("LITERAL", ord(char), 0)


#: Every character that has more than one case, in some sense.
CASED = "".join(
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if not {char} >= {char.lower(), char.upper(), char.title(), char.casefold()}
)


def test_every_case_the_engine_knows_is_told() -> None:
    """For each character with cases, and all those that it matches."""
    missed = [
        (char, other)
        for char in CASED
        for other in re.findall(re.escape(char), CASED, re.IGNORECASE)
        if not told(re.escape(char)) & bit(other)
    ]

    assert len(CASED) > 2_000
    assert missed == []


_MEMBERS = ["a", "k", "K", "\u212a", "s", "\u017f", "\xe9", "\u0345", "\u03bc", "\u0416", "1", "_"]
_MEMBERS += [
    "a-z",
    "@-Z",
    "\x00-\x7f",
    "\xa0-\xb8",
    "\u0100-\u0200",
    "\u0300-\uffff",
    "0-9",
    "\xd7",
]
_MEMBERS += [
    r"\w",
    r"\W",
    r"\d",
    r"\D",
    r"\s",
    r"\S",
    "\u0661",
    "\U0001f600",
    "\U00010000-\U0010ffff",
]
_SAMPLE = (
    "".join(map(chr, range(256))) + "\u212a\u212b\u017f\u0130\u0131\u0178\u1e9e\u0345\u03b9\u1fbe"
)
_SAMPLE += (
    "\u039c\u03bc\u0416\u0436\u0661\u2028\u2003\u0300\u20ac\u4e00\U0001f600\U00010400\U00010428"
)


@given(
    st.lists(st.sampled_from(_MEMBERS), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["", "a:", "-i:", "a-i:"]),
)
def test_a_set_is_never_too_small(members: list[str], is_negated: bool, flags: str) -> None:
    """Whatever is in it, under any flags: what it matches, it is told to match."""
    source = f"(?{flags or ':'}[{'^' * is_negated}{''.join(members)}])"
    matched = re.findall(source, _SAMPLE, re.IGNORECASE)

    assert [char for char in matched if not told(source) & bit(char)] == []


@pytest.mark.parametrize(
    "source", ["a", "k", "\xe9", "\u0416", r"\w", r"\s", r"\d", "[a-z]", "[^k]"]
)
def test_a_set_is_hardly_too_large(source: str) -> None:
    """In Latin-1 it is exact."""
    latin = [char for char in map(chr, range(256)) if told(source) & bit(char)]

    assert latin == [char for char in map(chr, range(256)) if re.match(source, char, re.IGNORECASE)]
