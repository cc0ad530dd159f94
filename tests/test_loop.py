"""The thread that repeats a turn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from guardagent._clock import Bell
from guardagent._loop import Loop
from tests.scripted import PATIENCE, in_threads


class Bench:
    """A loop whose turns come from a script; the last one ends it."""

    def __init__(self, *script: Callable[[], float | None]) -> None:
        self.script: Iterator[Callable[[], float | None]] = iter(script)
        self.bell = Bell()
        self.turns = 0
        self.errors: list[BaseException] = []
        self.exits = 0
        self.over = threading.Event()
        self.loop = Loop("loop-under-test", self.turn, self.bell, self.failed, self.left)

    def turn(self) -> float | None:
        self.turns += 1
        for step in self.script:
            return step()
        self.over.set()
        return None

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)
        self.bell.ring()  # the pause after a crash is no part of any test

    def left(self) -> None:
        self.exits += 1

    def finish(self) -> None:
        assert self.over.wait(PATIENCE)
        self.loop.end()
        assert self.loop.join(PATIENCE)


def test_turns_are_repeated_until_the_end() -> None:
    """A turn that returns 0 is followed at once by the next; the end comes when it is asked for."""
    bench = Bench(lambda: 0.0, lambda: 0.001, lambda: 0.0)

    started = bench.loop.ensure()
    bench.finish()

    assert started
    assert bench.turns == 4
    assert (bench.errors, bench.exits, bench.loop.is_alive()) == ([], 1, False)


def test_bell_ends_a_wait() -> None:
    """A turn that returns None is followed by the next only when the bell rings."""
    reached = threading.Event()
    bench = Bench(lambda: reached.set())  # type: ignore[func-returns-value]

    bench.loop.ensure()
    assert reached.wait(PATIENCE)
    before = bench.turns
    bench.bell.ring()
    bench.finish()

    assert (before, bench.turns) == (1, 2)


@pytest.mark.parametrize("error", [ValueError("a"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_ends_no_thread(error: BaseException) -> None:
    """Whatever a turn raises is reported, and the next turn comes."""

    def fail() -> float:
        raise error

    bench = Bench(fail, fail)

    bench.loop.ensure()
    bench.finish()

    assert bench.errors == [error, error]
    assert bench.turns == 3


def test_end_within_a_turn_needs_no_bell() -> None:
    """A loop that is ended by its own turn does not wait once more."""
    bench = Bench()
    bench.script = iter([lambda: bench.loop.end()])  # type: ignore[func-returns-value]

    bench.loop.ensure()

    assert bench.loop.join(PATIENCE)
    assert bench.turns == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_started_again() -> None:
    """A thread that died of its own error handler leaves word and can be replaced."""
    deaths = []

    def die(error: BaseException) -> None:
        deaths.append(error)
        raise SystemExit

    def turn() -> float | None:
        if not deaths:
            raise ValueError
        over.set()
        return None

    over, bell = threading.Event(), Bell()
    loop = Loop("loop-under-test", turn, bell, die)
    loop.ensure()
    assert loop.join(PATIENCE)
    was_dead = not loop.is_alive()

    revived = loop.ensure()

    assert (was_dead, revived) == (True, True)
    assert over.wait(PATIENCE)
    loop.end()
    assert loop.join(PATIENCE)


def test_ensure_after_the_end_starts_nothing() -> None:
    """An ended loop stays ended."""
    bench = Bench()

    bench.loop.end()

    assert bench.loop.ensure() is False
    assert bench.loop.is_alive() is False


def test_ensure_twice_starts_once() -> None:
    """A thread that runs is left alone."""
    bench = Bench(lambda: None)

    assert [bench.loop.ensure(), bench.loop.ensure()] == [True, True]
    bench.bell.ring()
    bench.finish()
    assert bench.exits == 1


def test_eight_threads_start_one() -> None:
    """However many ask at once, one thread runs."""
    bench = Bench(lambda: None)

    in_threads(8, lambda _: bench.loop.ensure())
    running = [one for one in threading.enumerate() if one.name == "loop-under-test"]
    bench.bell.ring()
    bench.finish()

    assert len(running) == 1


def test_ensure_notices_a_start_that_overtook_it() -> None:
    """Whoever looked before another thread started the loop does not start a second one."""

    class Overtaken(Loop):
        overtaken = False

        def is_alive(self) -> bool:
            answer = super().is_alive()
            if not self.overtaken:
                self.overtaken = True
                in_threads(1, lambda _: self.ensure())
            return answer

    bench = Bench(lambda: None)
    bench.loop = Overtaken("loop-under-test", bench.turn, bench.bell, bench.failed, bench.left)

    assert bench.loop.ensure() is True
    bench.bell.ring()
    bench.finish()
    assert bench.exits == 1


def test_ensure_does_not_wait_for_another_start() -> None:
    """While one thread is starting the loop, another trusts that it will run."""
    answers = []

    class Starting(threading.Thread):
        """Asks from another thread in the middle of its start."""

        def start(self) -> None:
            answers.extend(in_threads(1, lambda _: bench.loop.ensure()))
            super().start()

    bench = Bench()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardagent._loop.threading.Thread", _Once(Starting, threading.Thread))
        bench.loop.ensure()
    bench.finish()

    assert answers == [True]
    assert bench.exits == 1


class _Once:
    """Gives the first class once and the second one from then on."""

    def __init__(self, first: type, then: type) -> None:
        self._classes = iter([first])
        self._then = then

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return next(self._classes, self._then)(*args, **kwargs)


def test_a_start_that_interrupts_a_start_starts_one_thread() -> None:
    """A finalizer that captures while its own thread starts the loop does not start another."""
    bench = Bench(lambda: None)
    nested = []

    def interrupt(frame: FrameType, what: str, argument: object) -> None:
        if frame.f_code is threading.Thread.start.__code__ and not nested:
            nested.append(bench.loop.ensure())

    former = sys.gettrace()
    sys.settrace(interrupt)
    try:
        bench.loop.ensure()
    finally:
        sys.settrace(former)
    running = [one for one in threading.enumerate() if one.name == "loop-under-test"]
    bench.loop.end()
    for thread in running:
        bench.bell.ring()
        thread.join(1)

    assert len(nested) == 1
    assert len(running) == 1


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where threads are refused `ensure` says so, and may be asked again."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    bench = Bench()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refused = bench.loop.ensure()

    assert (refused, bench.loop.is_alive()) == (False, False)
    assert bench.loop.ensure() is True
    bench.finish()


def test_two_threads_are_never_inside_a_turn() -> None:
    """Whoever would help comes back a little later; the thread's own turn is left alone."""
    inside, gate = threading.Event(), threading.Event()

    def busy() -> float:
        inside.set()
        gate.wait(PATIENCE)
        return 0.0

    bench = Bench(busy)
    bench.loop.ensure()
    assert inside.wait(PATIENCE)

    wait, turns = bench.loop.turn(), bench.turns
    gate.set()
    bench.finish()

    assert wait is not None
    assert wait > 0
    assert turns == 1


def test_join_without_a_thread() -> None:
    """There is nothing to wait for before the start."""
    assert Bench().loop.join(0) is True


def test_join_from_the_thread_itself() -> None:
    """A turn that asks for the end of its own thread does not wait for itself."""
    answers: list[bool] = []
    bench = Bench()
    bench.script = iter([lambda: answers.append(bench.loop.join(PATIENCE))])  # type: ignore[func-returns-value]

    bench.loop.ensure()
    bench.bell.ring()
    bench.finish()

    assert answers == [True]


def test_join_gives_up() -> None:
    """A thread that is busy is waited for only so long."""
    gate = threading.Event()
    bench = Bench(lambda: 0.0 * gate.wait(PATIENCE))

    bench.loop.ensure()
    bench.loop.end()
    early = bench.loop.join(-1)
    gate.set()

    assert early is False
    assert bench.loop.join(PATIENCE) is True


def test_revive_allows_a_new_start() -> None:
    """A loop that was ended runs again after `revive`."""
    bench = Bench()
    bench.loop.end()

    bench.loop.revive()

    assert bench.loop.ensure() is True
    bench.finish()
