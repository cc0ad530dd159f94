"""Single values: what each becomes in JSON, and that no code of its own class runs for it."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import math
import numbers
import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent.plain import as_datetime, describe, plain, wire_time

UTC = dt.timezone.utc
PLUS_TWO = dt.timezone(dt.timedelta(hours=2))
quickly = settings(max_examples=100, deadline=None, database=None)


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Mode(enum.Flag):
    READ = 1


class Stranger:
    """A class that nobody here knows."""


class Money:
    """Registered as a number, as numpy's scalars are."""

    def __init__(self, amount: Any) -> None:
        self._amount = amount

    def __int__(self) -> int:
        return self._convert(int)

    def __float__(self) -> float:
        return self._convert(float)

    def _convert(self, kind: Callable[[Any], Any]) -> Any:
        if isinstance(self._amount, BaseException):
            raise self._amount
        return kind(self._amount)


class Whole(Money):
    pass


numbers.Real.register(Money)
numbers.Integral.register(Whole)


# -------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (dt.datetime(2026, 11, 22, 17, 10, 38, 828369, UTC), "2026-11-22T17:10:38.828369+00:00"),
        (dt.datetime(2026, 11, 22, 17, 10, 38, 0, UTC), "2026-11-22T17:10:38.000000+00:00"),
        (dt.datetime(2026, 11, 22, 19, 10, 38, 5, PLUS_TWO), "2026-11-22T17:10:38.000005+00:00"),
        (dt.datetime(2026, 11, 22, 17, 10), "2026-11-22T17:10:00.000000+00:00"),  # noqa: DTZ001
        (dt.datetime(1, 2, 3, tzinfo=UTC), "0001-02-03T00:00:00.000000+00:00"),
    ],
)
def test_times_are_utc_with_six_decimals(moment: dt.datetime, written: str) -> None:
    """Every time has one form: RFC 3339, UTC, microseconds; a naive one is taken as UTC."""
    assert wire_time(moment) == written


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-22T17:10:38Z", 0),
        ("2026-11-22T17:10:38z", 0),
        (" 2026-11-22T17:10:38.828369+00:00\n", 828369),
        ("2026-11-22 17:10:38.828369+00:00", 828369),
        ("2026-11-22T19:10:38+02:00", 0),
    ],
)
def test_times_are_read_from_text(text: str, microseconds: int) -> None:
    """ISO 8601 is read with T or a space, with Z or an offset."""
    expected = dt.datetime(2026, 11, 22, 17, 10, 38, microseconds, UTC)

    assert as_datetime(text) == expected


@pytest.mark.parametrize("seconds", [1795367438, 1795367438.5, -1, 0])
def test_times_are_read_from_unix_seconds(seconds: float) -> None:
    """Numbers are unix seconds, in UTC."""
    moment = as_datetime(seconds)

    assert moment.tzinfo is UTC
    assert moment.timestamp() == seconds


def test_a_time_stays_what_it_is() -> None:
    """A datetime is returned as it is."""
    moment = dt.datetime(2026, 11, 22, tzinfo=PLUS_TWO)

    assert as_datetime(moment) is moment


@pytest.mark.parametrize(
    "value",
    [
        "", "Z", "yesterday", "2026-13-01T00:00:00Z", None, True, b"2026-11-22", math.nan, math.inf,
        1e18, -1e18, 10**400, dt.date(2026, 11, 22), [], Stranger(),
    ],
    ids=describe,
)  # fmt: skip
def test_what_is_no_time_is_refused(value: object) -> None:
    """Anything else is a ValueError, numbers beyond the calendar included."""
    with pytest.raises(ValueError):
        as_datetime(value)


# -------------------------------------------------------------------------------------- description


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("abc", "'abc' (str)"),
        (5, "5 (int)"),
        (True, "True (bool)"),
        (1.5, "1.5 (float)"),
        (math.nan, "nan (float)"),
        (None, "None"),
        (10**30, "<builtins.int>"),
        (-(10**30), "<builtins.int>"),
        (b"abc", "<builtins.bytes>"),
        (OrderedDict(), "<collections.OrderedDict>"),
        (Stranger(), f"<{__name__}.Stranger>"),
    ],
)
def test_description_of_what_was_given(value: object, said: str) -> None:
    """Plain values are shown with their type, all others by their type alone."""
    assert describe(value) == said


@pytest.mark.parametrize(
    "text",
    ["x" * 1000, "\x00" * 1000, "\U000e0001" * 1000, "\ud800" * 99],
    ids=["long", "control", "tag", "surrogate"],
)
def test_descriptions_are_short_and_printable(text: str) -> None:
    """However long a text is, and whatever is in it, its description fits into a log line."""
    said = describe(text)

    assert len(said) <= 60
    assert said.isprintable()


