"""uWSGI, which forks in C and runs Python's threads only where it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.conftest import Serve
from tests.servers.served import script
from tests.support.answers import Held
from tests.support.backend import Backend

pytestmark = pytest.mark.skipif(not Path(script("uwsgi")).exists(), reason="needs pyuwsgi")

THREADS = pytest.mark.parametrize("threads", ["", "--enable-threads"], ids=["bare", "threads"])

#: By itself uWSGI reloads at SIGTERM, and with --die-on-term it ends workers in mid-request, whose
#: exit handlers it skips then. This lets requests come to their end.
GRACEFUL = ("--hook-master-start=unix_signal:15 gracefully_kill_them_all",)


def uwsgi(*options: str) -> list[str]:
    return [
        *(script("uwsgi"), "--http-socket=127.0.0.1:{port}", "--module=shop:wsgi", "--need-app"),
        *("--master", "--processes=2", *GRACEFUL, *options),
    ]


@pytest.mark.parametrize("lazy", ["", "--lazy-apps"], ids=["preloaded", "each-loads"])
@THREADS
def test_everything_arrives_once(serve: Serve, backend: Backend, threads: str, lazy: str) -> None:
    """Captured at import, in requests and after SIGTERM: each arrives once."""
    with serve(*uwsgi(threads, lazy)) as server:
        server.visit(workers=2)
        server.visit_late()
        ended = server.end()

    imports = [line for line in server.journal if line.when == "import"]
    assert ended.status == 0, ended.log
    assert "Traceback" not in ended.log
    assert len(imports) == (2 if lazy else 1)
    assert sorted(backend.received) == sorted(server.captured)


@THREADS
def test_a_backend_that_hangs_holds_up_no_exit(
    serve: Serve, backend: Backend, threads: str
) -> None:
    """The exit takes little longer than `shutdown_timeout`, when the backend never answers."""
    held = Held()
    backend.default = held
    try:
        with serve(*uwsgi(threads), settings={"shutdown_timeout": 0.5}) as server:
            server.visit(workers=2)
            ended = server.end()
    finally:
        held.let_go()

    assert ended.status == 0, ended.log
    assert ended.seconds < 20.0


def test_delivery_goes_on_while_nothing_is_asked(serve: Serve, backend: Backend) -> None:
    """With threads enabled a worker delivers by itself, without a request that lets it."""
    with serve(*uwsgi("--enable-threads"), settings={"flush_interval": 0.05}) as server:
        server.visit(workers=2)

        assert backend.wait_for(len(server.captured), timeout=30.0)
        server.end()


def test_what_the_master_captured_is_delivered_by_its_first_worker(
    serve: Serve, backend: Backend
) -> None:
    """Once, though no worker captures anything: a master runs no exit handlers, its workers do."""
    with serve(*uwsgi()) as server:
        server.visit(workers=2, path="/idle")
        server.end()

    assert len(server.captured) == 3
    assert sorted(backend.received) == sorted(server.captured)
