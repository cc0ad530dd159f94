"""Connections to the collector, over raw sockets where a client would hide what happens."""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.collector.parts import Client, batch, connect, event, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from guardagent.collector import Store
    from tests.collector.conftest import Start

_EVENTS = "/api/v1/events"
_GET_RULES = b"GET /api/v1/rules HTTP/1.1\r\nHost: x\r\n\r\n"


def _post(body: bytes, *headers: str, length: object = None) -> bytes:
    lines = [f"POST {_EVENTS} HTTP/1.1", "Host: x", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_connection_is_kept(start: Start) -> None:
    """Requests, refused ones among them, share one connection."""
    with Client(start()) as client:
        client.post(_EVENTS, batch(events=[event()]))
        port = client.local_port
        statuses = [
            client.get("/api/v1/rules").status,
            client.post("/nowhere", b"x" * 5_000).status,
            client.post(_EVENTS, b"{").status,
            client.post(_EVENTS, batch(events=[event()])).status,
        ]

        assert statuses == [200, 404, 400, 200]
        assert client.local_port == port


def test_requests_may_be_sent_ahead(start: Start) -> None:
    """Two requests in one packet get two answers, in order."""
    with connect(start()) as sock:
        sock.sendall(_GET_RULES + _GET_RULES.replace(b"Host", b"Connection: close\r\nHost"))
        answers = read_all(sock)

    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers.count(b"Connection: close\r\n") == 1


@pytest.mark.parametrize(
    "request_line",
    [b"GET /api/v1/rules HTTP/1.0", b"GET /api/v1/rules HTTP/1.1\r\nConnection: close"],
)
def test_a_connection_ends_when_the_client_says_so(start: Start, request_line: bytes) -> None:
    """An old client, and one that asks for it, meet the end of the connection."""
    with connect(start()) as sock:
        sock.sendall(request_line + b"\r\nHost: x\r\n\r\n")
        head, _, body = read_all(sock).partition(b"\r\n\r\n")

    assert b"Connection: close" in head
    assert body == b"{}"


def test_an_answer_without_a_body_is_sent(start: Start) -> None:
    """A 304 arrives, and the connection goes on after it."""
    with Client(start()) as client:
        tag = client.get("/api/v1/rules").headers["etag"]
        replies = [client.get("/api/v1/rules", If_None_Match=tag) for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(304, b"")] * 2


def test_a_client_that_asks_first_is_told_to_go_on(start: Start) -> None:
    """`Expect: 100-continue` gets its answer before the body is sent."""
    body = json.dumps(batch()).encode()
    with connect(start()) as sock:
        sock.sendall(_post(body, "Expect: 100-continue")[: -len(body)])
        first = sock.recv(65_536)
        sock.sendall(body)
        second = sock.recv(65_536)

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("size", [150_000, 8_000_000])
def test_the_refusal_of_a_large_body_arrives(start: Start, size: int) -> None:
    """A sender that is still sending reads the 413 instead of a reset connection."""
    with Client(start()) as client:
        reply = client.post(_EVENTS, b"x" * size)

        assert reply.status == 413
        assert reply.headers["connection"] == "close"
        assert client.get("/api/v1/rules").status == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [("Transfer-Encoding: chunked", b"411"), ("Content-Length: much", b"400")],
)
def test_a_body_of_unknown_length_ends_the_connection(
    start: Start, header: str, status: bytes
) -> None:
    """What follows cannot be told from the body, so that nothing of it is read as a request."""
    smuggled = b"5\r\nhello\r\n0\r\n\r\n" + _GET_RULES
    with connect(start()) as sock:
        sock.sendall(f"POST {_EVENTS} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode() + smuggled)
        sock.shutdown(socket.SHUT_WR)
        answers = read_all(sock)

    assert answers.startswith(b"HTTP/1.1 " + status)
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"what is this, really\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"x" * 66_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 66_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_not_http_is_refused(start: Start, lines: bytes, status: bytes) -> None:
    """Garbage gets a status and the end of the connection, and the server goes on."""
    server = start()
    with connect(server) as sock:
        sock.sendall(lines)
        answer = sock.recv(65_536)
    with Client(server) as client:
        after = client.get("/api/v1/rules")

    assert b" " + status + b" " in answer.split(b"\r\n")[0]
    assert after.status == 200


def test_a_client_that_says_nothing_is_let_go(start: Start) -> None:
    """A connection without a request ends after the idle time."""
    with connect(start(idle_timeout=0.05)) as sock:
        assert read_all(sock) == b""


def test_a_body_that_does_not_come_is_a_408(start: Start, store: Store) -> None:
    """A sender that stalls is asked to send the batch again."""
    with connect(start(timeout=0.1)) as sock:
        sock.sendall(_post(b'{"project', length=500))
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert store.count("event") == 0


@contextmanager
def dripping(sock: socket.socket) -> Iterator[None]:
    """Send a byte now and then until the end, or until nobody takes it."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            try:
                sock.sendall(b"x")
            except OSError:
                return

    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        yield
    finally:
        stop.set()
        dripper.join()


def test_a_body_that_drips_is_a_408(start: Start) -> None:
    """A byte now and then does not keep a connection busy for ever."""
    with connect(start(timeout=0.3)) as sock:
        sock.sendall(_post(b"", length=90_000))
        with dripping(sock):
            answer = sock.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("head", [b"G", b"GET /api/v1/rules HTTP/1.1\r\nHost: "])
def test_a_head_that_drips_ends_the_connection(start: Start, head: bytes) -> None:
    """Nor do a request line and headers that never end."""
    with connect(start(timeout=0.3)) as sock:
        sock.sendall(head)
        with dripping(sock), suppress(ConnectionResetError):
            assert sock.recv(65_536) == b""


def test_a_sender_that_goes_away_leaves_nothing(start: Start, store: Store) -> None:
    """Half a body keeps nothing, is answered to nobody, and the server goes on."""
    server = start()
    with connect(server) as sock:
        sock.sendall(_post(b'{"project', length=500))
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    with Client(server) as client:
        after = client.get("/api/v1/rules")

    assert answer == b""
    assert after.status == 200
    assert store.last_id == 0


def test_an_application_that_fails_is_a_500(
    start: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception is logged, not printed, and answered without its text."""

    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise RuntimeError("inner secret")

    with Client(start(app=broken)) as client, caplog.at_level(logging.ERROR):
        reply = client.get("/")

    assert reply.status == 500
    assert b"secret" not in reply.body
    assert reply.headers["connection"] == "close"
    assert [record.getMessage() for record in caplog.records] == ["The application failed."]
    assert capfd.readouterr() == ("", "")


def test_an_application_may_read_the_whole_body(start: Start) -> None:
    """`wsgi.input` ends where the body ends, so that read() without a size returns."""

    def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = b"".join(iter(environ["wsgi.input"].read, b""))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    with Client(start(app=echo)) as client:
        assert client.post("/", b"all of it").body == b"all of it"


def test_the_environment_of_the_process_is_not_the_request(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable named like a header does not become one."""
    monkeypatch.setenv("HTTP_CONTENT_ENCODING", "br")

    with Client(start()) as client:
        assert client.post(_EVENTS, batch()).status == 200


def test_nothing_is_printed(
    start: Start, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are logged at debug level only."""
    with caplog.at_level(logging.INFO), Client(start()) as client:
        client.get("/api/v1/rules")
        client.get("/nowhere")

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
