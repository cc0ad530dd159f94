"""How a single Python value becomes a JSON one, without running code of the value's own class."""

from __future__ import annotations

import datetime as dt
import math
import numbers
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import cattrs

__all__ = [
    "INT_MAX",
    "INT_MIN",
    "PLAIN_TYPES",
    "as_datetime",
    "converter",
    "describe",
    "plain",
    "wire_time",
]

#: What JSON has itself and cannot be changed by anybody else.
PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})

#: Characters of a text that may be a number or a time.
_NUMBER_KEPT = 64
#: Bytes looked at of a binary value; texts are cut much earlier than this.
_BYTES_KEPT = 2**16
_FRACTION = re.compile(r"[.,]([0-9]+)")
#: Integers that every JSON reader takes (the bounds of orjson and of SQL's BIGINT).
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

#: Classes of the standard library whose own `__str__` is short, pure and says it all. Named, so
#: that none of their modules is imported for it.
_SPEAKING = frozenset(
    {
        "decimal.Decimal",
        "fractions.Fraction",
        "builtins.complex",
        "builtins.range",
        "ipaddress.IPv4Address",
        "ipaddress.IPv4Network",
        "ipaddress.IPv6Address",
        "ipaddress.IPv6Network",
        "pathlib.PurePath",
        "pathlib._local.PurePath",
        "uuid.UUID",
    }
)

#: The package's cattrs converter: hooks below for single values, in `encoding` for events.
converter = cattrs.Converter()


def wire_time(moment: dt.datetime) -> str:
    """Write RFC 3339 in UTC with six decimals; a naive time is taken as UTC (FIELD Z2)."""
    zone = dt.datetime.tzinfo.__get__(moment)
    if zone is None:
        moment = dt.datetime.replace(moment, tzinfo=dt.timezone.utc)
    elif zone is not dt.timezone.utc:
        moment = dt.datetime.astimezone(moment, dt.timezone.utc)
    return dt.datetime.isoformat(moment, timespec="microseconds")


def as_datetime(value: object) -> dt.datetime:
    """Read a time from a datetime, an ISO 8601 text or unix seconds.

    Raises:
        ValueError: it is none of them, or out of range.
    """
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, str):
        if len(value) > _NUMBER_KEPT:
            raise ValueError("too long for a time")
        return _from_iso(value.strip())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return dt.datetime.fromtimestamp(value, dt.timezone.utc)
        except (OverflowError, OSError) as error:
            raise ValueError("out of range") from error
    raise ValueError("not a time")


def _from_iso(text: str) -> dt.datetime:
    """Read ISO 8601 as 3.11 does: with "Z", and with any number of decimals (3.10: 3 or 6)."""
    text = text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text
    fraction = _FRACTION.search(text)
    if fraction is not None:
        digits = fraction[1][:6].ljust(6, "0")
        text = f"{text[: fraction.start()]}.{digits}{text[fraction.end() :]}"
    return dt.datetime.fromisoformat(text)


def describe(value: object) -> str:
    """Say what was given, in at most 60 characters and without calling a foreign `__repr__`."""
    kind = type(value)
    if kind in PLAIN_TYPES and not (kind is int and abs(value) > INT_MAX):  # type: ignore[arg-type]
        text = repr(value[:40] if isinstance(value, str) else value)[:48]
        return text if value is None else f"{text} ({kind.__name__})"
    return _type_name(kind)[:60]


def plain(value: object) -> Any:
    """Return a JSON scalar for `value`; for a class nobody here knows, its name in `<>`.

    Neither `__str__`, `__repr__`, `__iter__` nor a property of a foreign class is called: a lazy
    object in an event must not start a query (FIELD N4).
    """
    kind = type(value)
    if kind in PLAIN_TYPES and kind is not int and kind is not float:
        return value
    for base in kind.__mro__:
        try:
            if base in _HOOKS:
                return converter.unstructure(value, unstructure_as=base)
            if f"{base.__module__}.{base.__qualname__}" in _SPEAKING:
                return base.__str__(value)  # type: ignore[call-arg]
        except Exception:  # out of range, or a tzinfo of the application's that raises
            return _type_name(kind)
    return _number(value, kind)


def _type_name(kind: type) -> str:
    return f"<{kind.__module__}.{kind.__qualname__}>"[:200]


def _number(value: Any, kind: type) -> Any:
    # numpy's scalars and the like: registered as numbers, so converting them is what they are for.
    try:
        if issubclass(kind, numbers.Integral):
            return _integer(int(value))
        if issubclass(kind, numbers.Real):
            return _real(float(value))
    except BaseException:  # a foreign __int__ may raise anything; its type is still worth sending
        return _type_name(kind)
    return _type_name(kind)


def _integer(value: int) -> int | str:
    value = int.__index__(value)
    if INT_MIN <= value <= INT_MAX:
        return value
    bits = value.bit_length()
    return str(value) if bits <= 1024 else f"<integer of {bits} bits>"


def _real(value: float) -> float | None:
    value = float.__float__(value)
    return value if math.isfinite(value) else None


def _bytes(value: bytes | bytearray | memoryview) -> str:
    with memoryview(value) as view:  # unlike `bytes`, it calls no method of a subclass
        return view[:_BYTES_KEPT].tobytes().decode("utf-8", "replace")


def _exception(value: BaseException) -> str:
    args = BaseException.args.__get__(value)  # type: ignore[attr-defined]
    words = [str.__str__(arg) for arg in args if issubclass(type(arg), str)]
    return ": ".join([type(value).__qualname__, *words])


_HOOKS: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    str: str.__str__,
    int: _integer,
    float: _real,
    Enum: lambda member: plain(member._value_),
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    dt.datetime: wire_time,
    dt.date: dt.date.isoformat,
    dt.time: dt.time.isoformat,
    dt.timedelta: dt.timedelta.total_seconds,
    BaseException: _exception,
    type: _type_name,
}
for _kind, _hook in _HOOKS.items():
    converter.register_unstructure_hook(_kind, _hook)
