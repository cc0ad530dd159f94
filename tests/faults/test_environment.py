"""Homes that cannot be written, missing keys, names that do not resolve, clocks that jump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.scripts import Run
from tests.support.accounts import repeats
from tests.support.answers import BrokenJson, Status
from tests.support.backend import Backend
from tests.support.breakdowns import ResetBeforeAnswer


@pytest.mark.parametrize("home", [None, "", "/dev/null", "/proc/nowhere", "/", "relative"])
def test_home_of_any_kind(run: Run, backend: Backend, home: str | None) -> None:
    """Without a usable home there is an identity all the same."""
    environ = {"HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
    outcome = run("bare", how="captured", environ=environ).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert backend.received == outcome.captured
    assert backend.requests[0].headers["x-agent-install-id"]


def test_home_that_is_a_file(run: Run, backend: Backend, tmp_path: Path) -> None:
    """The place of the identity may be taken by something else."""
    (tmp_path / "home" / ".guard-agent").write_text("not a folder")

    outcome = run("bare", how="captured").wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert backend.received == outcome.captured


@pytest.mark.parametrize(
    "text", ["", "\n", "a\r\nX-Injected: 1", "\x00\x01", "é" * 20, "x" * 10_000]
)
def test_identity_file_of_any_content(
    run: Run, backend: Backend, tmp_path: Path, text: str
) -> None:
    """What somebody wrote into the identity's file breaks no request."""
    folder = tmp_path / "home" / ".guard-agent"
    folder.mkdir()
    (folder / "install-id").write_text(text, "utf-8", newline="")

    outcome = run("bare", how="captured").wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert backend.received == outcome.captured
    assert "x-injected" not in backend.requests[0].headers
    assert 0 < len(backend.requests[0].headers["x-agent-install-id"]) < 500


def test_missing_key_disables(run: Run, backend: Backend) -> None:
    """Without a key the agent takes nothing, starts nothing and breaks nothing."""
    environ = {"GUARDAGENT_ENDPOINT": backend.url}
    outcome = run("bare", how="disabled", environ=environ).wait()

    first, last = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert (first["taken"], first["flushed"], first["stopped"]) == (False, True, True)
    assert first["dropped"]["disabled"] == 1
    assert last["threads"] == 1
    assert backend.connections == 0


def test_no_agent_at_all(run: Run) -> None:
    """The process-wide functions do nothing before `init`."""
    outcome = run("bare", how="global").wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.reports[0] == {"taken": False, "agent": "None"}
    assert outcome.reports[1] == {"threads": 1, "requests": False}


def test_constructing_starts_nothing(run: Run, backend: Backend) -> None:
    """An agent that captured nothing has no thread, no connection, and nothing to end."""
    outcome = run("bare", how="constructed").wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.reports[0]["threads"] == 1
    assert backend.connections == 0


def test_constructing_and_forking_warns_of_nothing(run: Run, backend: Backend) -> None:
    """Python 3.12 warns of a fork beside threads: there are none."""
    outcome = run("bare", how="forked", flags=("-W", "error::DeprecationWarning")).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.reports[0] == {"status": 0}
    assert len(backend.received) == 1


def test_resolver_that_hangs(run: Run, backend: Backend) -> None:
    """A name that never resolves slows no capture and holds no exit."""
    settings = {"endpoint": "http://collector.test", "shutdown_timeout": 0.5}
    outcome = run("resolver", settings=settings).wait()

    (report,) = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert len(report["captured"]) == 1_005
    assert report["flushed"] is False
    assert report["held_up"] < 5.0
    assert outcome.seconds < 15.0


def test_wall_clock_that_jumps(run: Run, backend: Backend) -> None:
    """Intervals, deadlines and ages do not follow the wall clock."""
    settings = {"max_event_age": 1_000.0, "timeout": 10.0}
    outcome = run("clock", settings=settings).wait()

    (report,) = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert (report["flushed"], report["stopped"], report["balanced"]) == (True, True, True)
    assert set(outcome.captured) == backend.keys
    assert repeats(backend.received) == []


def test_nothing_is_imported_late(run: Run, backend: Backend) -> None:
    """Once its threads run the agent imports nothing: a fork in the middle would hang the child."""
    backend.script(Status(503), ResetBeforeAnswer(), Status(413), Status(422), BrokenJson())
    outcome = run("imports").wait()

    (report,) = outcome.reports
    assert (outcome.status, outcome.stderr) == (0, "")
    assert report["flushed"] is True
    assert report["late"] == []
