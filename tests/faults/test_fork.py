"""Forks of every kind: the child has an agent of its own, and the parent keeps what it had."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.faults.scripts import FORKING, Run
from tests.support.accounts import repeats
from tests.support.answers import Held
from tests.support.backend import Backend
from tests.support.programs import Outcome

#: The parent's events wait until its end; a child that sent them too would be found out.
PENDING = {"flush_interval": 600.0, "buffer_size": 5_000, "timeout": 10.0}


@pytest.mark.parametrize("how", ["normal", "grandchildren", "stopping", "raw", "raw_exit"])
def test_children_deliver_their_own_events_only(run: Run, backend: Backend, how: str) -> None:
    """With events pending in the parent at each fork, every id arrives once."""
    outcome = run("forking", how=how, settings=PENDING, flags=FORKING).wait()

    generations = 12 if how == "grandchildren" else 3
    assert len(outcome.captured) == 10 + generations * 20
    _assert_delivered_once(outcome, backend)
    assert [line["flushed"] for line in outcome.reports if "flushed" in line].count(False) == 0
    assert {line["before"] for line in outcome.reports if "before" in line} == {0}
    assert [line["status"] for line in outcome.reports if "status" in line] == [0] * generations
    assert [line["balanced"] for line in outcome.reports if "balanced" in line].count(False) == 0


def test_configured_before_the_fork(run: Run, backend: Backend) -> None:
    """The case of a preloading server: the parent captures nothing, its children do."""
    outcome = run("forking", how="unstarted", parent=0, flags=("-W", "error")).wait()

    assert len(outcome.captured) == 60
    _assert_delivered_once(outcome, backend)


def test_child_that_captures_nothing_sends_nothing(run: Run, backend: Backend) -> None:
    """A child that only ends leaves its parent's events alone."""
    outcome = run("forking", how="idle", settings=PENDING, flags=FORKING).wait()

    assert len(outcome.captured) == 10
    _assert_delivered_once(outcome, backend)


def test_fork_while_threads_capture(run: Run, backend: Backend) -> None:
    """Whatever the parent's threads are doing at the fork, the child captures and delivers."""
    settings = {"buffer_size": 50, "timeout": 10.0}
    outcome = run(
        "forking", how="busy", children=15, count=5, settings=settings, flags=FORKING
    ).wait()

    assert [line["status"] for line in outcome.reports if "status" in line] == [0] * 15
    _assert_delivered_once(outcome, backend)


@pytest.mark.parametrize("how", ["in_request"])
def test_fork_during_a_request(run: Run, backend: Backend, how: str) -> None:
    """A child does not touch the connection on which its parent waits for an answer."""
    held = Held()
    backend.script(held)
    program = run("forking", how=how, settings={"timeout": 30.0}, flags=FORKING)
    program.read_report()
    assert backend.wait_for_requests(1)
    program.tell()
    assert backend.wait_for(60, timeout=20.0)
    held.let_go()

    outcome = program.wait()

    assert len(outcome.captured) == 70
    _assert_delivered_once(outcome, backend)


def test_child_of_a_stopped_agent(run: Run, backend: Backend) -> None:
    """A stopped agent stays stopped in a child."""
    outcome = run("forking", how="stopped", children=1, flags=FORKING).wait()

    parents = outcome.reports[-1]["captured"]
    assert sorted(backend.received) == sorted(parents)
    assert outcome.stderr == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("inherits", [False, True], ids=["own", "inherited"])
def test_multiprocessing(run: Run, backend: Backend, method: str, inherits: bool) -> None:
    """Children of multiprocessing deliver without a flush, by every start method."""
    outcome = run("children", how=method, inherits=inherits, flags=FORKING).wait()

    assert len(outcome.captured) == 15 + 5 * inherits
    assert [line["status"] for line in outcome.reports if "status" in line] == [0] * 3
    _assert_delivered_once(outcome, backend)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool(run: Run, backend: Backend, method: str) -> None:
    """Workers of a pool deliver before the pool is gone."""
    outcome = run("children", how="pool", method=method, inherits=True, flags=FORKING).wait()

    assert len(outcome.captured) == 35
    _assert_delivered_once(outcome, backend)


def test_subprocesses_while_capturing(run: Run, backend: Backend) -> None:
    """Starting programs disturbs neither the parent's threads nor its connection."""
    outcome = run("children", how="subprocesses", flags=FORKING).wait()

    assert len(outcome.captured) == 205
    _assert_delivered_once(outcome, backend)


def _assert_delivered_once(outcome: Outcome, backend: Backend) -> None:
    assert (outcome.status, outcome.stderr) == (0, "")
    assert backend.unreadable == []
    assert repeats(backend.received) == []
    assert set(outcome.captured) == backend.keys
    # No connection may be used by two processes: each would read the other's answers.
    users = defaultdict(set)
    for request in backend.requests:
        users[request.peer_port] |= {one["metadata"]["pid"] for one in request.records}
    assert {port: pids for port, pids in users.items() if len(pids) > 1} == {}
