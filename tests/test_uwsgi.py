"""uWSGI's ways, as its module tells of them; the real server is in tests/servers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from guardagent import Agent, SecurityEvent, _exit, _fork, _uwsgi
from tests.scripted import PATIENCE, ScriptedTransport, config


class Server:
    """What uWSGI's module answers in the process that a test says it is in."""

    def __init__(self) -> None:
        self.worker, self.master, self.respawns = 0, os.getpid(), 0
        self.is_spooler = False
        self.module = SimpleNamespace(
            worker_id=lambda: self.worker,
            masterpid=lambda: self.master,
            workers=lambda: ({"id": 1, "respawn_count": self.respawns},),
            i_am_the_spooler=lambda: self.is_spooler,
            has_threads=1,
            opt={},
        )

    def fork(self, worker: int) -> None:
        """Be a worker now, in a process that ran no hook: seen by the pid alone."""
        self.worker = worker
        _fork._pid = -1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Be in a process of uWSGI: at first its master, which loads the application."""
    server = Server()
    monkeypatch.setitem(sys.modules, "uwsgi", server.module)  # type: ignore[arg-type]
    live = set(_exit._live)
    yield server
    _exit._live.clear()
    _exit._live.update(live)
    _fork._pid = os.getpid()


@pytest.fixture
def transport() -> ScriptedTransport:
    """Accept everything."""
    return ScriptedTransport()


@pytest.fixture
def agent(server: Server, transport: ScriptedTransport) -> Iterator[Agent]:
    """An agent that the master makes."""
    agent = Agent(config(flush_interval=0.01), transport=transport)
    yield agent
    agent.stop()


def capture(agent: Agent, count: int = 3) -> None:
    for _ in range(count):
        assert agent.capture(SecurityEvent(event_type="scanned"))


def become(agent: Agent, server: Server, worker: int) -> None:
    """Be a worker that the agent was copied into."""
    server.fork(worker)
    agent._pipeline.pid = -1


def test_nothing_is_started_before_the_fork(agent: Agent) -> None:
    """Neither by captures nor by asking for it: a thread could hang a worker (FIELD F4)."""
    capture(agent)
    agent.start()
    agent.wait_for_rules(timeout=PATIENCE)

    assert agent.stats().threads_alive == 0
    assert (agent.stats().captured, agent.stats().pending) == (3, 3)


def test_flush_before_the_fork_waits_for_nobody(agent: Agent, transport: ScriptedTransport) -> None:
    """It says that nothing is delivered yet; what was captured goes on waiting."""
    capture(agent)

    assert not agent.flush(timeout=PATIENCE)
    assert agent.stats().pending == 3
    assert transport.accepted == []


def test_a_process_that_becomes_the_first_worker_goes_on(
    agent: Agent, server: Server, transport: ScriptedTransport
) -> None:
    """Where there is no master, it delivers what it captured before with what comes after."""
    server.master = 0
    capture(agent)
    server.worker = 1
    capture(agent, 1)

    assert agent.flush(timeout=PATIENCE)
    assert agent.stats().delivered == 4
    assert len(transport.accepted) == 4


def test_the_first_worker_delivers_what_the_master_captured(
    agent: Agent, server: Server, transport: ScriptedTransport
) -> None:
    """With its own; its books count both."""
    capture(agent)
    become(agent, server, 1)
    capture(agent, 1)

    assert agent.flush(timeout=PATIENCE)
    assert (agent.stats().captured, agent.stats().delivered) == (4, 4)


def test_it_does_so_at_its_end_though_it_captures_nothing(
    agent: Agent, server: Server, transport: ScriptedTransport
) -> None:
    """The exit handlers see to it."""
    capture(agent)
    become(agent, server, 1)
    _fork.notice()
    settled = _exit.settle_all(is_exit=False)

    assert settled
    assert len(transport.accepted) == 3


@pytest.mark.parametrize(("worker", "respawns"), [(2, 0), (1, 1)], ids=["second", "respawned"])
def test_others_leave_it_alone(
    agent: Agent, server: Server, transport: ScriptedTransport, worker: int, respawns: int
) -> None:
    """Else it would arrive once for each worker, and once more for each that is born again."""
    server.respawns = respawns
    capture(agent)
    become(agent, server, worker)
    capture(agent, 1)

    assert agent.flush(timeout=PATIENCE)
    assert len(transport.accepted) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda server: setattr(server, "worker", 2),
        lambda server: setattr(server, "master", 1),  # a mule, of another process's
        lambda server: setattr(server, "is_spooler", True),
    ],
    ids=["worker", "mule", "spooler"],
)
def test_other_processes_start_at_once(server: Server, change: Callable[[Server], object]) -> None:
    """They fork nobody."""
    change(server)

    assert not _uwsgi.is_before_fork()


def test_without_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a module of the application's that has the same name change anything."""
    namesake: Any = SimpleNamespace(opt={})
    answers = []
    for module in (None, namesake):
        monkeypatch.setitem(sys.modules, "uwsgi", module)
        answers += [_uwsgi.is_before_fork(), _uwsgi.is_heir(), _uwsgi.lacks_threads()]

    assert answers == [False] * 6


@pytest.mark.parametrize(
    ("has_threads", "options", "warns"),
    [
        (0, {}, True),
        (1, {}, False),
        (None, {}, True),
        (None, {"threads": b"2"}, False),
        (None, {"enable-threads": True}, False),
        (None, {b"enable-threads": True}, False),
    ],
)
def test_a_server_without_threads_is_warned_of(
    agent: Agent,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    has_threads: int | None,
    options: dict[Any, Any],
    warns: bool,
) -> None:
    """Once, and with the name of the flag; versions that do not tell have options."""
    server.worker = 1
    server.module.opt = options
    server.module.has_threads = has_threads
    if has_threads is None:
        del server.module.has_threads

    with caplog.at_level(logging.WARNING):
        agent.start()
        agent.start()

    lines = [line for line in caplog.messages if "--enable-threads" in line]
    assert len(lines) == int(warns)
