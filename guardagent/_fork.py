"""One fork hook for the package: a child begins with nothing of its parent's agent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from guardagent import _exit
from guardagent._quiet import MUTED

__all__ = ["watch"]


class Forkable(Protocol):
    """What must begin anew in a child."""

    def _begin_anew(self) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(one: Forkable) -> None:
    """Have it begin anew in every child, for as long as it lives."""
    _watched.add(one)


def _after_in_child() -> None:
    # Only replaces objects: any lock may be held for ever by a thread that was not forked.
    _exit.forget()
    MUTED.clear()
    for one in list(_watched):
        one._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
