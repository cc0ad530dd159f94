"""Values that no event should hold."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import io
import itertools
import math
import threading
import types
import uuid
from collections.abc import Iterator, Mapping
from typing import Any


class Explosive:
    """Raises whatever one asks of it."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        raise RuntimeError("len")


class Exiting:
    """Tries to end the process when it is written down."""

    def __repr__(self) -> str:
        raise SystemExit(1)

    __str__ = __repr__


class Lazy:
    """Counts how often somebody iterates over it, as a database query would be run."""

    queries = 0

    def __iter__(self) -> Iterator[int]:
        Lazy.queries += 1
        return iter((1, 2, 3))

    def __len__(self) -> int:
        Lazy.queries += 1
        return 3

    def __str__(self) -> str:
        Lazy.queries += 1
        return "queried"

    __repr__ = __str__


class Color(enum.Enum):
    RED = "red"


class Unhappy(Mapping[str, Any]):
    """A mapping whose every access fails."""

    def __getitem__(self, key: str) -> Any:
        raise OSError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError("iter")

    def __len__(self) -> int:
        return 3


class Text(str):  # noqa: SLOT000 - as applications write them
    """A str that lies about itself."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__
    __format__ = __str__  # type: ignore[assignment]

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("encode")


class Number(float):
    """A float that does not want to be written."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__


def cycle() -> list[Any]:
    inner: list[Any] = [1]
    inner.append({"again": inner})
    return inner


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for n in range(levels):
        value = {"k": value} if n % 2 else [value]
    return value


#: Naive, and at the edges, where a shift to UTC would overflow.
NAIVE_MIN, NAIVE_MAX = dt.datetime.min, dt.datetime.max  # noqa: DTZ901

HOSTILE: dict[str, Any] = {
    "explosive": Explosive(),
    "explosive_nested": {"a": [Explosive(), {"b": Explosive()}]},
    "exiting": Exiting(),
    "unhappy": Unhappy(),
    "nan": math.nan,
    "infinities": [math.inf, -math.inf, {"x": math.nan}],
    "number": Number(1.5),
    "lone_surrogate": "\ud800",
    "lone_surrogates": ["a\udfffb", {"\ud83d": "\udc00\ud83d"}],
    "nul": "a\x00b\u2028\u2029\x7f\x1f",
    "bytes": b"\xff\xfe\x00raw",
    "many_bytes": b"\xff" * 1_000_000,
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"),
    "long_text": "x" * 1_000_000,
    "long_wide_text": "\U0001f600" * 300_000,
    "text": Text("hello"),
    "cycle": cycle(),
    "deep": deep(5_000),
    "wide": list(range(100_000)),
    "many_keys": {f"k{n}": n for n in range(50_000)},
    "huge_int": 10**5_000,
    "big_ints": [2**63, -(2**63) - 1, 2**64, 10**400],
    "odd_keys": {
        None: 1,
        True: 2,
        3: 4,
        1.5: 5,
        (1, 2): 6,
        b"b": 7,
        math.nan: 8,
        "": 9,
        Color.RED: 1,
    },
    "clashing_keys": {
        1: "a",
        "1": "b",
        False: "c",
        "False": "d",
        None: "e",
        "null": "f",
        "None": "g",
    },
    "object_keys": {object(): 1, frozenset({1}): 2},
    "long_key": {"k" * 1_000_000: 1},
    "set": {1, 2, 3},
    "generator": (n for n in itertools.count()),
    "lazy": Lazy(),
    "decimal": decimal.Decimal("NaN"),
    "huge_decimal": decimal.Decimal("1e999999"),
    "complex": complex(math.nan, math.inf),
    "uuid": uuid.UUID(int=1),
    "enum": Color.RED,
    "aware_dates": [
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    ],
    "dates": [dt.date.max, NAIVE_MIN, NAIVE_MAX, dt.time.max, dt.timedelta.max],
    "exception": ValueError("bad", Explosive()),
    "class": Explosive,
    "function": lambda: None,
    "module": types,
    "file": io.BytesIO(b"x"),
    "lock": threading.Lock(),
    "deque": collections.deque([1, Explosive()]),
    "counter": collections.Counter("aab"),
    "ellipsis": ...,
    "json_in_text": "[" * 100_000,
    "slow_pattern": "=" * 100_000 + "password=" * 10_000,
    "url": "http://user:secret@host/?token=1&" * 10_000,
}
