"""Single values of a rules document: read as laxly as by the backend's other agents (WIRE.md 7).

That is pydantic's lax mode, whose unwritten rules for numbers and times are kept on purpose: the
same document must mean the same in every agent.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from guardagent.plain import describe

__all__ = ["flag", "moment", "pairs", "positive", "refuse", "text", "texts", "whole"]

_WHOLE = re.compile(r"[ \t\n\r]*([+-]?[0-9]+(?:_[0-9]+)*)(?:\.0*)?[ \t\n\r]*", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt _]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))?)?",
    re.ASCII,
)
#: Characters of a text that may be a number or a time.
_LONGEST = 64
#: Larger numbers are milliseconds: as seconds they would be after the year 2600.
_MILLISECONDS_FROM = 20_000_000_000
_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("false", "0", "no", "off", "f", "n"), False),
}


def refuse(value: object, allowed: str) -> ValueError:
    """Return the error that says what was given, and what is allowed."""
    return ValueError(f"given {describe(value)}, allowed: {allowed}")


def text(value: Any, _type: Any = str) -> str:
    """Read a text; nothing else is taken for one."""
    if isinstance(value, str):
        return value
    raise refuse(value, "text")


def whole(value: Any, _type: Any = int) -> int:
    """Read a whole number: 20, "20", "20.0" or 20.0."""
    try:
        if isinstance(value, str):
            found = _WHOLE.fullmatch(value)
            if found is not None:
                return int(found[1])
        elif isinstance(value, int) or (
            isinstance(value, float) and value.is_integer() and abs(value) < 2**63
        ):
            return int(value)
    except ValueError:
        pass  # more digits than Python reads
    raise refuse(value, "a whole number")


def positive(value: Any, _type: Any = int) -> int | None:
    """Read a whole number from 1 on, or None."""
    number = None if value is None else whole(value)
    if number is not None and number < 1:
        raise refuse(value, "1 or more, or None")
    return number


def flag(value: Any, _type: Any = bool) -> bool:
    """Read true or false, 1 or 0, or one of the words for them."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise refuse(value, "true or false")


def moment(value: Any, _type: Any = dt.datetime) -> dt.datetime:
    """Read a time, in UTC: ISO 8601 text, unix seconds or milliseconds, or a datetime."""
    try:
        found = _instant(value)
        aware = found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)
        return aware.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise refuse(value, "ISO 8601 text or unix seconds") from None


def texts(value: Any, most: int) -> list[str]:
    """Read a list of at most so many texts."""
    if not isinstance(value, (list, tuple, set)):
        raise refuse(value, "a list of texts")
    if len(value) > most:
        raise ValueError(f"given {len(value)} entries, allowed: at most {most}")
    return [text(item) for item in value]


def pairs(value: Any, most: int) -> dict[str, tuple[int, int]]:
    """Read at most so many pairs of whole numbers from 1 on, by path."""
    if not isinstance(value, Mapping):
        raise refuse(value, "a mapping of path to [requests, window]")
    if len(value) > most:
        raise ValueError(f"given {len(value)} entries, allowed: at most {most}")
    return {text(path): _pair(pair) for path, pair in value.items()}


def _pair(value: Any) -> tuple[int, int]:
    if not (isinstance(value, (list, tuple)) and len(value) == 2):
        raise refuse(value, "a pair of whole numbers")
    first, second = whole(value[0]), whole(value[1])
    for number in (first, second):
        if number < 1:
            raise refuse(number, "a pair of whole numbers from 1 on")
    return first, second


def _instant(value: object) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST:
        return _from_number(float(value)) if _NUMBER.fullmatch(value) else _from_iso(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _from_number(value)
    raise ValueError("not a time")


def _from_number(seconds: float) -> dt.datetime:
    if abs(seconds) > _MILLISECONDS_FROM:
        seconds /= 1000
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)


def _from_iso(value: str) -> dt.datetime:
    """Read the one form all Pythons and the other agents agree on."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError("not a time")
    year, month, day, hour, minute, second, fraction, _zulu, sign, hours, minutes = found.groups()
    offset = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return dt.datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
        int((fraction or "0")[:6].ljust(6, "0")),
        tzinfo=dt.timezone(-offset if sign == "-" else offset),
    )  # fmt: skip
