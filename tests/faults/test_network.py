"""Connections that are refused, hang, break and come back."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import (
    Errors,
    assert_balanced,
    assert_delivered,
    bounded,
    capture,
    repeats,
)
from tests.support.answers import Answer, CloseIdle, Held, Status
from tests.support.backend import Backend
from tests.support.breakdowns import (
    AcceptThenReset,
    CloseBeforeAnswer,
    CloseInHead,
    Drip,
    DripHead,
    EndlessContinue,
    HangBeforeHeaders,
    HangInBody,
    HangInHead,
    ResetBeforeAnswer,
    ResetInBody,
    ShortBody,
)

NOT_ACCEPTED = [
    HangBeforeHeaders(),
    HangInHead(),
    DripHead(0.05),
    EndlessContinue(0.05),
    ResetBeforeAnswer(),
    CloseBeforeAnswer(),
    CloseInHead(),
]
ACCEPTED_UNHEARD = [AcceptThenReset(), HangInBody(), ResetInBody(), ShortBody(), Drip(0.05)]


def name(answer: Answer) -> str:
    return type(answer).__name__


@pytest.mark.parametrize("fault", NOT_ACCEPTED, ids=name)
def test_a_batch_that_was_not_accepted_is_sent_again(
    backend: Backend, make_agent: MakeAgent, fault: Answer
) -> None:
    """A connection that fails before the answer costs nothing but another request."""
    backend.script(fault, fault)
    agent = make_agent(timeout=0.6)

    keys = capture(agent, 7)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []
    assert len(backend.requests) == 3
    assert agent.stats().retried >= 1


@pytest.mark.parametrize("fault", ACCEPTED_UNHEARD, ids=name)
def test_a_batch_whose_acceptance_was_not_heard_is_not_lost(
    backend: Backend, make_agent: MakeAgent, fault: Answer
) -> None:
    """A lost acknowledgement may bring the batch twice, and then it is the same batch."""
    backend.script(fault, fault)
    agent = make_agent(timeout=0.6)

    keys = capture(agent, 7)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert {request.raw for request in backend.requests} == {backend.requests[0].raw}
    assert len({request.headers["idempotency-key"] for request in backend.requests}) == 1


def test_a_retry_is_the_same_request(backend: Backend, make_agent: MakeAgent) -> None:
    """Bytes, batch id and Idempotency-Key stay the same over every retry, inner and outer."""
    backend.script(*[Status(503)] * 4, ResetBeforeAnswer(), AcceptThenReset())
    agent = make_agent(retry_attempts=1)

    keys = capture(agent, 20, metadata={"text": "x" * 200})

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 7
    assert len({request.raw for request in backend.requests}) == 1
    names = {request.headers["idempotency-key"] for request in backend.requests}
    assert names == {backend.requests[0].document["batch_id"]}


def test_backend_away_at_start(backend: Backend, make_agent: MakeAgent) -> None:
    """What is captured before the backend is there arrives once it is."""
    backend.down()
    errors = Errors()
    agent = make_agent(on_error=errors)
    keys = capture(agent, 50)
    assert errors.wait()
    assert agent.flush(timeout=0.01) is False
    assert agent.stats().pending == 50

    backend.up()

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []
    assert agent.stats().last_error is None


def test_backend_away_in_the_middle(backend: Backend, make_agent: MakeAgent) -> None:
    """An outage between two batches costs nothing, and capture goes on meanwhile."""
    errors = Errors()
    agent = make_agent(on_error=errors)
    keys = capture(agent, 30)
    assert agent.flush(timeout=10.0)

    backend.down()
    keys += capture(agent, 30)
    assert errors.wait(3)
    keys += capture(agent, 30)
    backend.up()

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)


@pytest.mark.slow
def test_backend_away_for_ten_seconds_under_load(backend: Backend, make_agent: MakeAgent) -> None:
    """Ten seconds without a backend, with threads capturing all the time, lose nothing."""
    agent = make_agent(buffer_size=50)
    is_over = threading.Event()
    keys: list[str] = []

    def work() -> None:
        while not is_over.wait(0.01):
            keys.extend(capture(agent, 5))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert backend.wait_for(100)
    backend.down()
    is_over.wait(10.0)  # the fault itself, not a synchronisation
    backend.up()
    already = len(backend.keys)
    assert backend.wait_for(already + 500, timeout=45.0)
    is_over.set()
    for worker in workers:
        worker.join()

    assert agent.flush(timeout=30.0)
    assert_delivered(agent, backend, keys)


def test_backend_that_restarts_with_open_connections(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """A kept-alive connection that died with the backend costs no event."""
    agent = make_agent()
    keys: list[str] = []
    for _ in range(5):
        keys += capture(agent, 3)
        assert agent.flush(timeout=15.0)
        backend.down()
        backend.up()

    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []


def test_idle_connection_closed_by_the_backend(backend: Backend, make_agent: MakeAgent) -> None:
    """A connection closed while idle costs no event and at most one more request a batch."""
    backend.script(*[CloseIdle()] * 5)
    agent = make_agent()
    keys: list[str] = []
    for _ in range(5):
        keys += capture(agent)
        assert agent.flush(timeout=15.0)

    assert_delivered(agent, backend, keys)
    assert len(backend.requests) <= 10


def test_silent_backend_does_not_hold_capture_or_stop(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """While a request hangs, captures are taken at once and stop keeps to its timeout."""
    backend.default = HangBeforeHeaders()
    agent = make_agent(timeout=60.0)
    keys = capture(agent)
    assert backend.wait_for_requests(1)

    keys += capture(agent, 5_000)
    stopped = bounded(lambda: agent.stop(timeout=0.3))

    assert stopped is False
    stats = agent.stats()
    assert_balanced(agent)
    assert (stats.captured, stats.delivered) == (len(keys), 0)
    assert stats.pending + stats.dropped["shutdown"] == len(keys)


def test_port_where_nobody_accepts(make_agent: MakeAgent) -> None:
    """A listener whose owner is stuck holds neither flush nor stop."""
    with socket.create_server(("127.0.0.1", 0)) as stuck:
        endpoint = f"http://127.0.0.1:{stuck.getsockname()[1]}"
        agent = make_agent(endpoint=endpoint, timeout=60.0)
        keys = capture(agent, 10)

        assert bounded(lambda: agent.flush(timeout=0.2)) is False
        assert bounded(lambda: agent.stop(timeout=0.2)) is False
        assert agent.stats().captured == len(keys)
        assert_balanced(agent)


def test_host_that_does_not_resolve(
    make_agent: MakeAgent, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name error is an outage like any other: kept, then delivered."""
    resolve = socket.getaddrinfo
    is_back = threading.Event()

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "collector.test" and not is_back.is_set():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1" if host == "collector.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    errors = Errors()
    agent = make_agent(endpoint=f"http://collector.test:{backend.port}", on_error=errors)
    keys = capture(agent, 10)
    assert errors.wait()
    assert agent.stats().pending == 10

    is_back.set()

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)


