"""The kinds of value the wire knows, each with the words that say what is allowed."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = [
    "COUNTS",
    "FALSE",
    "INTEGER",
    "KEY",
    "LIST",
    "NAME",
    "NUMBER",
    "OBJECT",
    "TEXT",
    "TEXTS",
    "TIME",
    "Kind",
    "one_of",
    "or_null",
    "shown",
]

_SHOWN_CHARACTERS = 60

#: WIRE.md 2: ISO 8601 with "T", or Python's `str(datetime)` with a space; a server takes both.
_TIME = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)(?:\.\d{1,9})?"
    r"(?:[Zz]|(?P<offset>[+-]\d\d:\d\d))?",
    re.ASCII,
)


@attrs.frozen
class Kind:
    """A set of JSON values.

    Args:
        allowed: names the set, for the sender.
        accepts: tells whether a value belongs to it.
    """

    allowed: str
    accepts: Callable[[Any], bool]


def or_null(kind: Kind) -> Kind:
    """Return `kind` with null added."""
    return Kind(f"{kind.allowed} or null", lambda value: value is None or kind.accepts(value))


def one_of(names: Collection[str]) -> Kind:
    """Return the kind made of these strings."""
    allowed = frozenset(names)
    return Kind(
        "one of " + ", ".join(sorted(allowed)),
        lambda value: isinstance(value, str) and value in allowed,
    )


def shown(value: object) -> str:
    """Show a JSON value in its own notation, shortened; a container by its size only."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return json.dumps(value[:_SHOWN_CHARACTERS]) + "..."
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return json.dumps(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()


def _is_time(value: Any) -> bool:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False
    try:
        # Without fraction and "Z": Python 3.10 reads neither all fractions nor "Z".
        dt.datetime.fromisoformat(f"{match['date']}T{match['clock']}{match['offset'] or ''}")
    except ValueError:
        return False
    return True


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_integer(n) and n >= 0 for n in value.values())


TEXT = Kind("a string", lambda value: isinstance(value, str))
NAME = Kind("a string that is not empty", lambda value: isinstance(value, str) and value != "")
KEY = Kind("a string of 1 to 128 printable characters", _is_key)
TIME = Kind("an ISO 8601 date and time", _is_time)
INTEGER = Kind("an integer", _is_integer)
NUMBER = Kind("a number", _is_number)
FALSE = Kind("false", lambda value: value is False)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
LIST = Kind("an array", lambda value: isinstance(value, list))
TEXTS = Kind("an array of strings", _is_texts)
COUNTS = Kind("an object of integers, none below 0", _is_counts)
