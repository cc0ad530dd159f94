"""The instruments themselves: each has been seen to notice what it is there for."""

from __future__ import annotations

import http.client
import socket
import threading
from pathlib import Path

import pytest

from tests.support import strict
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.support.breakdowns import ResetBeforeAnswer
from tests.support.leaks import Belongings


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b'"\\ud800"', b'{"a": 1, "a": 2}', b'"\xff"',
     b"", b"{", b"[1,]", b"{'a': 1}"],
)  # fmt: skip
def test_strict_reader_refuses(text: bytes) -> None:
    """What Python's reader takes beyond JSON is refused."""
    with pytest.raises(ValueError):
        strict.loads(text)


def test_strict_reader_reads() -> None:
    """What is JSON is read."""
    text = '{"a": [1, 2.5, null, true, "\u20ac\\ud83d\\ude00"]}'.encode()

    assert strict.loads(text) == {"a": [1, 2.5, None, True, "\u20ac\U0001f600"]}


def test_thread_left_behind_is_noticed() -> None:
    """A thread that does not end in time is named."""
    before = Belongings.now()
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="forgotten")
    thread.start()

    leaks = before.leaks(patience=0.01)
    gate.set()
    thread.join()

    assert leaks == ["forgotten"]
    assert before.leaks() == []


def test_socket_left_open_is_noticed() -> None:
    """An open socket is named where the system tells."""
    before = Belongings.now()
    one, other = socket.socketpair()

    leaks = before.leaks(patience=0.01)
    one.close()
    other.close()

    assert len(leaks) == (2 if Path("/proc/self/fd").is_dir() else 0)
    assert before.leaks() == []


def test_backend_down_and_up(backend: Backend) -> None:
    """Down refuses connections and ends those there are; up is on the same port."""
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=5)
    connection.request("GET", "/api/v1/rules")
    assert connection.getresponse().read() == b"{}"

    backend.down()
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", backend.port))
    backend.up()

    with socket.create_connection(("127.0.0.1", backend.port)):
        assert len(backend.rules_requests) == 1


def test_backend_keeps_its_books(backend: Backend) -> None:
    """Accepted keys count, refused ones do not, and what is not JSON is remembered."""
    backend.script(Status(503), ResetBeforeAnswer())
    bodies = [b'{"events": [{"idempotency_key": "%d"}], "metrics": []}' % n for n in range(3)]

    codes = [_post(backend, body) for body in [*bodies, b'{"events": [NaN]}']]

    assert codes == [503, None, 200, 400]
    assert backend.received == ["2"]
    assert len(backend.requests) == 4
    assert len(backend.unreadable) == 1


def _post(backend: Backend, body: bytes) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=5)
    try:
        connection.request("POST", "/api/v1/events", body)
        return connection.getresponse().status
    except ConnectionResetError:
        return None
    finally:
        connection.close()
