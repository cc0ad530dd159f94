"""Results for callers of both kinds: those who await them and those who ignore them."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["DONE", "FALSE", "TRUE", "Finished", "Pending", "Settled", "apart", "is_on_loop"]

_T = TypeVar("_T")


class Finished(Coroutine[Any, Any, _T]):
    """Something whose value is there already; `await` gives it back without a turn of the loop.

    A `Coroutine`, so that `asyncio.create_task` and `asyncio.run` take it too; any number of them
    may await the same one.
    """

    __slots__ = ()

    @abstractmethod
    def _result(self) -> _T:
        """Return the value."""

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._result()
        yield  # makes it a generator

    def send(self, _value: Any) -> Any:
        """Take the only step there is."""
        raise StopIteration(self._result())

    def throw(
        self,
        kind: Any,
        error: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        """Raise the error where it would be awaited: nothing here can handle it."""
        if isinstance(kind, BaseException):
            raise kind
        raise error if isinstance(error, BaseException) else kind

    def close(self) -> None:
        """Do nothing: there is nothing to clean up."""


class Settled(Finished[_T]):
    """The result of work that was done when the method was called.

    Who does not await it loses nothing and hears no warning. True and false as the value is.
    """

    __slots__ = ("_value",)

    def __init__(self, value: _T) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value!r}>"

    def _result(self) -> _T:
        return self._value


DONE: Settled[None] = Settled(None)
TRUE: Settled[bool] = Settled(True)
FALSE: Settled[bool] = Settled(False)


class Pending(Settled[Any]):
    """The result of work in a thread of its own, begun at once, awaited or not.

    Not in the loop's default executor: that one's threads hold up the end of `asyncio.run`.
    False, as nothing is known yet.
    """

    __slots__ = ("_future",)

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(None)
        self._future: Future[Any] = Future()
        self._future.set_running_or_notify_cancel()  # from now on nobody can cancel it
        try:
            thread = threading.Thread(
                target=self._run, args=(work,), name="guardagent-guard", daemon=True
            )
            thread.start()
        except RuntimeError:  # the interpreter is ending: no thread can be started any more
            self._run(work)

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - belongs to whoever awaits it
            self._future.set_exception(error)

    def __await__(self) -> Generator[Any, Any, Any]:
        result = yield from asyncio.wrap_future(self._future)
        return result

    def send(self, _value: Any) -> Any:
        """Go on waiting, each time anew: whichever of its tasks asks, no other one hears of it."""
        if self._future.done():
            raise StopIteration(self._future.result())
        return next(asyncio.wrap_future(self._future).__await__())


def is_on_loop() -> bool:
    """Tell whether the calling thread is running an event loop, which nothing may hold up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def apart(work: Callable[[], _T]) -> Settled[_T]:
    """Do work that waits: in a thread when the caller is on a loop, otherwise here and now."""
    return Pending(work) if is_on_loop() else Settled(work())
