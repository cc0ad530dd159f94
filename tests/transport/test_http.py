"""Batches over HTTP, against a real server on loopback."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from guardagent import AgentConfig, __version__
from guardagent.errors import (
    ConfigError,
    RejectedError,
    SetupError,
    TooLargeError,
    TransientError,
)
from guardagent.spool.protocol import Batch
from guardagent.transport.answers import ANSWER_BYTES
from guardagent.transport.http import HTTPTransport
from guardagent.transport.retry import brief_cause
from tests.scripted import config, record
from tests.support.answers import Accept, CloseIdle, Held, Redirect, RefuseKeys, RequireKey, Status
from tests.support.backend import Backend
from tests.support.breakdowns import (
    AcceptThenReset,
    CloseBeforeAnswer,
    CloseInHead,
    Drip,
    EndlessBody,
    GzipBomb,
    HangBeforeHeaders,
    HangInBody,
    HugeBody,
    HugeHead,
    MalformedStatusLine,
    ResetBeforeAnswer,
    ResetInBody,
    ShortBody,
)
from tests.support.wire import Exchange

MakeTransport = Callable[..., HTTPTransport]


class Pauses:
    """What the transport waits on before a retry; takes no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.retries = 0
        self.causes: list[str] = []
        self.is_over = False

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return not self.is_over

    def note(self) -> None:
        self.retries += 1


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def make(backend: Backend, pauses: Pauses) -> Iterator[MakeTransport]:
    """Build transports to the backend; all are closed at the end."""
    built: list[HTTPTransport] = []

    def build(**settings: Any) -> HTTPTransport:
        given = config(**{"endpoint": backend.url, "timeout": 2.0, "retry_attempts": 0, **settings})
        built.append(_transport(given, pauses))
        return built[-1]

    yield build
    for transport in built:
        transport.close()


def _transport(given: AgentConfig, pauses: Pauses) -> HTTPTransport:
    return HTTPTransport(given, pause=pauses, on_failure=pauses.causes.append, on_retry=pauses.note)


def batch(count: int = 2, kind: Any = "events", *, size: int = 60) -> Batch:
    bodies = [record(n, size=size).body for n in range(count)]
    return Batch(kind=kind, bodies=bodies, created_at=1_800_000_000.0)


# -- what is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_request(backend: Backend, make: MakeTransport, kind: str) -> None:
    """The path, the headers of WIRE.md 1 and no others that say something."""
    one = batch(kind=kind)

    receipt = make(project_id="p1", install_id="i1").send(one)

    (request,) = backend.requests
    assert (request.method, request.target) == ("POST", f"/api/v1/{kind}")
    assert request.headers == {
        "host": f"127.0.0.1:{backend.port}",
        "user-agent": f"guardagent/{__version__}",
        "content-type": "application/json",
        "content-length": str(len(request.raw)),
        "accept": "application/json",
        "accept-encoding": "identity",
        "x-api-key": "test-key-0123456789",
        "x-agent-install-id": "i1",
        "x-project-id": "p1",
        "idempotency-key": one.batch_id,
    }
    assert (receipt.bytes_sent, receipt.rejected) == (len(request.raw), {})
    assert backend.received == ["key-000000", "key-000001"]


def test_without_a_project(backend: Backend, make: MakeTransport) -> None:
    """There is no header for none."""
    make().send(batch())

    assert "x-project-id" not in backend.requests[0].headers


def test_installation_is_asked_for_once(
    backend: Backend, make: MakeTransport, tmp_path: Path
) -> None:
    """A file that changes meanwhile changes nothing."""
    transport = make()
    transport.send(batch())
    (Path.home() / ".guard-agent" / "install-id").write_text("another")

    transport.send(batch())

    first, second = (request.headers["x-agent-install-id"] for request in backend.requests)
    assert first == second != "another"


def test_one_connection_serves_many_batches(backend: Backend, make: MakeTransport) -> None:
    """It is kept open, for events and metrics alike."""
    transport = make()

    for kind in ("events", "metrics", "events"):
        transport.send(batch(kind=kind))

    assert backend.connections == 1


