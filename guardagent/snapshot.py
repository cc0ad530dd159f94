"""Bounded copies of what a caller hands over, so that later changes change nothing that is sent.

Owns: how deep and how much of a mapping is kept. In: a caller's mapping. Out: fresh dicts and
lists whose leaves nobody else can change, or opaque objects of which only the type is ever sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from guardagent.plain import PLAIN_TYPES

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "snapshot"]

#: Nesting kept in an event; what lies deeper becomes a marker.
MAX_DEPTH = 10
#: Items kept in an event, nested ones included: about 0.3 ms of work at the most.
MAX_ITEMS = 1_000

_TOO_DEEP = "[nested too deeply]"
_CHANGING = "[changed while it was read]"
#: A mapping that another thread changes is read again this often before it is given up.
_ATTEMPTS = 5


def snapshot(mapping: Mapping[Any, Any] | None) -> dict[Any, Any]:
    """Copy a mapping; flat ones of plain values, the common case, at the speed of `dict.copy`."""
    if type(mapping) is dict and len(mapping) <= MAX_ITEMS:
        mapping = mapping.copy()
        for value in mapping.values():
            if type(value) not in PLAIN_TYPES:
                break
        else:
            return mapping
    copied = _Copier().copy(mapping, 0)
    if type(copied) is dict:
        return copied
    if issubclass(type(mapping), Mapping):  # a mapping of the application's own class
        try:
            return snapshot(dict(mapping or {}))
        except Exception:  # its own code raised: the event is worth more than this field
            return {"given": f"<{type(mapping).__qualname__}>"}
    return {} if mapping is None else {"given": copied}


class _Copier:
    """Copies one tree within one allowance of items.

    Built-in methods are called unbound (`dict.items(value)`) and classes are compared through
    `type`, because an overridden `__iter__` or `__class__` is foreign code (FIELD N4).
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in PLAIN_TYPES:
            return value
        read = _reader(kind)
        if read is None:
            return _bytes(value) if issubclass(kind, (bytearray, memoryview)) else value
        if depth >= MAX_DEPTH:
            return _TOO_DEEP
        size, take = read
        items = _steady(take, value, self._left)
        if items is None:
            return _CHANGING
        self._left -= len(items)
        missing = size(value) - len(items)
        if issubclass(kind, (dict, MappingProxyType)):
            copied = {key: self.copy(item, depth + 1) for key, item in items}
            return {**copied, "[truncated]": f"{missing} more items"} if missing > 0 else copied
        sequence = [self.copy(item, depth + 1) for item in items]
        return [*sequence, f"[truncated: {missing} more items]"] if missing > 0 else sequence


_Reader = tuple[Callable[[Any], int], Callable[[Any], Iterable[Any]]]

_READERS: tuple[tuple[type, _Reader], ...] = (
    (dict, (dict.__len__, dict.items)),
    (list, (list.__len__, list.__iter__)),
    (tuple, (tuple.__len__, tuple.__iter__)),
    (set, (set.__len__, set.__iter__)),
    (frozenset, (frozenset.__len__, frozenset.__iter__)),
    (deque, (deque.__len__, deque.__iter__)),
    (MappingProxyType, (MappingProxyType.__len__, MappingProxyType.items)),
)


def _bytes(value: bytearray | memoryview) -> bytes | str:
    try:
        with memoryview(value) as view:
            return view[: 2**16].tobytes()
    except (ValueError, TypeError):
        return "[unreadable memory]"  # released, or of a shape without bytes in a row


def _reader(kind: type) -> _Reader | None:
    for base, reader in _READERS:
        if issubclass(kind, base):
            return reader
    return None


def _steady(take: Callable[[Any], Iterable[Any]], value: Any, limit: int) -> list[Any] | None:
    for _ in range(_ATTEMPTS):
        try:
            return list(islice(take(value), max(limit, 0)))
        except RuntimeError:
            continue  # another thread changed its size meanwhile; read it anew
        except Exception:  # a view of a mapping of the application's own class
            return None
    return None
