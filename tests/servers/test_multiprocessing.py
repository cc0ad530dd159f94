"""Children of multiprocessing that SIGTERM ends, as `Process.terminate` and `Pool` do."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.servers.conftest import Serve
from tests.support.answers import Held
from tests.support.backend import Backend

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
SIGNALLED = {"flush_on_sigterm": True}


@METHODS
def test_everything_arrives_once(serve: Serve, backend: Backend, method: str) -> None:
    """Captured before the children are started and in them; the signal loses nothing."""
    with serve(sys.executable, "-m", "family", method, settings=SIGNALLED) as family:
        ended = family.wait()

    ends = [line.when for line in family.journal if line.when.startswith("ended")]
    assert ended.status == 0, ended.log
    assert ends == [f"ended with {-signal.SIGTERM}"] * 3
    assert ended.log == ""
    assert sorted(backend.received) == sorted(family.captured)
    assert len(family.captured) == 3 + 3 * 2


@METHODS
def test_a_backend_that_hangs_holds_up_no_exit(serve: Serve, backend: Backend, method: str) -> None:
    """Parent and children end in little more than `shutdown_timeout` each, without an answer."""
    held = Held()
    backend.default = held
    settings = {**SIGNALLED, "shutdown_timeout": 0.5}
    try:
        with serve(sys.executable, "-m", "family", method, settings=settings) as family:
            ended = family.wait()
    finally:
        held.let_go()

    assert ended.status == 0, ended.log
    assert ended.seconds < 20.0