@pytest.mark.parametrize(
    ("settings", "is_pressed"),
    [({}, True), ({"compression": False}, False), ({"compression_threshold": 100_000}, False)],
)
def test_compression(
    backend: Backend, make: MakeTransport, settings: dict[str, Any], is_pressed: bool
) -> None:
    """Large bodies are compressed, unless the settings say otherwise."""
    make(**settings).send(batch(50))

    (request,) = backend.requests
    assert (request.headers.get("content-encoding") == "gzip") is is_pressed
    assert (len(request.raw) < len(request.body)) is is_pressed
    assert len(backend.received) == 50


def test_compression_that_fails(
    backend: Backend, make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch goes as it is (FIELD N6)."""
    monkeypatch.setattr("guardagent.transport.http.compress", lambda body: None)

    make().send(batch(50))

    assert "content-encoding" not in backend.requests[0].headers
    assert len(backend.received) == 50


@pytest.mark.parametrize("count", [1, 50])
def test_signature_is_of_the_plain_body(backend: Backend, make: MakeTransport, count: int) -> None:
    """Before compression (WIRE.md 4)."""
    make(payload_signing_secret="s3cret").send(batch(count))

    (request,) = backend.requests
    digest = hmac.new(b"s3cret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-payload-signature"] == f"v1={digest}"


def test_sealed_batches(backend: Backend, make: MakeTransport) -> None:
    """They go to their own address, and nothing of an event is readable."""
    pytest.importorskip("cryptography")
    key = base64.urlsafe_b64encode(bytes(32)).decode()

    make(project_encryption_key=key).send(batch())

    (request,) = backend.requests
    assert request.path == "/api/v1/events/encrypted"
    assert b"key-00" not in request.body
    assert sorted(request.document) == [
        "agent_version",
        "batch_id",
        "encrypted_payload",
        "guard_core_version",
        "guard_version",
    ]


# -- the key -------------------------------------------------------------------------------------


def test_key_is_read_for_each_batch(backend: Backend, make: MakeTransport) -> None:
    """A callable can rotate it."""
    keys = iter(["first-key", " second-key\n"])
    transport = make(api_key=lambda: next(keys))

    transport.send(batch())
    transport.send(batch())

    assert [request.headers["x-api-key"] for request in backend.requests] == [
        "first-key",
        "second-key",
    ]


def test_key_in_a_file(backend: Backend, make: MakeTransport, tmp_path: Path) -> None:
    """A mounted secret is read anew each time."""
    path = tmp_path / "key"
    transport = make(api_key=path)

    for text in ("first-key\n", "second-key"):
        path.write_text(text)
        transport.send(batch())

    assert [request.headers["x-api-key"] for request in backend.requests] == [
        "first-key",
        "second-key",
    ]


@pytest.mark.parametrize(
    "source", ["", " ", "two\nlines", "naïve", None, 7, b"bytes", OSError("vault is away")]
)
def test_key_that_is_none(backend: Backend, make: MakeTransport, source: Any) -> None:
    """Nothing is sent, and it is an error of the setup, without the key's text."""

    def read() -> Any:
        if isinstance(source, Exception):
            raise source
        return source

    with pytest.raises(SetupError) as caught:
        make(api_key=read).send(batch())

    assert backend.requests == []
    assert "vault" not in str(caught.value)


def test_missing_key_file(backend: Backend, make: MakeTransport, tmp_path: Path) -> None:
    """It may come back; nothing is lost by it."""
    with pytest.raises(SetupError, match="FileNotFoundError"):
        make(api_key=tmp_path / "absent").send(batch())


def test_rotated_key_is_tried_at_once(backend: Backend, make: MakeTransport) -> None:
    """A key that changed since the batch read it costs no pause."""
    keys = iter(["old-key", "new-key"])
    backend.default = RequireKey("new-key")

    make(api_key=lambda: next(keys)).send(batch())

    assert [request.headers["x-api-key"] for request in backend.requests] == ["old-key", "new-key"]


def test_wrong_key(backend: Backend, make: MakeTransport) -> None:
    """The same key is not tried twice."""
    backend.default = RequireKey("another")

    with pytest.raises(SetupError, match="401"):
        make().send(batch())

    assert len(backend.requests) == 1


def test_netrc_is_not_used(backend: Backend, make: MakeTransport) -> None:
    """Its credentials are nobody's business (FIELD T3)."""
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)

    make().send(batch())

    assert "authorization" not in backend.requests[0].headers