# ------------------------------------------------------------------------------------- plain values


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text", "text"),
        (None, None),
        (True, True),
        (7, 7),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**1024 - 1, str(2**1024 - 1)),
        (2**1024, "<integer of 1025 bits>"),
        (1.5, 1.5),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (b"bytes", "bytes"),
        (b"\xff\x00a", "\ufffd\x00a"),
        (bytearray(b"abc"), "abc"),
        (memoryview(b"abc"), "abc"),
        (memoryview(b"abcdef")[::2], "ace"),
        (dt.datetime(2026, 11, 22, 17, 10, tzinfo=UTC), "2026-11-22T17:10:00.000000+00:00"),
        (dt.date(2026, 11, 22), "2026-11-22"),
        (dt.time(17, 10), "17:10:00"),
        (dt.timedelta(minutes=1, milliseconds=500), 60.5),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Mode.READ, 1),
        (Decimal("1.10"), "1.10"),
        (Decimal("NaN"), "NaN"),
        (Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (range(3), "range(0, 3)"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        (ipaddress.ip_address("2001:db8::1"), "2001:db8::1"),
        (ipaddress.ip_network("192.0.2.0/24"), "192.0.2.0/24"),
        (ipaddress.ip_network("2001:db8::/32"), "2001:db8::/32"),
        (PurePosixPath("/etc/hosts"), "/etc/hosts"),
        (PureWindowsPath("C:/x"), "C:\\x"),
        (ValueError("broken", 5), "ValueError: broken"),
        (KeyError(), "KeyError"),
        (OSError(2, "No such file"), "FileNotFoundError: No such file"),
        (Stranger(), f"<{__name__}.Stranger>"),
        (Stranger, f"<{__name__}.Stranger>"),
        (int, "<builtins.int>"),
        (object(), "<builtins.object>"),
        (len, "<builtins.builtin_function_or_method>"),
        (OrderedDict(), "<collections.OrderedDict>"),
        (Whole(7), 7),
        (Whole(2**70), str(2**70)),
        (Money(1.5), 1.5),
        (Money(math.nan), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_has_a_plain_form(value: object, sent: object) -> None:
    """Each kind of value becomes the JSON value that says the same, or the name of its class."""
    got = plain(value)

    assert got == sent
    assert type(got) is type(sent)


@pytest.mark.parametrize(
    "error", [ValueError("no"), OverflowError("no"), KeyboardInterrupt(), SystemExit(3)]
)
@pytest.mark.parametrize("kind", [Whole, Money])
def test_a_number_that_cannot_be_converted_is_named(
    kind: type[Money], error: BaseException
) -> None:
    """A foreign number whose conversion raises, whatever it raises, is sent as its type."""
    assert plain(kind(error)) == f"<{__name__}.{kind.__name__}>"


class Unruly(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise RuntimeError("no such zone")


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1))),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime(2026, 11, 22, tzinfo=Unruly()),
        dt.time(17, 10, tzinfo=Unruly()),
        Fraction(10**5000, 3),
        range(10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_written_is_named(value: object) -> None:
    """A value of a known class that fails all the same costs itself only."""
    kind = type(value)

    assert plain(value) == f"<{kind.__module__}.{kind.__qualname__}>"


def test_a_released_buffer_is_named() -> None:
    """A memoryview whose memory is gone is sent as its type."""
    buffer = memoryview(b"abc")
    buffer.release()

    assert plain(buffer) == "<builtins.memoryview>"


@quickly
@given(
    st.text() | st.binary() | st.integers() | st.floats() | st.datetimes() | st.complex_numbers()
)
def test_plain_values_are_plain(value: object) -> None:
    """The result is always of an exact JSON type, in range."""
    got = plain(value)

    assert type(got) in (str, int, float, bool, type(None))
    assert type(got) is not float or math.isfinite(got)
    assert type(got) is not int or -(2**63) <= got < 2**63


# ----------------------------------------------------------------------------- nothing foreign runs

#: What a class may override and a careless encoder would call.
METHODS = (
    "__str__", "__repr__", "__format__", "__iter__", "__len__", "__bool__", "__int__", "__index__",
    "__float__", "__bytes__", "__getitem__", "__contains__", "__eq__", "__lt__", "__getattr__",
    "__getattribute__", "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__", "__json__",
    "__fspath__", "__iadd__", "__add__", "decode", "encode", "hex", "tobytes", "items",
    "keys", "lower", "strip", "isoformat", "total_seconds", "astimezone", "utcoffset", "replace",
)  # fmt: skip


def tripwire(base: type, calls: list[str]) -> type:
    """A subclass of `base` that notes each call of a method that it has no reason to be called."""

    def noting(name: str) -> Any:
        def method(*_args: object, **_kwargs: object) -> Any:
            calls.append(name)
            raise RuntimeError(name)

        return method

    body: dict[str, Any] = {name: noting(name) for name in METHODS}
    body |= {name: property(noting(name)) for name in ("args", "tzinfo", "year", "value", "name")}
    body["__hash__"] = base.__hash__
    return type("Tripwire", (base,), body)


@pytest.mark.parametrize(
    ("base", "given", "sent"),
    [
        (str, ("text",), "text"),
        (int, (7,), 7),
        (float, (1.5,), 1.5),
        (bytes, (b"abc",), "abc"),
        (bytearray, (b"abc",), "abc"),
        (dt.datetime, (2026, 11, 22, 17, 10, 38, 5, UTC), "2026-11-22T17:10:38.000005+00:00"),
        (dt.date, (2026, 11, 22), "2026-11-22"),
        (dt.time, (17, 10), "17:10:00"),
        (dt.timedelta, (1,), 86400.0),
        (ValueError, ("broken",), "Tripwire: broken"),
        (object, (), f"<{__name__}.Tripwire>"),
        (list, ((1,),), f"<{__name__}.Tripwire>"),
    ],
)
def test_no_code_of_a_foreign_class_runs(base: type, given: tuple[Any, ...], sent: object) -> None:
    """A value's own methods and properties are not asked, also where it extends a known class."""
    calls: list[str] = []
    value = tripwire(base, calls)(*given)

    got = plain(value)
    describe(value)

    assert calls == []
    assert got == sent
    assert type(got) is type(sent)
