"""The opt-in SIGTERM handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guardagent import Agent, SecurityEvent, _exit, _signals
from tests.scripted import PATIENCE, Held, ScriptedTransport, config, in_threads

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def sigterm(no_leaks: None) -> Iterator[None]:
    """Put SIGTERM's handler back, and leave out whatever other tests' agents left."""
    former = signal.getsignal(signal.SIGTERM)
    live = set(_exit._live)
    _exit._live.clear()
    yield
    _exit._live.update(live)
    signal.signal(signal.SIGTERM, former)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the signals that are sent, and send none: they could end the test run."""
    signals: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert pid == os.getpid()
        signals.append(number)

    monkeypatch.setattr(_signals.os, "kill", kill)
    return signals


def join_delivery() -> None:
    for thread in threading.enumerate():
        if thread.name == "guardagent-sigterm":
            thread.join(PATIENCE)


def deliver(handler: Callable[[int, Any], None], sent: list[int]) -> None:
    """Do what the interpreter does with a signal, twice: as it comes and as it is sent again."""
    handler(signal.SIGTERM, None)
    join_delivery()
    assert sent == [signal.SIGTERM]
    handler(signal.SIGTERM, None)


def installed() -> Any:
    _signals.install()
    return signal.getsignal(signal.SIGTERM)


def test_by_default_no_handler_is_installed() -> None:
    """A library does not touch signals unless it is asked to (FIELD N8)."""
    before = signal.getsignal(signal.SIGTERM)

    with Agent(config(), transport=ScriptedTransport()):
        after = signal.getsignal(signal.SIGTERM)

    assert after is before


def test_it_is_installed_by_the_start() -> None:
    """Of an agent that was asked to, and once for all agents."""
    with Agent(config(flush_on_sigterm=True), transport=ScriptedTransport()):
        first = signal.getsignal(signal.SIGTERM)
        with Agent(config(flush_on_sigterm=True), transport=ScriptedTransport()):
            second = signal.getsignal(signal.SIGTERM)

    assert isinstance(first, _signals._Handler)
    assert second is first


def test_off_the_main_thread_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers can be set by the main thread only."""
    before = signal.getsignal(signal.SIGTERM)

    in_threads(1, lambda _: _signals.install())

    assert signal.getsignal(signal.SIGTERM) is before
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("flush_on_sigterm needs start() on the main thread")


def test_pending_events_are_delivered_before_the_former_handler_runs(sent: list[int]) -> None:
    """It is called once, with the signal, and put back."""
    transport = ScriptedTransport()
    seen: list[Any] = []

    def former(number: int, frame: object) -> None:
        seen.append((number, len(transport.accepted)))

    signal.signal(signal.SIGTERM, former)
    agent = Agent(config(flush_interval=3_600.0, flush_on_sigterm=True), transport=transport)
    agent.capture(SecurityEvent(event_type="probe"))

    deliver(signal.getsignal(signal.SIGTERM), sent)  # type: ignore[arg-type]

    assert seen == [(signal.SIGTERM, 1)]
    assert signal.getsignal(signal.SIGTERM) is former
    agent.stop()


@pytest.mark.parametrize("former", [signal.SIG_DFL, None])
def test_a_process_that_would_die_of_it_does(former: Any, sent: list[int]) -> None:
    """The signal is sent again with the system's own handler in place (exit status -15)."""
    handler = _signals._Handler(former)
    signal.signal(signal.SIGTERM, handler)

    deliver(handler, sent)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sent == [signal.SIGTERM] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_exit_status_is_that_of_the_signal() -> None:
    """A supervisor sees what it would have seen without the handler."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _signals.install()
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(PATIENCE)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)

    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_a_process_that_ignores_it_goes_on(sent: list[int]) -> None:
    """Nothing is sent again, and it is ignored as before."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler = installed()

    deliver(handler, sent)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert sent == [signal.SIGTERM]


def test_further_signals_do_not_cut_it_short(sent: list[int]) -> None:
    """While it delivers, the process does not die of an impatient supervisor's second one."""
    held = Held()
    transport = ScriptedTransport(held)
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler = installed()
    agent = Agent(config(), transport=transport)
    agent.capture(SecurityEvent(event_type="probe"))
    assert held.reached.wait(PATIENCE)

    handler(signal.SIGTERM, None)
    handler(signal.SIGTERM, None)
    handler(signal.SIGTERM, None)
    early = list(seen)
    held.let_go()
    join_delivery()
    handler(signal.SIGTERM, None)

    assert (early, seen) == ([], [signal.SIGTERM])
    agent.stop()


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, sent: list[int]) -> None:
    """The interrupted thread does it itself."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler = installed()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        handler(signal.SIGTERM, None)
    sent_again = list(sent)
    handler(signal.SIGTERM, None)

    assert (sent_again, seen) == ([signal.SIGTERM], [signal.SIGTERM])


def test_a_real_signal() -> None:
    """The whole way: the system's signal, the delivery, the signal again, the former handler."""
    transport = ScriptedTransport()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    agent = Agent(config(flush_interval=3_600.0, flush_on_sigterm=True), transport=transport)
    agent.capture(SecurityEvent(event_type="probe"))

    os.kill(os.getpid(), signal.SIGTERM)

    assert over.wait(PATIENCE)
    assert len(transport.accepted) == 1
    agent.stop()


def test_a_child_handles_its_own(sent: list[int]) -> None:
    """What the parent began before the fork is not the child's."""
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler = installed()
    handler._begun_by = handler._settled_by = os.getpid() - 1

    deliver(handler, sent)

    assert seen == [signal.SIGTERM]
