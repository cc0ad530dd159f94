"""One field at a time: give a value its field's type, or refuse it by name."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from guardagent.errors import EventError
from guardagent.plain import as_datetime, describe, plain

__all__ = [
    "finite",
    "integer",
    "key",
    "mapping",
    "moment",
    "name",
    "one_of",
    "refusal",
    "seconds",
    "text",
]

_KEY = re.compile(r"[A-Za-z0-9_.:~+/-]{1,128}")


def refusal(field: str, value: object, allowed: str) -> EventError:
    """Say which field, what was given and what is allowed."""
    return EventError(f"{field}: given {describe(value)}, allowed: {allowed}")


def text(field: str, value: object, default: str | None) -> Any:
    """Return text; `default` for None."""
    if value is None:
        return default
    if isinstance(value, str):
        return str.__str__(value)
    if field == "ip_address" and type(value).__module__ == "ipaddress":
        return plain(value)
    raise refusal(field, value, "text" if default is not None else "text or None")


def name(field: str, value: object) -> str:
    """Return text that is not empty."""
    named = text(field, value, None)
    if not named:
        raise refusal(field, value, "a text that is not empty")
    return str(named)


def one_of(field: str, value: object, allowed: Collection[str]) -> str:
    """Return one of the allowed names."""
    if isinstance(value, str) and value in allowed:
        return str.__str__(value)
    raise refusal(field, value, "one of " + ", ".join(sorted(allowed)))


def integer(field: str, value: object) -> int | None:
    """Return an integer or None; a bool is neither."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__index__(value)
    raise refusal(field, value, "an integer or None")


def finite(field: str, value: object) -> float:
    """Return a finite number as float."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise refusal(field, value, "a finite number")


def seconds(field: str, value: object) -> float | None:
    """Return a number or None; NaN is let through here and becomes null when it is encoded."""
    if value is None or isinstance(value, float):
        return None if value is None else float.__float__(value)
    return finite(field, value)


def moment(field: str, value: object) -> dt.datetime:
    """Return a datetime from a datetime, ISO 8601 text or unix seconds."""
    try:
        return as_datetime(value)
    except ValueError:
        allowed = "a datetime, ISO 8601 text or unix seconds"
        raise refusal(field, value, allowed) from None


def mapping(field: str, value: object) -> dict[Any, Any]:
    """Return a dict of the same items; an empty one for None."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    raise refusal(field, value, "a mapping")


def key(field: str, value: object) -> str | bytes:
    """Return an idempotency key as text, or as the 16 bytes an event holds before it is sent."""
    if type(value) is bytes and len(value) == 16:
        return value
    written = plain(value)
    if isinstance(written, str) and _KEY.fullmatch(written):
        return written
    raise refusal(field, value, "a UUID, or 1 to 128 of the characters A-Z a-z 0-9 - _ . : ~ + /")
