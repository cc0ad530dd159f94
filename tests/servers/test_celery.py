"""Celery workers of each kind, with a real broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.servers.conftest import Serve
from tests.support.answers import Held
from tests.support.backend import Backend
from tests.support.redis_server import RedisServer

celery_package = pytest.importorskip("celery")
pools = pytest.importorskip("kombu.pools")

Send = Callable[[str], object]


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisServer]:
    """A broker for all tests of this module, one after the other."""
    with RedisServer(persistent=False) as server:
        yield server


@pytest.fixture
def send(broker: RedisServer) -> Iterator[Send]:
    """Ask for a task by its name; the queue is empty at first."""
    broker.command("FLUSHALL")
    client = celery_package.Celery(broker=broker.url)
    try:
        yield lambda name: client.send_task(f"jobs.{name}")
    finally:
        client.close()
        pools.reset()  # kombu's, which outlive the client


def celery(pool: str, *options: str) -> list[str]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING")
    worker = (sys.executable, "-m", "celery", "--app=jobs", "worker", f"--pool={pool}")
    return [*worker, "--concurrency=2", *quiet, *options]


@pytest.mark.parametrize(
    ("pool", "options", "tasks", "late"),
    [
        ("prefork", [], 12, 2),
        # Each of these children takes a second to go.
        ("prefork", ["--max-tasks-per-child=1"], 4, 2),
        ("threads", [], 12, 2),
        ("solo", [], 12, 1),
    ],
    ids=["prefork", "prefork-one-task-each", "threads", "solo"],
)
def test_everything_arrives_once(
    serve: Serve,
    backend: Backend,
    broker: RedisServer,
    send: Send,
    pool: str,
    options: list[str],
    tasks: int,
    late: int,
) -> None:
    """Captured at import, in tasks and after SIGTERM, by master and children: each arrives once.

    The late tasks wait at the same time, so that no child can do them both.
    """
    with serve(*celery(pool, *options), broker=broker.url) as server:
        for _ in range(tasks):
            send("work")
        server.wait_for("task", tasks)
        for _ in range(late):
            send("work_late")
        server.wait_for("waiting", late)
        ended = server.end()

    pids = {line.pid for line in server.journal}
    assert ended.status == 0, ended.log
    assert "Traceback" not in ended.log
    assert len(server.captured) == 3 + 2 * tasks + 2 * late
    assert len(pids) >= (3 if pool == "prefork" else 1)
    assert sorted(backend.received) == sorted(server.captured)


def test_a_backend_that_hangs_holds_up_no_exit(
    serve: Serve, backend: Backend, broker: RedisServer, send: Send
) -> None:
    """A warm shutdown takes little longer than without the agent, when no answer ever comes."""
    held = Held()
    backend.default = held
    settings = {"shutdown_timeout": 0.5}
    try:
        with serve(*celery("prefork"), settings=settings, broker=broker.url) as server:
            for _ in range(8):
                send("work")
            server.wait_for("task", 8)
            ended = server.end()
    finally:
        held.let_go()

    assert ended.status == 0, ended.log
    assert ended.seconds < 20.0
