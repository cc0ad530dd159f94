"""`guardagent send`: what became of the test event, in words and as exit status."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from guardagent.cli.commands import guardagent
from guardagent.collector import Collector, CollectorServer, Store
from tests.support.answers import Redirect, Status
from tests.support.backend import Backend
from tests.support.breakdowns import CloseBeforeAnswer, HangBeforeHeaders
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

_KEY = "test-key-0123456789"
_PATIENCE = 30.0

Send = Callable[..., tuple[int, str]]


@pytest.fixture
def send() -> Send:
    """Run `guardagent send` in this process; returns its status and what it printed."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        result = CliRunner().invoke(guardagent, ["send", *arguments], env=env)
        return result.exit_code, result.output

    return run


def test_an_accepted_event_is_told(send: Send, backend: Backend) -> None:
    """The backend gets one event, with the settings of the environment, and we end with 0."""
    env = {
        "GUARDAGENT_ENDPOINT": backend.url,
        "GUARDAGENT_API_KEY": _KEY,
        "GUARDAGENT_PROJECT_ID": "from-env",
    }

    status, output = send(env=env)

    assert status == 0
    assert output.startswith(f"Sending one test event to {backend.url} ...\nAccepted, in ")
    (request,) = backend.requests
    (sent,) = request.records
    assert request.headers["x-api-key"] == _KEY
    assert request.headers["x-project-id"] == "from-env"
    assert (sent["event_type"], sent["ip_address"]) == ("connection_test", "system")


def test_options_beat_the_environment(send: Send, backend: Backend) -> None:
    """What is given on the command line is what is used."""
    env = {"GUARDAGENT_ENDPOINT": "http://127.0.0.1:9", "GUARDAGENT_API_KEY": "other-key-0123"}

    options = ["--endpoint", backend.url, "--api-key", _KEY, "--project-id", "given"]
    status, _ = send(*options, env=env)

    assert status == 0
    assert backend.requests[0].headers["x-api-key"] == _KEY
    assert backend.requests[0].headers["x-project-id"] == "given"


def test_settings_of_the_application_do_not_stop_the_test(send: Send, backend: Backend) -> None:
    """The event is sent at once, whatever the environment says of intervals and switches."""
    env = {
        "GUARDAGENT_ENDPOINT": backend.url,
        "GUARDAGENT_API_KEY": _KEY,
        "GUARDAGENT_ENABLE_EVENTS": "false",
        "GUARDAGENT_FLUSH_INTERVAL": "3600",
        "GUARDAGENT_MAX_EVENT_AGE": "0.001",
    }

    assert send(env=env)[0] == 0


def test_the_collector_accepts_it(send: Send) -> None:
    """Two commands of ours understand each other, signature included."""
    with Store() as store:
        app = Collector(store, api_keys=[_KEY], signing_secret="secret")
        with CollectorServer(app=app) as server:
            env = {"GUARDAGENT_PAYLOAD_SIGNING_SECRET": "secret"}
            status, _ = send("--endpoint", server.url, "--api-key", _KEY, env=env)

        assert status == 0
        assert [arrival.type for arrival in store.arrivals()] == ["connection_test"]


def test_without_a_key_nothing_is_sent(send: Send, backend: Backend) -> None:
    """A missing key is told before anything happens."""
    status, output = send("--endpoint", backend.url)

    assert status == 2
    assert "There is no key: set GUARDAGENT_API_KEY, or give --api-key." in output
    assert backend.connections == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("--endpoint", "ftp://x"), ("--timeout", "0"), ("--timeout", "soon"), ("--project-id", "é")],
)
def test_a_wrong_setting_is_told(send: Send, option: str, value: str) -> None:
    """A value that cannot be is named, with what is allowed."""
    status, output = send("--api-key", _KEY, option, value)

    assert status == 2
    assert option.strip("-").replace("-", "_") in output.replace("-", "_")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Status(401), "the key is refused (HTTP 401)"),
        (Status(403, body=b'{"detail": "expired"}'), "the key is refused (HTTP 403: expired)"),
        (Redirect("http://127.0.0.1:9/"), "the address answers with a redirect (HTTP 301)"),
        (Status(404), "there is no Guard backend at this address (HTTP 404)"),
        (Status(422, body=b'{"detail": "no such field"}'), "(HTTP 422: no such field)"),
        (Status(413), "the backend calls one test event too large (HTTP 413)"),
        (Status(429, {"Retry-After": "9"}), "the backend asks for patience (HTTP 429)"),
        (Status(503), "the backend is there but fails (HTTP 503)"),
        (
            Status(200, body=b'{"success": false, "errors": ["not today"]}', accepts=False),
            "the backend rejects the event (HTTP 200, but not successful",
        ),
        (CloseBeforeAnswer(), "closed the connection without an answer"),
    ],
)
def test_what_the_backend_says_is_told(
    send: Send, backend: Backend, answer: Any, words: str
) -> None:
    """Each answer is one request, told in plain words, and status 1."""
    backend.default = answer

    status, output = send("--endpoint", backend.url, "--api-key", _KEY)

    assert status == 1
    assert "Not accepted: " in output
    assert words in output
    assert len(backend.requests) == 1