def test_cookies_are_not_kept(backend: Backend, make: MakeTransport) -> None:
    """What a backend or a proxy in front of it sets does not come back."""
    backend.default = Status(200, {"Set-Cookie": "session=1; Path=/"})
    transport = make()

    transport.send(batch())
    transport.send(batch())

    assert "cookie" not in backend.requests[1].headers


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_refused(backend: Backend, make: MakeTransport, code: int) -> None:
    """The key never goes elsewhere, not even within the same host."""
    backend.default = Redirect(f"{backend.url}/api/v1/elsewhere", code)

    with pytest.raises(SetupError, match="redirects are not followed"):
        make().send(batch())

    assert len(backend.all_requests) == 1


# -- answers -------------------------------------------------------------------------------------


def test_refused_records(backend: Backend, make: MakeTransport) -> None:
    """The receipt names them."""
    backend.default = RefuseKeys(1)

    assert make().send(batch()).rejected == {"key-000000": "scripted"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RejectedError), (413, TooLargeError), (403, SetupError), (429, TransientError)],
)
def test_refusals(
    backend: Backend, make: MakeTransport, status: int, error: type[Exception]
) -> None:
    """Each in its own way."""
    backend.default = Status(status)

    with pytest.raises(error, match=str(status)):
        make().send(batch())


def test_compressed_answer(backend: Backend, make: MakeTransport) -> None:
    """Nobody asked for it, but it is read."""
    body = gzip.compress(json.dumps({"success": False, "message": "later"}).encode())
    backend.default = Status(200, {"Content-Encoding": "gzip"}, body)

    with pytest.raises(RejectedError, match="later"):
        make().send(batch())


@pytest.mark.parametrize("breakdown", [GzipBomb(16), HugeBody(4), EndlessBody()])
def test_a_hostile_body_is_not_read_to_its_end(
    backend: Backend, make: MakeTransport, breakdown: Any
) -> None:
    """Its beginning is enough: the status has said what there is to say."""
    backend.script(breakdown)
    transport = make()

    transport.send(batch())
    transport.send(batch())

    assert len(backend.requests) == 2


def test_a_body_that_drips_is_cut_off(backend: Backend, make: MakeTransport) -> None:
    """It said how long it is and is not there in time: only sending again makes sure."""
    backend.script(Drip(0.05))

    with pytest.raises(TransientError, match="Timeout|timed out|too long"):
        make(timeout=0.3).send(batch())

    assert len(backend.requests) == 1


@attrs.frozen
class OpenEnd:
    """Answer without saying how long the answer is; then hang, or close."""

    body: bytes
    hangs: bool

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {}, self.body)
        if self.hangs:
            exchange.wire.hang()
        else:
            exchange.wire.close()


def test_a_long_answer_without_a_length(backend: Backend, make: MakeTransport) -> None:
    """It is read up to the bound, and stands by what was read."""
    backend.script(OpenEnd(b'{"success": false}' + b" " * 2 * ANSWER_BYTES, hangs=True))

    with pytest.raises(RejectedError, match="not successful"):
        make().send(batch())


@pytest.mark.parametrize("hangs", [True, False], ids=["left open", "closed"])
def test_an_answer_without_a_length(backend: Backend, make: MakeTransport, hangs: bool) -> None:
    """What came of it until its end, or until its time was up, counts."""
    backend.script(OpenEnd(b'{"success": true}', hangs), OpenEnd(b'{"success": false}', hangs))
    transport = make(timeout=0.3)

    transport.send(batch())
    with pytest.raises(RejectedError, match="not successful"):
        transport.send(batch())


