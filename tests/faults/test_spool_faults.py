"""What can happen to a durable spool: capture is unaffected, nothing in memory is lost."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from guardagent import Agent
from tests.conftest import MakeAgent
from tests.faults.scripts import FORKING, Run
from tests.faults.spools import Nurseries, Place, eventually
from tests.support.accounts import assert_balanced, bounded, capture, repeats
from tests.support.backend import Backend
from tests.support.distance import Distance
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow


@attrs.frozen
class Fault:
    """Something that keeps a Redis server from taking events.

    Args:
        begin: brings it about.
        end: mends it.
    """

    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]


FAULTS = {
    "killed": Fault(RedisServer.kill, RedisServer.start),
    "frozen": Fault(RedisServer.freeze, RedisServer.thaw),
    "full": Fault(
        lambda server: server.command("CONFIG", "SET", "maxmemory", 1),
        lambda server: server.command("CONFIG", "SET", "maxmemory", 0),
    ),
    "readonly": Fault(
        lambda server: server.command("REPLICAOF", "127.0.0.1", 1),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server that may be hurt."""
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("name", FAULTS)
def test_redis_away_for_a_while_loses_nothing(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer, name: str
) -> None:
    """With the backend down too, what comes meanwhile stays in memory and reaches Redis later."""
    fault = FAULTS[name]
    backend.down()
    agent = make_agent(spool=redis.url)
    keys = capture(agent, 50)
    assert _is_spooled(agent, 50)

    fault.begin(redis)
    keys += bounded(lambda: capture(agent, 50))
    was_told = eventually(lambda: not agent.stats().durable)
    keys += bounded(lambda: capture(agent, 50))
    fault.end(redis)

    assert was_told
    assert eventually(lambda: agent.stats().durable and _is_in_spool(agent))
    # An answer that came late may tell of less for a moment.
    assert eventually(lambda: agent.stats().spool_pending >= 150)
    backend.up()
    assert agent.flush(timeout=20.0)
    assert backend.keys == set(keys)
    _assert_equation(agent)
    assert sum(agent.stats().dropped.values()) == 0


@pytest.mark.parametrize("name", FAULTS)
def test_events_pass_by_a_redis_that_is_away(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer, name: str
) -> None:
    """With the backend up, events are delivered from memory, and flush says so."""
    agent = make_agent(spool=redis.url)
    keys = capture(agent, 20)
    assert agent.flush(timeout=20.0)

    FAULTS[name].begin(redis)
    keys += bounded(lambda: capture(agent, 50))
    assert backend.wait_for(70, 20.0)
    FAULTS[name].end(redis)

    assert eventually(lambda: agent.stats().durable)
    assert agent.flush(timeout=20.0)
    # Redis has taken, without an answer, what was delivered from memory meanwhile.
    assert eventually(lambda: agent.stats().pending == 0)
    assert backend.keys == set(keys)
    assert repeats(backend.received) == [] or name == "frozen"
    _assert_equation(agent)


@pytest.mark.parametrize("name", ["full", "readonly"])
def test_redis_that_answers_and_takes_nothing_in(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer, name: str
) -> None:
    """What it holds is delivered as far as it lets go, and nobody calls it durable."""
    backend.down()
    agent = make_agent(spool=redis.url)
    keys = capture(agent, 50)
    assert _is_spooled(agent, 50)
    FAULTS[name].begin(redis)
    keys += capture(agent, 50)
    assert eventually(lambda: not agent.stats().durable)

    backend.up()

    held = 50 if name == "readonly" else 0
    assert backend.wait_for(100 - held, 20.0)
    assert eventually(lambda: agent.stats().pending <= held)
    assert not agent.stats().durable
    FAULTS[name].end(redis)
    assert agent.flush(timeout=20.0)
    assert backend.keys == set(keys)
    assert eventually(lambda: agent.stats().durable)
    _assert_equation(agent)


def test_redis_far_away_loses_nothing(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer
) -> None:
    """Each operation takes 100 ms: many events go with one, and no queue runs over."""
    with Distance(redis.port, 0.05) as distance:
        url = f"redis://127.0.0.1:{distance.port}/0"
        agent = make_agent(spool=url, queue_capacity=1_000)
        keys: list[str] = []
        for _ in range(300):
            keys += capture(agent, 20)
            threading.Event().wait(0.01)

        assert agent.flush(timeout=30.0)
        assert agent.stats().dropped["overflow"] == 0
        assert backend.keys == set(keys)
        _assert_equation(agent)
        assert agent.stop(timeout=20.0)