@pytest.mark.parametrize("fault", [*NOT_ACCEPTED, *ACCEPTED_UNHEARD], ids=name)
def test_stop_in_a_fault_is_bounded(backend: Backend, make_agent: MakeAgent, fault: Answer) -> None:
    """Whatever the backend does, stop ends, and the books balance."""
    backend.default = fault
    agent = make_agent(timeout=30.0, retry_attempts=50)
    keys = capture(agent, 10)
    assert backend.wait_for_requests(1)

    bounded(lambda: agent.stop(timeout=0.5))

    stats = agent.stats()
    assert_balanced(agent)
    assert stats.captured == len(keys)
    assert stats.delivered == 0 or backend.keys == set(keys)
    assert stats.threads_alive == 0


def test_flush_in_a_fault_is_bounded(backend: Backend, make_agent: MakeAgent) -> None:
    """A flush that cannot succeed says so in time."""
    backend.default = HangBeforeHeaders()
    agent = make_agent(timeout=60.0)
    capture(agent)

    assert bounded(lambda: agent.flush(timeout=0.2)) is False


def test_stop_while_another_thread_flushes(backend: Backend, make_agent: MakeAgent) -> None:
    """Both come back, and what was held up is delivered."""
    held = Held()
    backend.script(held)
    agent = make_agent(timeout=30.0)
    keys = capture(agent, 5)
    assert backend.wait_for_requests(1)
    flushed: list[bool] = []
    flusher = threading.Thread(target=lambda: flushed.append(agent.flush(timeout=20.0)))
    flusher.start()
    held.let_go()

    assert agent.stop(timeout=10.0)
    flusher.join(15.0)

    assert flushed == [True]
    assert_delivered(agent, backend, keys)


def test_failed_sends_leave_nothing_open(backend: Backend, make_agent: MakeAgent) -> None:
    """Two hundred failed requests leave no thread, descriptor or connection behind."""
    errors = Errors()
    agent = make_agent(on_error=errors, retry_attempts=100, backoff_factor=0.0)
    backend.script(*[ResetBeforeAnswer(), Status(500, body=b"x" * 4096)] * 100)

    keys = capture(agent, 3)

    assert agent.flush(timeout=40.0)
    assert len(backend.requests) == 201
    assert agent.stats().threads_alive <= 3
    assert_delivered(agent, backend, keys)
