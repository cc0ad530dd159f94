"""One fork hook for the package: a child begins with nothing of its parent's agent.

What must not be open while the process forks, such as a SQLite file, is closed before and opened
again by whoever needs it next.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

from guardagent import _exit
from guardagent._quiet import MUTED

__all__ = ["close_before", "watch"]


class Forkable(Protocol):
    """What must begin anew in a child."""

    def _begin_anew(self) -> None: ...


class Closable(Protocol):
    """What must be closed while the process forks."""

    def before_fork(self) -> None:
        """Close it, and keep others from opening it."""

    def after_fork(self) -> None:
        """Let them again; in the parent, and in the child, where nobody else is."""


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_pid = os.getpid()


def watch(one: Forkable) -> None:
    """Have it begin anew in every child, for as long as it lives."""
    notice()
    _watched.add(one)


def notice() -> None:
    """See to a fork that ran no hook, as uWSGI's (FIELD F3); called before anything is done."""
    if _pid != os.getpid():
        _after_in_child()


_closables: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_before(one: Closable) -> None:
    """Have it closed before every fork, for as long as it lives."""
    _closables.add(one)


def _before() -> None:
    for one in list(_closables):
        one.before_fork()


def _after_in_parent() -> None:
    for one in list(_closables):
        one.after_fork()


def _after_in_child() -> None:
    global _pid  # noqa: PLW0603 - the process's, like the hook
    _pid = os.getpid()
    _after_in_parent()
    # Only replaces objects: any lock may be held for ever by a thread that was not forked.
    _exit.forget()
    MUTED.clear()
    for one in list(_watched):
        one._begin_anew()


# Exit handlers run in the reverse order: before `_exit` settles what is pending.
atexit.register(notice)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