def test_events_that_wait_for_a_redis_that_does_not_answer_are_not_durable(
    make_agent: MakeAgent, redis: RedisServer
) -> None:
    """Before anybody knows what has become of it."""
    with Distance(redis.port, 1.0) as distance:
        agent = make_agent(spool=f"redis://127.0.0.1:{distance.port}/0?socket_timeout=60")

        capture(agent, 5)

        assert eventually(lambda: not agent.stats().durable)
        assert eventually(lambda: agent.stats().durable and agent.stats().spool_pending == 5)


def test_redis_down_at_the_start(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer
) -> None:
    """An agent starts without its Redis, delivers, and is durable once there is one."""
    redis.kill()
    agent = make_agent(spool=redis.url)

    keys = bounded(lambda: capture(agent, 50))
    assert eventually(lambda: not agent.stats().durable)
    assert agent.flush(timeout=20.0)
    assert sorted(backend.received) == sorted(keys)
    redis.start()

    assert eventually(lambda: agent.stats().durable)
    keys += capture(agent, 50)
    assert agent.flush(timeout=20.0)
    assert sorted(backend.received) == sorted(keys)
    assert_balanced(agent)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_spool_that_came_back_empty_is_counted(
    backend: Backend, make_agent: MakeAgent, redis: RedisServer, tmp_path: Path, kind: str
) -> None:
    """Lost is what was in the spool, no more, and that is counted."""
    path = tmp_path / "spool.db"
    backend.down()
    agent = make_agent(spool=redis.url if kind == "redis" else f"sqlite:///{path}")
    lost = capture(agent, 50)
    assert _is_spooled(agent, 50)
    if kind == "redis":
        redis.kill()
        kept = capture(agent, 50)
        assert eventually(lambda: not agent.stats().durable)
        redis.restart(empty=True)
    else:
        for file in tmp_path.glob("spool.db*"):
            file.unlink()
        kept = capture(agent, 50)

    assert eventually(lambda: agent.stats().dropped["spool_lost"] > 0)
    assert eventually(lambda: agent.stats().durable and _is_in_spool(agent))
    backend.up()
    assert agent.flush(timeout=20.0)
    # A batch that was claimed is in memory as well.
    assert set(kept) <= backend.keys <= {*kept, *lost}
    assert agent.stats().dropped["spool_lost"] == 100 - len(backend.keys)
    assert repeats(backend.received) == []
    assert_balanced(agent)


def test_file_locked_by_another_program(
    backend: Backend, make_agent: MakeAgent, tmp_path: Path
) -> None:
    """While a backup holds the file, events stay in memory and pass by it."""
    path = tmp_path / "spool.db"
    agent = make_agent(spool=f"sqlite:///{path}")
    keys = capture(agent, 20)
    assert agent.flush(timeout=20.0)

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        keys += bounded(lambda: capture(agent, 50))
        assert eventually(lambda: not agent.stats().durable)
        assert backend.wait_for(70, 20.0)
        other.execute("ROLLBACK")

    assert eventually(lambda: agent.stats().durable)
    assert agent.flush(timeout=20.0)
    assert sorted(backend.received) == sorted(keys)
    assert_balanced(agent)


@pytest.mark.parametrize("overflow", ["drop_newest", "block", "raise"])
def test_process_that_only_fills_a_spool_that_was_full(
    make_agent: MakeAgent, place: Place, overflow: str
) -> None:
    """It goes on as soon as somebody else has emptied the spool."""
    bounds = {"spool_max_records": 20, "queue_capacity": 1_000, "overflow": overflow}
    filler = make_agent(**place.settings(), **bounds, deliver=False)
    first = capture(filler, 50)
    assert _is_spooled(filler, 20)

    make_agent(**place.settings(), **bounds).start()

    assert eventually(lambda: filler.stats().pending == 0)
    assert filler.stats().captured == len(first)
    assert sum(filler.stats().dropped.values()) == 0


def test_idle_process_that_only_spools_notices_a_dead_redis(
    make_agent: MakeAgent, redis: RedisServer
) -> None:
    """Though it has nothing to put in, its ledger does not call it durable any more."""
    agent = make_agent(spool=redis.url, deliver=False)
    capture(agent, 5)
    assert agent.flush(timeout=20.0)
    before = agent.stats().durable

    redis.kill()

    assert before
    assert eventually(lambda: not agent.stats().durable)


