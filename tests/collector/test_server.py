"""The collector's web server: where it listens, how it starts and how it stops."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from guardagent.collector import Collector, CollectorServer, Store
from tests.collector.parts import Client, batch, connect, event, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from tests.collector.conftest import Start

_EVENTS = "/api/v1/events"
_GET_RULES = b"GET /api/v1/rules HTTP/1.1\r\nHost: x\r\n\r\n"


class _Held:
    """An application that says when it is entered, and waits to be let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.entered.set()
        self.released.wait(10.0)
        start("200 OK", [("Content-Length", "4")])
        return [b"done"]


def test_it_listens_on_loopback_at_a_free_port(start: Start) -> None:
    """By default nobody else on the network is let in."""
    first, second = start(), start()

    assert first.host == "127.0.0.1"
    assert first.url == f"http://127.0.0.1:{first.port}"
    assert 0 != first.port != second.port != 0


def test_ipv6_is_served(start: Start) -> None:
    """An IPv6 address is listened at and written in brackets."""
    try:
        server = start(host="::1")
    except OSError:
        pytest.skip("no IPv6 on loopback here")

    with Client(server) as client:
        assert client.get("/api/v1/rules").status == 200
    assert server.url == f"http://[::1]:{server.port}"


def test_a_taken_port_is_an_error(start: Start) -> None:
    """A second server at the same port does not start, and can be stopped all the same."""
    server = CollectorServer(app=_Held(), port=start().port)

    with pytest.raises(OSError, match="in use"):
        server.start()
    server.stop()


def test_a_stopped_server_refuses(store: Store) -> None:
    """After stop the port is closed, kept connections end, and a second stop does nothing."""
    server = CollectorServer(app=Collector(store))
    server.start()
    server.start()
    with connect(server) as idle:
        idle.sendall(_GET_RULES)
        idle.recv(65_536)

        server.stop()
        server.stop()

        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(server)


def test_a_server_comes_back_at_its_port(store: Store) -> None:
    """Started again it has the same address and the same store."""
    server = CollectorServer(app=Collector(store))
    ports = []
    for _ in range(2):
        with server, Client(server) as client:
            ports.append(server.port)
            client.post(_EVENTS, batch(events=[event()]))

    assert ports[0] == ports[1]
    assert store.count("event") == 2


def test_a_request_under_way_is_answered(start: Start) -> None:
    """Stop waits for an answer that is being made, and the client learns that it is the last."""
    app = _Held()
    server = start(app=app)
    with connect(server) as sock:
        sock.sendall(_GET_RULES)
        app.entered.wait(10.0)
        stopping = server._listener.stopping
        stopper = threading.Thread(target=server.stop, kwargs={"timeout": 10.0})
        stopper.start()
        stopping.wait(10.0)
        app.released.set()
        answer = read_all(sock)
        stopper.join()

    assert answer.endswith(b"done")
    assert b"Connection: close" in answer


def test_a_request_that_takes_too_long_is_cut_off(start: Start) -> None:
    """Stop does not wait longer than it is told."""
    app = _Held()
    server = start(app=app)
    with connect(server) as sock:
        sock.sendall(_GET_RULES)
        app.entered.wait(10.0)
        threading.Timer(0.3, app.released.set).start()

        server.stop(timeout=0.0)

        assert sock.recv(65_536) == b""


def test_many_clients_are_served_at_once(start: Start, store: Store) -> None:
    """Sixteen clients at the same time lose nothing."""
    server = start()
    barrier = threading.Barrier(16)
    statuses: list[int] = []

    def send() -> None:
        with Client(server) as client:
            barrier.wait(10.0)
            replies = [client.post(_EVENTS, batch(events=[event()])) for _ in range(5)]
            statuses.extend(reply.status for reply in replies)

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 80
    assert store.count("event") == 80


def test_connections_are_bounded(start: Start) -> None:
    """One more is told to come again; when another has ended there is room for it."""
    server = start(max_connections=2)

    def is_served() -> bool:
        with Client(server) as client, suppress(ConnectionError):
            return client.get("/api/v1/rules").status == 200
        return False

    with connect(server) as first, connect(server) as second:
        for sock in (first, second):
            sock.sendall(_GET_RULES)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
        with connect(server) as third:
            answer = read_all(third)
        second.sendall(_GET_RULES.replace(b"Host", b"Connection: close\r\nHost"))
        assert read_all(second).startswith(b"HTTP/1.1 200 ")
        # The second is forgotten a moment after its client sees the end.
        assert any(is_served() for _ in range(1_000))

    assert answer.startswith(b"HTTP/1.1 503 ")


def test_a_machine_without_threads_harms_nobody(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that no thread can be had for is closed and logged; the next one is served."""
    server = start()
    with monkeypatch.context() as patch:

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with connect(server) as refused:
            answer = read_all(refused)

    with Client(server) as client:
        assert client.get("/api/v1/rules").status == 200
    assert answer == b""
    assert "A connection failed." in caplog.messages


def test_a_reset_connection_harms_nobody(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that resets the connection is forgotten quietly."""
    server = start()
    sock = connect(server)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.sendall(_GET_RULES)
    sock.close()

    with Client(server) as client:
        assert client.get("/api/v1/rules").status == 200
    assert capfd.readouterr() == ("", "")
