"""A real store that fails on command, before an operation took effect or after it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from guardagent.errors import SpoolError

__all__ = ["FAULT", "Faulty"]

FAULT = "the store was told to fail"
#: What has no effect when it fails: closing and leaving to a parent always work.
_SAFE = frozenset({"close", "abandon"})


class Faulty:
    """Passes everything on to `store`.

    Args:
        store: a `Store`.
        calls: what was asked of it, by name.
        unheard: records that it lost in operations whose answer did not arrive.
        error: what it raises.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls: Counter[str] = Counter()
        self.unheard = 0
        self.error: type[Exception] = SpoolError
        self._lock = threading.Lock()  # guards the two below
        self._is_broken = False
        self._next: dict[str, tuple[bool, int]] = {}
        self._then: dict[str, Callable[[], object]] = {}

    def fail(self, *names: str, after: bool = False, times: int = 1) -> None:
        """Fail the next operations of these names; `after` they took effect, or instead."""
        with self._lock:
            self._next.update(dict.fromkeys(names, (after, times)))

    def break_down(self) -> None:
        """Fail everything until `mend`."""
        self._is_broken = True

    def mend(self) -> None:
        """Work again."""
        with self._lock:
            self._is_broken = False
            self._next.clear()

    def after(self, name: str, action: Callable[[], object]) -> None:
        """Do something once, right after the next operation of that name took effect."""
        self._then[name] = action

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)
        if name.startswith("_") or name in _SAFE or not callable(operation):
            return operation

        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            fails = self._fault(name)
            if fails is False:
                raise self.error(FAULT)
            result = operation(*args, **kwargs)
            if fails is True:
                self.unheard += _lost(name, result)
                raise self.error(FAULT)
            if (action := self._then.pop(name, None)) is not None:
                action()
            return result

        return guarded

    def _fault(self, name: str) -> bool | None:
        """Return True to fail after the effect, False before it, None not at all."""
        with self._lock:
            if self._is_broken:
                return False
            after, times = self._next.pop(name, (False, 0))
            if times > 1:
                self._next[name] = after, times - 1
            return after if times else None


def _lost(name: str, result: Any) -> int:
    lost: int = {"append": lambda: result.lost, "expire": lambda: result[0]}.get(name, int)()
    return lost