def test_an_event_refused_by_its_key_is_told(send: Send, backend: Backend) -> None:
    """A batch that is accepted without its only event is no acceptance."""

    class RefuseAll:
        def play(self, exchange: Any) -> None:
            rejected = [
                {"idempotency_key": key, "reason": "not\x1b[2J today"}
                for key in exchange.request.keys
            ]
            body = json.dumps({"success": True, "rejected": rejected}).encode()
            exchange.answer(200, body, {"Content-Type": "application/json"})

    backend.default = RefuseAll()

    status, output = send("--endpoint", backend.url, "--api-key", _KEY)

    assert status == 1
    assert "the backend rejects the event (not [2J today)" in output.replace("\ufffd", " ")
    assert "\x1b" not in output


def test_a_backend_that_says_nothing_is_told(send: Send, backend: Backend) -> None:
    """A hanging backend is given up after the timeout."""
    backend.default = HangBeforeHeaders()

    status, output = send("--endpoint", backend.url, "--api-key", _KEY, "--timeout", "0.2")

    assert status == 1
    assert f"no answer from 127.0.0.1:{backend.port} within 0.2 s" in output


def test_a_closed_port_is_told(send: Send) -> None:
    """Where nothing listens, that is what is said."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    status, output = send("--endpoint", f"http://127.0.0.1:{port}", "--api-key", _KEY)

    assert status == 1
    assert f"connection refused: nothing listens at 127.0.0.1:{port}" in output


def test_an_unknown_host_is_told(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no resolver knows is told with the name."""

    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a real look-up would leave this machine

    status, output = send("--endpoint", "http://guard.invalid", "--api-key", _KEY)

    assert status == 1
    assert "the host guard.invalid is unknown" in output


def test_a_resolver_that_hangs_is_given_up(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that no timeout of ours can end does not hold the command up."""
    released = threading.Event()

    def hanging(*_arguments: object, **_options: object) -> None:
        released.wait(_PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)

    status, output = send(
        "--endpoint", "http://guard.invalid", "--api-key", _KEY, "--timeout", "0.1"
    )
    released.set()

    assert status == 1
    assert "no answer from guard.invalid within 0.1 s" in output


def test_an_unknown_authority_is_told(send: Send, tmp_path: Path) -> None:
    """A certificate nobody vouches for is refused, until its authority is named."""
    authority = Authority(tmp_path / "ca")
    with Backend(tls=authority.issue().server_context()) as backend:
        arguments = ("--endpoint", backend.url, "--api-key", _KEY)
        refused = send(*arguments)
        accepted = send(*arguments, env={"GUARDAGENT_CA_BUNDLE": str(authority.bundle)})

    assert refused[0] == 1
    assert f"the certificate of 127.0.0.1:{backend.port} is refused: " in refused[1]
    assert accepted[0] == 0


def test_https_at_a_plain_port_is_told(send: Send) -> None:
    """A server that does not speak TLS is told as such."""

    def answer() -> None:
        sock, _ = plain.accept()
        with sock:
            sock.recv(65_536)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]
        thread = threading.Thread(target=answer)
        thread.start()
        status, output = send("--endpoint", f"https://127.0.0.1:{port}", "--api-key", _KEY)
        thread.join()

    assert status == 1
    assert f"no encrypted connection to 127.0.0.1:{port}" in output


@pytest.mark.parametrize("status", [200, 401, 422])
def test_the_key_is_never_printed(send: Send, backend: Backend, status: int) -> None:
    """Not even a backend that quotes it makes us print the key."""
    body = json.dumps({"success": False, "errors": f"unknown key {_KEY}!"}).encode()
    backend.default = Status(status, body=body, accepts=False)

    _, output = send("--endpoint", backend.url, "--api-key", _KEY)

    assert "unknown key [REDACTED]!" in output
    assert _KEY not in output
