"""uvicorn, alone and with worker processes, with a lifespan and without."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.servers.conftest import Serve
from tests.support.answers import Held
from tests.support.backend import Backend

pytest.importorskip("uvicorn")


def uvicorn(workers: int, lifespan: str) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "--port={port}", f"--workers={workers}"),
        *(f"--lifespan={lifespan}", "shop:asgi"),
    ]


@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize("workers", [1, 2])
def test_everything_arrives_once(
    serve: Serve, backend: Backend, workers: int, lifespan: str
) -> None:
    """With the middleware, all that is pending at SIGTERM arrives, though no exit handler runs."""
    with serve(*uvicorn(workers, lifespan), shim=True) as server:
        server.visit(workers)
        server.visit_late()
        ended = server.end()

    assert "Traceback" not in ended.log
    assert len({line.pid for line in server.journal}) >= workers
    assert sorted(backend.received) == sorted(server.captured)


@pytest.mark.parametrize("shim", [True, False], ids=["with", "without"])
def test_a_lifespan_that_fails_ends_the_server(serve: Serve, shim: bool) -> None:
    """`--lifespan on` makes an exception at the start fatal, with the middleware as without."""
    with serve(*uvicorn(1, "on"), shim=shim) as server:
        ended = server.wait()

    assert ended.status == 3
    assert "NotImplementedError" in ended.log


def test_the_signal_is_enough_without_the_middleware(serve: Serve, backend: Backend) -> None:
    """With `flush_on_sigterm` nothing of the application's own captures is lost either."""
    settings = {"flush_on_sigterm": True}
    with serve(*uvicorn(1, "off"), settings=settings) as server:
        server.visit()
        server.visit_late()
        ended = server.end()

    assert ended.status == -signal.SIGTERM  # as uvicorn ends without the agent
    assert "Traceback" not in ended.log
    assert sorted(backend.received) == sorted(server.captured)


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_a_backend_that_hangs_holds_up_no_exit(
    serve: Serve, backend: Backend, lifespan: str
) -> None:
    """The exit takes little longer than `shutdown_timeout`, when the backend never answers."""
    held = Held()
    backend.default = held
    settings = {"shutdown_timeout": 0.5}
    try:
        with serve(*uvicorn(1, lifespan), settings=settings, shim=True) as server:
            server.visit()
            ended = server.end()
    finally:
        held.let_go()

    assert "Traceback" not in ended.log
    assert ended.seconds < 20.0  # and not the 5 s of the agent's own `timeout`, four times
