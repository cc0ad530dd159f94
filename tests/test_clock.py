"""Time and the bell that threads wait on."""

from __future__ import annotations

import math
import threading
import time

from guardagent._clock import SYSTEM_CLOCK, Bell, SystemClock
from tests.scripted import PATIENCE


def test_system_clock_agrees_with_the_machine() -> None:
    """Both clocks are the machine's own at the moment they are made."""
    clock = SystemClock()

    before, now, after = time.monotonic(), clock.monotonic(), time.monotonic()

    assert before <= now <= after
    assert math.isclose(clock.now(), time.time(), abs_tol=60)


def test_wall_clock_moves_with_the_monotonic_one() -> None:
    """Unix seconds are anchored once, so a wall clock that is set anew changes no age."""
    first = SYSTEM_CLOCK.now() - SYSTEM_CLOCK.monotonic()
    second = SYSTEM_CLOCK.now() - SYSTEM_CLOCK.monotonic()

    assert math.isclose(first, second, abs_tol=5)


def test_ring_before_the_wait_is_not_lost() -> None:
    """A wait that comes after the ring returns at once."""
    bell = Bell()

    bell.ring()

    assert bell.wait() is True


def test_two_rings_wake_once() -> None:
    """One wake-up serves any number of rings."""
    bell = Bell()

    bell.ring()
    bell.ring()

    assert [bell.wait(0), bell.wait(0)] == [True, False]


def test_wait_ends_without_a_ring() -> None:
    """A timeout, a negative one included, ends the wait."""
    bell = Bell()

    assert [bell.wait(0.001), bell.wait(-5)] == [False, False]


def test_a_very_long_wait_is_possible() -> None:
    """A wait longer than the machine can count is as good as one without end."""
    bell = Bell()

    bell.ring()

    assert bell.wait(math.inf) is True


def test_ring_wakes_another_thread() -> None:
    """A thread that waits without limit goes on."""
    bell = Bell()
    woken = threading.Event()

    thread = threading.Thread(target=lambda: bell.wait() and woken.set())
    thread.start()
    bell.ring()
    thread.join(PATIENCE)

    assert woken.is_set()
