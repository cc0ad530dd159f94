"""At most so many in so many seconds."""

from __future__ import annotations

import os
import threading

import pytest

from guardagent.contrib._throttle import Throttle
from guardagent.testing import ManualClock


def test_so_many_and_no_more() -> None:
    """The interval begins with the first; the next one tells how many were left out."""
    clock = ManualClock()
    throttle = Throttle(2, 60, clock.monotonic)

    first = [throttle.take() for _ in range(5)]
    clock.advance(59.9)
    still = throttle.take()
    clock.advance(0.1)
    then = [throttle.take() for _ in range(2)]

    assert first == [0, 0, None, None, None]
    assert still is None
    assert then == [4, 0]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_while_held() -> None:
    """A child is not held up by a thread of its parent's, and counts for itself."""
    throttle = Throttle(1, 3_600)
    assert throttle.take() == 0
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with throttle._lock:
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if throttle.take() == 0 else 1)
    let_go.set()
    thread.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