@pytest.mark.parametrize(
    "breakdown",
    [
        AcceptThenReset(),
        CloseBeforeAnswer(),
        CloseInHead(),
        HugeHead(),
        MalformedStatusLine(),
        ResetBeforeAnswer(),
        ResetInBody(),
        ShortBody(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_broken_answer_is_no_answer(
    backend: Backend, make: MakeTransport, breakdown: Any
) -> None:
    """It may have been accepted, but only sending again makes sure."""
    backend.script(breakdown)
    transport = make()

    with pytest.raises(TransientError) as caught:
        transport.send(batch())
    transport.send(batch())

    assert (caught.value.outage, caught.value.status) == (True, None)
    assert backend.url not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("breakdown", [HangBeforeHeaders(), HangInBody()])
def test_a_silent_backend_is_cut_off(backend: Backend, make: MakeTransport, breakdown: Any) -> None:
    """What is not answered in whole within `timeout` is kept."""
    backend.script(breakdown)
    transport = make(timeout=0.2)

    with pytest.raises(TransientError, match="Timeout|timed out|too long"):
        transport.send(batch())

    assert len(backend.requests) == 1


def test_nobody_listens(backend: Backend, make: MakeTransport) -> None:
    """A refused connection is named in one line without the address."""
    backend.down()

    with pytest.raises(TransientError) as caught:
        make().send(batch())

    assert str(caught.value).startswith("ConnectionRefusedError")
    assert "127.0.0.1" not in str(caught.value)


def test_unknown_host(make: MakeTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a name nobody knows."""

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(TransientError, match="gaierror|NameResolution|Name or service"):
        make(endpoint="http://nowhere.invalid").send(batch())


# -- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Status(503), Status(429), ResetBeforeAnswer()])
def test_retries_send_the_same(
    backend: Backend, make: MakeTransport, pauses: Pauses, answer: Any
) -> None:
    """Same id, same bytes; the wait is the agent's own and each repeat is counted."""
    backend.script(answer, answer)

    make(retry_attempts=2, backoff_factor=1.0).send(batch())

    assert len({(one.raw, one.headers["idempotency-key"]) for one in backend.requests}) == 1
    assert len(backend.requests) == 3
    assert pauses.retries == len(pauses.causes) == 2
    assert pauses.causes[0].startswith(("HTTP 503", "HTTP 429", "ConnectionResetError"))
    assert 1.0 <= pauses.seconds[0] <= 1.2
    assert 2.0 <= pauses.seconds[1] <= 2.4


def test_retries_are_used_up(backend: Backend, make: MakeTransport, pauses: Pauses) -> None:
    """The last answer is the result; no wait follows it."""
    backend.default = Status(503, {"Retry-After": "9"})

    with pytest.raises(TransientError) as caught:
        make(retry_attempts=2).send(batch())

    assert (len(backend.requests), pauses.seconds) == (3, [9.0, 9.0])
    assert (caught.value.status, caught.value.retry_after) == (503, 9.0)


def test_a_stop_ends_the_wait(backend: Backend, make: MakeTransport, pauses: Pauses) -> None:
    """It is no outage: the backend was not asked again."""
    backend.default = Status(503)
    pauses.is_over = True

    with pytest.raises(TransientError, match="interrupted") as caught:
        make(retry_attempts=5).send(batch())

    assert caught.value.outage is False
    assert len(backend.requests) == 1


def test_one_attempt_before_a_deadline(
    backend: Backend, make: MakeTransport, pauses: Pauses
) -> None:
    """With a deadline it neither retries nor waits; without one it does again."""
    backend.script(Status(503), Status(503))
    transport = make(retry_attempts=3)

    with pytest.raises(TransientError):
        transport.send(batch(), deadline=1e9)
    before = len(backend.requests)
    transport.send(batch())

    assert (before, len(backend.requests)) == (1, 3)


def test_a_deadline_shortens_the_timeout(backend: Backend, make: MakeTransport) -> None:
    """One that has passed still leaves a moment for a backend that is quick."""
    backend.script(HangBeforeHeaders(), Accept())
    transport = make(timeout=60.0)

    with pytest.raises(TransientError):
        transport.send(batch(), deadline=0.0)
    transport.send(batch())

    assert len(backend.requests) == 2


def test_an_idle_connection_that_was_closed(backend: Backend, make: MakeTransport) -> None:
    """It costs no event (FIELD R4)."""
    backend.script(CloseIdle())
    transport = make(retry_attempts=1)

    transport.send(batch())
    transport.send(batch())

    assert len(backend.received) == 4


# -- the life of the session ---------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_batch(backend: Backend, make: MakeTransport) -> None:
    """Neither is there anything to abort or close."""
    transport = make()

    transport.abort()
    transport.close()
    transport.after_fork()

    assert backend.connections == 0


def test_close_then_send(backend: Backend, make: MakeTransport) -> None:
    """A later batch opens a new connection."""
    transport = make()
    transport.send(batch())

    transport.close()
    transport.close()
    transport.send(batch())

    assert backend.connections == 2


def test_after_fork_then_send(backend: Backend, make: MakeTransport) -> None:
    """What was inherited is not used."""
    transport = make()
    transport.send(batch())

    transport.after_fork()
    transport.send(batch())

    assert backend.connections == 2


def test_abort_ends_a_request(backend: Backend, make: MakeTransport) -> None:
    """A `send` that hangs in another thread fails soon."""
    held = Held()
    backend.script(held)
    transport = make(timeout=30.0)

    def abort() -> None:
        assert backend.wait_for_requests(1)
        transport.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(TransientError):
        transport.send(batch())
    thread.join()
    held.let_go()


def test_verification_switched_off_is_said_once(
    backend: Backend, make: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the setting."""
    transport = make(verify_tls=False)

    transport.send(batch())
    transport.send(batch())

    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "verify_tls is False: the backend's certificate is not checked."
    ]


def test_proxy_of_the_settings(backend: Backend, make: MakeTransport) -> None:
    """The request goes to it with the full address."""
    transport = make(endpoint="http://guard.example", proxies={"http": backend.url})

    transport.send(batch())

    assert backend.requests[0].target == "http://guard.example/api/v1/events"


def test_proxy_of_the_environment(
    backend: Backend, make: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless NO_PROXY names the host."""
    monkeypatch.setenv("HTTP_PROXY", backend.url)
    monkeypatch.setenv("http_proxy", backend.url)

    make(endpoint="http://guard.example").send(batch())

    assert backend.requests[0].target == "http://guard.example/api/v1/events"


# -- single requests of the protocol -------------------------------------------------------------


def test_exchange_without_a_body(backend: Backend, make: MakeTransport) -> None:
    """Any answer is returned as it is, with the headers of every request sent."""
    backend.script_rules(Status(404, {"X-Why": "none"}, b"no rules"))

    answer = make(payload_signing_secret="s3cret").exchange(
        "GET", "rules", headers={"If-None-Match": '"7"'}
    )

    (request,) = backend.rules_requests
    assert (answer.status, answer.headers["x-why"], answer.body) == (404, "none", b"no rules")
    assert request.headers["if-none-match"] == '"7"'
    assert "x-payload-signature" not in request.headers
    assert "idempotency-key" not in request.headers


def test_exchange_with_a_body(backend: Backend, make: MakeTransport) -> None:
    """It is signed and compressed like a batch."""
    body = json.dumps({"status": "healthy", "filler": "x" * 5_000}).encode()

    answer = make(payload_signing_secret="s3cret").exchange("POST", "status", body)

    (request,) = backend.status_requests
    assert answer.status == 200
    assert request.body == body
    assert request.headers["content-encoding"] == "gzip"
    assert "x-payload-signature" in request.headers


def test_exchange_reads_up_to_a_bound(backend: Backend, make: MakeTransport) -> None:
    """64 KiB unless it is asked for more."""
    backend.default_rules = Status(200, {}, b"x" * 100_000)
    transport = make()

    short = transport.exchange("GET", "rules")
    long = transport.exchange("GET", "rules", max_bytes=1 << 20)

    assert (len(short.body), len(long.body)) == (ANSWER_BYTES, 100_000)


def test_exchange_before_a_deadline(backend: Backend, make: MakeTransport) -> None:
    """One attempt, like a batch's."""
    backend.default_status = Status(503)

    answer = make(retry_attempts=5).exchange("POST", "status", b"{}", deadline=1e9)

    assert (answer.status, len(backend.status_requests)) == (503, 1)


# -- words ---------------------------------------------------------------------------------------


class Nested(Exception):
    """An error that is its own reason."""

    @property
    def reason(self) -> Nested:
        return Nested("https://user:secret@host/")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ValueError("https://host/path: broken"), "ValueError: broken"),
        (ValueError(), "ValueError"),
        (ValueError(ConnectionResetError(104, "reset")), "ConnectionResetError: [Errno 104] reset"),
    ],
)
def test_cause_is_the_innermost_error(error: Exception, text: str) -> None:
    """Its class and what it says, in one short line."""
    assert brief_cause(error) == text


def test_cause_of_endless_nesting() -> None:
    """It comes to an end."""
    assert brief_cause(Nested("x")).startswith("Nested")


def test_encryption_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said when the transport is made, not when the first batch is lost."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    given: AgentConfig = config(project_encryption_key=base64.b64encode(bytes(32)).decode())

    with pytest.raises(ConfigError, match="crypto"):
        HTTPTransport(given, pause=lambda seconds: True)