@pytest.mark.parametrize(("how", "children"), [("normal", 3), ("grandchildren", 3), ("raw", 1)])
def test_children_leave_the_parents_spool_alone(
    run: Run, backend: Backend, place: Place, how: str, children: int
) -> None:
    """Parent and children share the spool, and each event is delivered once."""
    settings = {**place.settings(), "spool_lease": 15.0}
    if how == "raw":
        settings |= {"flush_interval": 600.0}  # the fork waits until something is in the spool

    outcome = run("forking", how=how, children=children, settings=settings, flags=FORKING).wait()

    generations = {"normal": 3, "grandchildren": 12, "raw": 1}[how]
    assert (outcome.status, outcome.stderr) == (0, "")
    assert len(outcome.captured) == 10 + generations * 20
    assert backend.keys == set(outcome.captured)
    assert repeats(backend.received) == []


def test_prefork_server(run: Run, backend: Backend, place: Place) -> None:
    """Configured before the workers are forked, as with --preload: each opens the spool itself."""
    settings = {**place.settings(), "spool_lease": 15.0}  # the default: nobody stands still so long
    outcome = run(
        "forking", how="unstarted", parent=0, settings=settings, flags=("-W", "error")
    ).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert len(outcome.captured) == 60
    assert sorted(backend.received) == sorted(outcome.captured)


@pytest.mark.parametrize("how", ["end", "stop", "sys_exit"])
def test_what_an_exit_leaves_the_next_process_delivers(
    run: Run, backend: Backend, nurseries: Callable[[int], Nurseries], place: Place, how: str
) -> None:
    """With the backend away a process ends at once, and what it captured is in the spool."""
    settings = {**place.settings(), "shutdown_timeout": 60.0, "spool_lease": 1.0}
    (start,) = nurseries(1).starts()
    backend.down()

    outcome = run("leaving", how=how, patience=60.0, settings=settings).wait(30.0)
    backend.up()
    start("empty", settings, least=20).wait()

    assert outcome.stderr == ""
    assert len(outcome.captured) == 20
    assert sorted(backend.received) == sorted(outcome.captured)


def test_what_was_captured_before_os_exit_arrives(
    backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """`os._exit` runs no handler; what is in the spool by then is delivered all the same."""
    (start,) = nurseries(1).starts()
    backend.down()

    quitter = start("quit", place.settings(), events=50)
    quitter.wait()
    backend.up()
    start("empty", place.settings(), least=50).wait()

    assert len(quitter.keys()) == 50
    assert backend.keys == quitter.keys()
    assert repeats(backend.received) == []


def test_sigterm_leaves_the_events_in_the_spool(
    run: Run, backend: Backend, nurseries: Callable[[int], Nurseries], place: Place
) -> None:
    """With the backend away `flush_on_sigterm` waits for nothing; the next process delivers."""
    settings = {**place.settings(), "shutdown_timeout": 60.0, "flush_on_sigterm": True}
    (start,) = nurseries(1).starts()
    backend.down()
    program = run("terminated", how="default", settings=settings)
    captured = program.read_report()["captured"]

    program.signal(signal.SIGTERM)
    outcome = program.wait(30.0)
    backend.up()
    start("empty", settings, least=20).wait()

    assert (outcome.status, outcome.stderr) == (-signal.SIGTERM, "")
    assert sorted(backend.received) == sorted(captured)


def test_stop_gives_back_what_was_claimed(
    backend: Backend, make_agent: MakeAgent, place: Place
) -> None:
    """A stop with the backend away does not wait for it, and the next agent for no lease."""
    settings = {**place.settings(), "spool_lease": 3_600.0}
    backend.down()
    agent = make_agent(**settings)
    keys = capture(agent, 1_000)
    assert eventually(lambda: agent.stats().last_error is not None)

    bounded(lambda: agent.stop(timeout=3_600.0), 30.0)
    backend.up()
    heir = make_agent(**settings)
    heir.start()

    assert agent.stats().dropped["shutdown"] == 0
    assert backend.wait_for(1_000, 20.0)
    assert sorted(backend.received) == sorted(keys)


def test_frozen_redis_holds_no_exit(run: Run, backend: Backend, redis: RedisServer) -> None:
    """A process ends in bounded time though neither Redis nor the backend answer."""
    redis.freeze()
    backend.down()

    outcome = run("leaving", how="end", settings={"spool": redis.url}).wait(30.0)

    assert (outcome.status, outcome.stderr) == (0, "")
    assert len(outcome.captured) == 20


def _is_in_spool(agent: Agent) -> bool:
    stats = agent.stats()
    return stats.spool_pending == stats.pending


def _is_spooled(agent: Agent, count: int) -> bool:
    return eventually(lambda: agent.stats().spool_pending == count)


def _assert_equation(agent: Agent) -> None:
    """Check what holds for each agent of a shared spool, at rest."""
    stats: Any = agent.stats()
    kept = stats.pending - stats.spool_pending + stats.spooled

    assert stats.captured == stats.delivered + kept + sum(stats.dropped.values()), stats
    assert stats.pending == 0, stats
