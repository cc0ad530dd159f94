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


@pytest.fixture(autouse=True)
def sigterm(no_leaks: None) -> Iterator[None]:
    """Keep SIGTERM from ending the test run, and put its handler back."""
    former = signal.getsignal(signal.SIGTERM)
    # Blocked signals stay pending: a handler that lets the process die does so after the test, and
    # there it is ignored. Threads that are started meanwhile inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    live = set(_exit._live)
    _exit._live.clear()
    yield
    _exit._live.update(live)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, former)


def is_pending() -> bool:
    return signal.SIGTERM in signal.sigpending()


def deliver(handler: Callable[[int, Any], None]) -> None:
    """Do what the interpreter does with a signal, twice: as it comes and as it is sent again."""
    handler(signal.SIGTERM, None)
    for thread in threading.enumerate():
        if thread.name == "guardagent-sigterm":
            thread.join(PATIENCE)
    assert is_pending()
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


def test_pending_events_are_delivered_before_the_former_handler_runs() -> None:
    """It is called once, with the signal, and put back."""
    transport = ScriptedTransport()
    seen: list[Any] = []

    def former(number: int, frame: object) -> None:
        seen.append((number, len(transport.accepted)))

    signal.signal(signal.SIGTERM, former)
    agent = Agent(config(flush_interval=3_600.0, flush_on_sigterm=True), transport=transport)
    agent.capture(SecurityEvent(event_type="probe"))

    deliver(signal.getsignal(signal.SIGTERM))  # type: ignore[arg-type]

    assert seen == [(signal.SIGTERM, 1)]
    assert signal.getsignal(signal.SIGTERM) is former
    agent.stop()


@pytest.mark.parametrize("former", [signal.SIG_DFL, None])
def test_a_process_that_would_die_of_it_does(former: Any) -> None:
    """The signal is sent again with the system's own handler in place (exit status -15)."""
    handler = _signals._Handler(former)
    signal.signal(signal.SIGTERM, handler)

    deliver(handler)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert is_pending()


def test_a_process_that_ignores_it_goes_on() -> None:
    """Nothing is sent again, and it is ignored as before."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler = installed()

    deliver(handler)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_further_signals_do_not_cut_it_short() -> None:
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
    for thread in threading.enumerate():
        if thread.name == "guardagent-sigterm":
            thread.join(PATIENCE)
    handler(signal.SIGTERM, None)

    assert (early, seen) == ([], [signal.SIGTERM])
    agent.stop()


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupted thread does it itself."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler = installed()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        handler(signal.SIGTERM, None)
    sent_again = is_pending()
    handler(signal.SIGTERM, None)

    assert (sent_again, seen) == (True, [signal.SIGTERM])


def test_a_real_signal() -> None:
    """The whole way: the system's signal, the delivery, the signal again, the former handler."""
    transport = ScriptedTransport()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    agent = Agent(config(flush_interval=3_600.0, flush_on_sigterm=True), transport=transport)
    agent.capture(SecurityEvent(event_type="probe"))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.kill(os.getpid(), signal.SIGTERM)

    assert over.wait(PATIENCE)
    assert len(transport.accepted) == 1
    agent.stop()


def test_a_child_handles_its_own() -> None:
    """What the parent began before the fork is not the child's."""
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler = installed()
    handler._begun_by = handler._settled_by = os.getpid() - 1

    deliver(handler)

    assert seen == [signal.SIGTERM]
