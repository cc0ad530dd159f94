"""The end of a process: what is pending leaves first, in bounded time and without a word."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.scripts import Run
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.support.breakdowns import Drip, HangBeforeHeaders

#: Hang detectors, not measurements: interpreter start, imports and a busy machine included.
SLACK = 10.0


@pytest.mark.parametrize("how", ["end", "flush", "stop", "sys_exit", "exception", "interrupt"])
def test_every_ordinary_end_delivers(run: Run, backend: Backend, how: str) -> None:
    """However a program ends by itself, what it captured is delivered first."""
    outcome = run("leaving", how=how).wait()

    assert len(outcome.captured) == 20
    assert sorted(backend.received) == sorted(outcome.captured)
    status = {"sys_exit": 3, "exception": 1, "interrupt": -signal.SIGINT}.get(how, 0)
    assert outcome.status == status
    if how not in ("exception", "interrupt"):
        assert outcome.stderr == ""
    assert backend.unreadable == []


def test_events_waiting_for_company_leave_at_exit(run: Run, backend: Backend) -> None:
    """A long flush interval and a large buffer hold nothing back at exit."""
    outcome = run(
        "leaving", how="end", settings={"flush_interval": 600, "buffer_size": 5000}
    ).wait()

    assert sorted(backend.received) == sorted(outcome.captured)
    assert (outcome.status, outcome.stderr) == (0, "")


@pytest.mark.parametrize("how", ["end", "sys_exit", "stop", "flush"])
def test_silent_backend_holds_no_process(run: Run, backend: Backend, how: str) -> None:
    """Against a backend that never answers the process still ends, and says nothing."""
    backend.default = HangBeforeHeaders()
    settings = {"shutdown_timeout": 0.5, "timeout": 30.0}

    outcome = run("leaving", how=how, patience=0.5, settings=settings).wait()

    assert outcome.stderr == ""
    assert outcome.status == (3 if how == "sys_exit" else 0)
    assert outcome.seconds < 1.0 + SLACK
    assert backend.received == []


def test_dripping_backend_holds_no_process(run: Run, backend: Backend) -> None:
    """A backend that answers a byte at a time does not hold the exit past its deadline."""
    backend.default = Drip(0.05)

    outcome = run("leaving", how="end", settings={"shutdown_timeout": 0.5, "timeout": 30}).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.seconds < 0.5 + SLACK


def test_absent_backend_holds_no_process(run: Run, backend: Backend) -> None:
    """With the backend away the process ends, and says nothing."""
    backend.down()

    outcome = run("leaving", how="end").wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.seconds < 2.0 + SLACK


def test_back_off_does_not_hold_the_exit(run: Run, backend: Backend) -> None:
    """An exit during a long back-off makes one more attempt at once instead of waiting it out."""
    backend.script(Status(503, {"Retry-After": "120"}))
    program = run("leaving", how="end", told=True)
    assert backend.wait_for_requests(1)
    program.tell()

    outcome = program.wait()

    assert sorted(backend.received) == sorted(outcome.captured)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.seconds < 2.0 + SLACK


def test_agents_share_one_exit_deadline(run: Run, backend: Backend) -> None:
    """Ten agents with a silent backend take no longer to leave than one."""
    backend.default = HangBeforeHeaders()
    settings = {"shutdown_timeout": 1.5, "timeout": 30.0}

    outcome = run("leaving", how="end", agents=10, count=2, settings=settings).wait()

    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.seconds < 1.5 + SLACK  # ten deadlines would be 15


@pytest.mark.parametrize(
    "how", ["atexit_first", "atexit_last", "atexit_unstarted", "atexit_after_some", "finalizer"]
)
def test_capture_in_an_exit_handler_is_delivered(run: Run, backend: Backend, how: str) -> None:
    """Events captured by an exit handler leave too, though 3.12 starts no thread any more."""
    outcome = run("late", how=how).wait()

    assert len(outcome.captured) == (10 if how == "atexit_after_some" else 5)
    assert sorted(backend.received) == sorted(outcome.captured)
    assert (outcome.status, outcome.stderr) == (0, "")


def test_capture_in_a_thread_that_outlives_main_is_delivered(run: Run, backend: Backend) -> None:
    """A thread still at work after the main one ended can capture its first events."""
    outcome = run("late", how="thread").wait()

    assert len(outcome.captured) == 5
    assert sorted(backend.received) == sorted(outcome.captured)
    assert (outcome.status, outcome.stderr) == (0, "")


def test_capture_while_modules_are_torn_down_is_harmless(run: Run, backend: Backend) -> None:
    """A finalizer that captures at the very end neither hangs nor prints."""
    outcome = run("late", how="del").wait()

    assert set(outcome.captured) <= backend.keys
    assert (outcome.status, outcome.stderr) == (0, "")


def test_thirty_exits_under_load_are_silent(run: Run, backend: Backend) -> None:
    """Programs that end while four daemon threads capture leave nothing on standard error."""

    def one(_: int) -> tuple[int, str, set[str]]:
        outcome = run("leaving", how="daemons").wait()
        return outcome.status, outcome.stderr, set(outcome.captured) - backend.keys

    with ThreadPoolExecutor(max_workers=2) as pool:
        endings = list(pool.map(one, range(30)))

    assert endings == [(0, "", set())] * 30
    assert backend.unreadable == []


@pytest.mark.parametrize(("how", "status"), [("default", -signal.SIGTERM), ("chained", 7)])
def test_sigterm_flushes_when_asked(run: Run, backend: Backend, how: str, status: int) -> None:
    """With `flush_on_sigterm` the events leave first, then the former handler has its say."""
    settings = {"flush_on_sigterm": True, "flush_interval": 600, "buffer_size": 5000}
    program = run("terminated", how=how, settings=settings)
    captured = program.read_report()["captured"]

    program.signal(signal.SIGTERM)
    outcome = program.wait()

    assert outcome.status == status
    assert sorted(backend.received) == sorted(captured)
    assert outcome.stderr == ""
    assert [line["handled"] for line in outcome.reports] == ([15] if how == "chained" else [])


def test_sigterm_with_a_silent_backend_ends_the_process(run: Run, backend: Backend) -> None:
    """The flush on SIGTERM is bounded by the shutdown timeout."""
    backend.default = HangBeforeHeaders()
    settings = {"flush_on_sigterm": True, "shutdown_timeout": 0.5, "timeout": 30.0}
    program = run("terminated", how="default", settings=settings)
    program.read_report()

    program.signal(signal.SIGTERM)
    outcome = program.wait(0.5 + SLACK)

    assert (outcome.status, outcome.stderr) == (-signal.SIGTERM, "")


def test_sigterm_is_left_alone_by_default(run: Run) -> None:
    """Without the setting no handler is installed."""
    program = run("terminated", how="default", settings={"flush_interval": 600})
    first = program.read_report()

    program.signal(signal.SIGTERM)
    outcome = program.wait()

    assert first["default"] is True
    assert (outcome.status, outcome.stderr) == (-signal.SIGTERM, "")


def test_sigterm_that_was_ignored_stays_ignored(run: Run, backend: Backend) -> None:
    """A program that ignores SIGTERM goes on after the flush."""
    outcome = run("terminated", how="ignored", settings={"flush_on_sigterm": True}).wait()

    assert {"survived": True} in outcome.reports
    assert sorted(backend.received) == sorted(outcome.captured)
    assert (outcome.status, outcome.stderr) == (0, "")


def test_sigterm_setting_off_the_main_thread_does_no_harm(run: Run, backend: Backend) -> None:
    """Where Python allows no handler the agent works without one."""
    program = run("terminated", how="elsewhere", settings={"flush_on_sigterm": True})
    captured = program.read_report()["captured"]
    assert backend.wait_for(len(captured))

    program.signal(signal.SIGTERM)
    outcome = program.wait()

    assert outcome.status == -signal.SIGTERM
    assert sorted(backend.received) == sorted(captured)
