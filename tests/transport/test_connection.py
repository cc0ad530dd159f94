"""Connections that end at a deadline, below requests and urllib3."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from urllib3 import PoolManager
from urllib3.util.retry import Retry

from guardagent.transport.connection import DeadlineAdapter, _DeadlineReader
from tests.scripted import PATIENCE
from tests.support.answers import Held, Status
from tests.support.backend import Backend
from tests.support.breakdowns import DripHead


@pytest.fixture
def adapter() -> Iterator[DeadlineAdapter]:
    adapter = DeadlineAdapter(Retry(0))
    yield adapter
    adapter.close()
    for connection in list(adapter.opened):
        connection.close()


@pytest.fixture
def session(adapter: DeadlineAdapter) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", adapter)
        yield session


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def opened(adapter: DeadlineAdapter) -> Any:
    (connection,) = adapter.opened
    return connection


# -- the reader ----------------------------------------------------------------------------------


def reader(sock: socket.socket, seconds: float) -> _DeadlineReader:
    raw = socket.SocketIO(sock, "r")
    sock._io_refs += 1  # type: ignore[attr-defined]
    return _DeadlineReader(raw, sock, time.monotonic() + seconds)


def test_reader_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    """What is there comes at once; the end of the stream is noticed."""
    ours, theirs = pair
    theirs.sendall(b"answer")
    with reader(ours, PATIENCE) as raw:
        text = raw.read(6)
        before = raw.has_ended
        theirs.close()
        rest = raw.read(1)

        assert (text, rest, raw.readable()) == (b"answer", b"", True)
        assert (before, raw.has_ended) == (False, True)


def test_reader_ends_at_its_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """Also when something is there to read: a drip does not go on for ever."""
    ours, theirs = pair
    theirs.sendall(b"drip")

    with reader(ours, -1.0) as raw, pytest.raises(TimeoutError, match="took too long"):
        raw.read(4)


def test_reader_waits_no_longer_than_what_is_left(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The socket's own timeout is set to it."""
    ours, _ = pair

    with reader(ours, 0.01) as raw, pytest.raises(TimeoutError):
        raw.read(1)

    assert ours.gettimeout() is not None
    assert ours.gettimeout() <= 0.01  # type: ignore[operator]


# -- requests ------------------------------------------------------------------------------------


def test_head_that_was_cut_off_is_no_answer() -> None:
    """The end of the stream within the head is not the end of the head (RFC 9112 8)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65_536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nX-Half: ye")

    thread = threading.Thread(target=answer)
    thread.start()
    adapter = DeadlineAdapter(Retry(0))
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", adapter)
            port = listener.getsockname()[1]
            with pytest.raises(requests.ConnectionError) as caught:
                session.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE)
    finally:
        thread.join(PATIENCE)
        listener.close()
        for connection in list(adapter.opened):
            connection.close()

    assert "the answer ended within its head" in str(caught.value)


def test_dripping_head_is_cut_off(backend: Backend, session: requests.Session) -> None:
    """A byte now and then does not start the time anew."""
    backend.default_rules = DripHead(0.02)

    with pytest.raises(requests.RequestException):
        session.get(f"{backend.url}/api/v1/rules", timeout=0.2)


def test_each_request_has_its_own_time(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """On a connection that was kept open the deadline is set anew."""
    ends = []

    for _ in range(2):
        with session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE):
            ends.append(opened(adapter)._ends_at)

    assert backend.connections == 1
    assert ends[0] < ends[1]


def test_connecting_is_part_of_the_requests_time(
    backend: Backend, adapter: DeadlineAdapter
) -> None:
    """Under TLS and through a proxy it comes first; the next request has a time of its own."""
    connection = adapter._pools["http"].ConnectionCls("127.0.0.1", backend.port, timeout=PATIENCE)
    connection.connect()
    ends = [connection._ends_at]

    for _ in range(2):
        connection.request("GET", "/api/v1/rules")
        ends.append(connection._ends_at)
        connection.getresponse().read()
    connection.close()

    assert ends[0] == ends[1] < ends[2]


# -- breaking and forgetting ---------------------------------------------------------------------


def test_abort_breaks_a_request(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """Whoever reads in another thread gets an error."""
    held = Held(Status(200))
    backend.script_rules(held)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
        except requests.RequestException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert backend._ledger.wait(lambda: len(backend.rules_requests) == 1, PATIENCE)
    opened(adapter).abort()
    thread.join(PATIENCE)
    held.let_go()

    assert len(errors) == 1


def test_abort_of_what_is_gone(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """Neither a closed nor a reset connection is an error."""
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
    connection = opened(adapter)

    backend.down()
    connection.abort()
    connection.abort()
    connection.close()
    connection.abort()

    assert connection.handle is None


def test_abort_of_a_handle_that_is_not_connected() -> None:
    """An error of the system's means that it is gone already."""
    adapter = DeadlineAdapter(Retry(0))
    connection = adapter._pools["http"].ConnectionCls("127.0.0.1", 9)
    connection.handle = socket.socket()

    connection.abort()
    connection.close()

    assert connection.handle is None


def test_close_lets_go_of_both_handles(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """The second one as well, or the backend would never see the end."""
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
    connection = opened(adapter)
    handle = connection.handle

    connection.close()

    assert (connection.sock, connection.handle, handle.fileno()) == (None, None, -1)


def test_forget_closes_the_descriptors(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """All of them, and a second time does no harm."""
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
    connection = opened(adapter)
    handle = connection.handle

    connection.forget()
    connection.forget()

    assert (connection.sock, connection.handle, handle.fileno()) == (None, None, -1)


def test_forget_says_nothing_to_the_peer(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """Whoever else holds the connection, as a parent does, can go on using it."""
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
    connection = opened(adapter)
    parents = connection.sock.dup()

    connection.forget()
    parents.settimeout(PATIENCE)
    parents.sendall(b"GET /api/v1/rules HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = http.client.HTTPResponse(parents)
    answer.begin()
    body = answer.read()
    answer.close()
    parents.close()

    assert (answer.status, body) == (200, b"{}")


def test_a_second_connection_replaces_the_handle(
    backend: Backend, session: requests.Session, adapter: DeadlineAdapter
) -> None:
    """One that was closed by its peer is opened anew without a leak."""
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)
    first = opened(adapter).handle

    opened(adapter).close()
    session.get(f"{backend.url}/api/v1/rules", timeout=PATIENCE)

    assert first.fileno() == -1
    assert backend.connections == 2


def test_proxy_connections_are_ours_too(adapter: DeadlineAdapter) -> None:
    """They keep the same deadlines; SOCKS brings connections of its own."""
    plain = adapter.proxy_manager_for("http://127.0.0.1:9")
    adapter.proxy_manager["socks5://127.0.0.1:9"] = PoolManager()
    socks = adapter.proxy_manager_for("socks5://127.0.0.1:9")

    assert plain.pool_classes_by_scheme is adapter._pools
    assert socks.pool_classes_by_scheme is not adapter._pools


def test_reader_is_a_raw_stream() -> None:
    """The standard library can buffer it."""
    assert issubclass(_DeadlineReader, io.RawIOBase)
