"""A relay at work, and what applications and operators do to its spool meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from guardagent import Agent, AgentConfig, SecurityEvent
from guardagent.cli.commands import guardagent
from tests.cli.shared import KEY, PATIENCE, Relay, SharedSpool
from tests.faults.spools import eventually
from tests.support.answers import Held, Status

if TYPE_CHECKING:
    from tests.support.backend import Backend

StartRelay = Callable[..., Relay]
Fill = Callable[..., list[str]]
Application = Callable[..., Agent]

#: Records that the spool holds.
ROOM = 100


@pytest.fixture
def application(shared_spool: SharedSpool) -> Iterator[Application]:
    """Start a process's agent that only spools, with little room for everything."""
    agents: list[Agent] = []

    def start(**settings: Any) -> Agent:
        given = {"queue_capacity": 20, "spool_max_records": ROOM, "flush_interval": 0.05}
        config = AgentConfig(
            api_key=KEY,
            project_id=shared_spool.project,
            spool=shared_spool.url,
            deliver=False,
            status_interval=86_400,
            **{**given, **settings},
        )
        agents.append(Agent(config))
        agents[-1].start()
        return agents[-1]

    yield start
    for agent in agents:
        agent.stop(timeout=PATIENCE)


def capture(agent: Agent, count: int) -> list[str]:
    """Return the keys of the events that were taken."""
    events = [SecurityEvent(event_type="login_failed") for _ in range(count)]
    return [event.idempotency_key for event in events if agent.capture(event)]


def operate(spool: SharedSpool, *arguments: str) -> str:
    """Do what operators do; returns what they are told."""
    where = {"GUARDAGENT_SPOOL": spool.url, "GUARDAGENT_PROJECT_ID": spool.project}
    result = CliRunner().invoke(guardagent, ["spool", *arguments], env=where)

    assert result.exit_code == 0, result.output
    return result.output


def test_whoever_waits_for_room_gets_it(
    shared_spool: SharedSpool, application: Application, relay: StartRelay, backend: Backend
) -> None:
    """With `block` an application captures as fast as relays deliver, and nothing is lost."""
    agent = application(overflow="block", block_timeout=PATIENCE)
    keys: list[str] = []
    worker = threading.Thread(target=lambda: keys.extend(capture(agent, 5 * ROOM)))
    worker.start()
    assert eventually(lambda: shared_spool.pending >= ROOM)

    working = relay(shared_spool)
    worker.join(PATIENCE)
    assert agent.flush(timeout=PATIENCE)
    all_came = backend.wait_for(5 * ROOM, PATIENCE)

    assert all_came, working.end()
    assert sorted(backend.received) == sorted(keys)
    assert sum(agent.stats().dropped.values()) == 0


def test_whoever_finds_no_room_is_told_so(
    shared_spool: SharedSpool, application: Application, relay: StartRelay, backend: Backend
) -> None:
    """With `drop_newest` what was taken arrives; there is room again when a relay has made some."""
    agent = application(overflow="drop_newest")
    keys: list[str] = []
    while shared_spool.pending < ROOM:
        keys += capture(agent, 5)
    while one := capture(agent, 1):  # into the queue, which is full soon
        keys += one

    working = relay(shared_spool)
    late: list[str] = []
    assert eventually(lambda: late.extend(capture(agent, 1)) or len(late) >= ROOM)
    keys += late
    flushed = agent.flush(timeout=PATIENCE)
    all_came = backend.wait_for(len(keys), PATIENCE)

    stats = agent.stats()
    assert flushed
    assert all_came, working.end()
    assert sorted(backend.received) == sorted(keys)
    assert stats.captured == len(keys) + stats.dropped["overflow"]


def test_dead_letters_are_requeued_beside_a_relay(
    shared_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """The relay that buried them delivers them when the cause is mended."""
    backend.default = Status(400)
    keys = fill(shared_spool, 120)
    working = relay(shared_spool, "--json", "--interval", "0.05", GUARDAGENT_MAX_BATCH_SIZE="50")
    while working.reading()["dead_letters"] != 120:
        pass

    backend.default = Status(200)
    said = operate(shared_spool, "requeue", "--all")
    all_came = backend.wait_for(120, PATIENCE)
    while (last := working.reading())["delivered"] != 120:
        pass

    assert (said, all_came) == ("Requeued 120.\n", True)
    assert sorted(backend.received) == sorted(keys)
    assert (last["dead_letters"], last["dropped"]) == (0, {"rejected": 120})
    assert working.end()[0] == 0
    assert shared_spool.pending == 0


def test_a_spool_is_purged_beside_a_relay(
    shared_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """What the relay is sending may arrive all the same; nothing else does, and it goes on."""
    held = Held()
    backend.script(held)
    old = fill(shared_spool, 120)
    working = relay(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="50")
    assert backend.wait_for_requests(1, PATIENCE)

    said = operate(shared_spool, "purge", "--yes")
    held.let_go()
    new = fill(shared_spool, 10)
    all_came = backend.wait_for(60, PATIENCE)
    status, complaints = working.end()

    assert (said, all_came) == ("Forgot 120.\n", True)
    assert sorted(backend.received) == sorted([*old[:50], *new])
    assert (status, "Traceback" in complaints) == (0, False)
    assert shared_spool.pending == 0
