"""gunicorn, with each kind of worker, loading the application before or after the fork."""

from __future__ import annotations

import sys

import pytest

from tests.servers.conftest import Serve
from tests.support.answers import Held
from tests.support.backend import Backend

pytest.importorskip("gunicorn")
pytest.importorskip("gevent")

KINDS = ["sync", "gthread", "gevent"]
PRELOADS = pytest.mark.parametrize("preload", ["", "--preload"], ids=["each-loads", "preloaded"])


def gunicorn(kind: str, preload: str) -> list[str]:
    threads = "--threads=4" if kind == "gthread" else ""
    return [
        *(sys.executable, "-m", "gunicorn", f"--worker-class={kind}", threads, preload),
        *("--workers=2", "--bind=127.0.0.1:{port}", "shop:wsgi"),
    ]


@PRELOADS
@pytest.mark.parametrize("kind", KINDS)
def test_everything_arrives_once(serve: Serve, backend: Backend, kind: str, preload: str) -> None:
    """Captured at import, in requests and after SIGTERM: each arrives once."""
    with serve(*gunicorn(kind, preload)) as server:
        server.visit(workers=2)
        server.visit_late()
        ended = server.end()

    imports = [line for line in server.journal if line.when == "import"]
    assert ended.status == 0, ended.log
    assert "Traceback" not in ended.log
    assert len(imports) == (1 if preload else 2)
    assert len({line.pid for line in server.journal}) == (3 if preload else 2)
    assert sorted(backend.received) == sorted(server.captured)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_that_hangs_holds_up_no_exit(serve: Serve, backend: Backend, kind: str) -> None:
    """The exit takes little longer than `shutdown_timeout`, when the backend never answers."""
    held = Held()
    backend.default = held
    with serve(*gunicorn(kind, "--preload"), settings={"shutdown_timeout": 0.5}) as server:
        server.visit(workers=2)
        ended = server.end()
    held.let_go()

    assert ended.status == 0, ended.log
    assert ended.seconds < 20.0  # gunicorn kills after 30
