"""A long outage at 500 events a second: ten minutes, scaled to the settings of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardagent import Agent
from tests.conftest import MakeAgent
from tests.faults.scripts import Run
from tests.faults.spools import PATIENCE, Place, eventually
from tests.support.accounts import assert_balanced, capture
from tests.support.answers import Accept, Held
from tests.support.backend import Backend
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

#: Ten minutes are 40 leases of 15 s, these are ten. What is history, and waits for the news by
#: turns, is older than two: a machine that is busy must not make history of the news.
SECONDS, LEASE = 20.0, 2.0
SCALED = {"spool_lease": LEASE, "max_batch_size": 100}
MEGABYTE = 1 << 20


def test_long_outage_costs_disk_and_no_memory(
    run: Run, backend: Backend, place: Place, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Memory is flat, news do not wait for the backlog, all arrives, the spool is small after."""
    backend.down()
    ledger = tmp_path / "ledger"
    settings = {**place.settings("outage"), **SCALED}
    program = run(
        "outage", settings=settings, seconds=SECONDS, ledger=str(ledger), patience=PATIENCE
    )
    first = program.read_report()
    largest = _size(place, shared_redis)

    held = Held()  # the backlog drains, but not before the news are there
    backend.script(*[Accept()] * 10, held)
    backend.up()
    assert backend.wait_for_requests(11, PATIENCE)
    program.tell()
    second = program.read_report()
    held.let_go()
    assert backend.wait_for(first["captured"], PATIENCE)
    program.tell()
    last = program.read_report()
    smallest = _size(place, shared_redis)
    outcome = program.wait()

    assert outcome.stderr == ""
    assert first["durable"]
    assert first["captured"] > 0.8 * SECONDS * 500
    memory = [*first["memory"], *second["memory"], *last["memory"]]
    assert max(memory) - memory[0] < first["spool_bytes"] / 4
    received, fresh = backend.received, second["captured"]
    assert (last["flushed"], last["pending"], last["dropped"]) == (True, 0, 0)
    assert sorted(received) == sorted([*ledger.read_text().split(), *fresh])
    assert max(received.index(key) for key in fresh) < first["captured"] // 2
    assert largest > first["spool_bytes"]
    assert smallest < 16 * MEGABYTE < largest


def test_spool_keeps_its_bounds(backend: Backend, make_agent: MakeAgent, place: Place) -> None:
    """An outage that is too long costs the oldest events, and each of them is counted."""
    backend.down()
    agent = make_agent(**place.settings(), spool_max_records=2_000, max_batch_size=100)
    keys: list[str] = []
    for _ in range(20):
        keys += capture(agent, 500)
        assert eventually(lambda: _is_in_spool(agent))
    kept = agent.stats()

    backend.up()
    assert agent.flush(timeout=20.0)

    assert kept.spool_pending == 2_000
    assert kept.dropped["overflow"] == len(keys) - 2_000
    assert len(backend.received) == len(backend.keys) == 2_000
    # The oldest were being sent when the newer ones came, and stay.
    assert len(backend.keys.intersection(keys[-2_000:])) >= 2_000 - 100
    assert_balanced(agent)


def _is_in_spool(agent: Agent) -> bool:
    stats = agent.stats()
    return stats.pending == stats.spool_pending


def _size(place: Place, server: RedisServer) -> int:
    """Return the bytes of the spool's files, or of the server's memory."""
    if place.kind == "sqlite":
        return sum(file.stat().st_size for file in place.folder.glob("outage.db*"))
    return int(server.command("INFO", "memory")["used_memory"])
