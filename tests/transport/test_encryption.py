"""Sealed batches end to end: what the backend gets can be opened with the key, and only so."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import hashlib
import hmac
import itertools
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import guardagent
from guardagent import Agent, AgentConfig, ConfigError, SecurityEvent, SecurityMetric, __version__
from guardagent.errors import SetupError
from guardagent.spool.protocol import Batch
from guardagent.testing import RecordingAgent
from guardagent.transport import sealing
from guardagent.transport.http import HTTPTransport
from tests.conftest import MakeAgent, quick_settings
from tests.scripted import config
from tests.support import strict
from tests.support.accounts import assert_balanced, capture, event
from tests.support.answers import RefuseOver, Status
from tests.support.backend import Backend
from tests.support.breakdowns import AcceptThenReset
from tests.support.ledger import Request

aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")
exceptions = pytest.importorskip("cryptography.exceptions")

RAW = bytes(range(100, 132))
KEY = base64.urlsafe_b64encode(RAW).decode()

#: What a record can hold.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)

#: In no request, in no coding of it, may any of these be found.
SECRETS = ("zebra-in-the-reason", "203.0.113.77", "/zebra/endpoint", "zebra-tag", "zebra_type")


def opened(request: Request, raw: bytes = RAW) -> bytes:
    """Open a sealed batch as a backend does (WIRE.md 5)."""
    text = request.document["encrypted_payload"]
    sealed = base64.b64decode(text, altchars=b"-_", validate=True)
    plain: bytes = aead.AESGCM(raw).decrypt(sealed[:12], sealed[12:], None)
    return plain


def payload(request: Request) -> dict[str, Any]:
    document = strict.loads(opened(request))
    assert isinstance(document, dict)
    return document


def records(requests: list[Request], kind: str = "events") -> list[dict[str, Any]]:
    return [record for request in requests for record in payload(request)[kind]]


def secretive(number: int = 0) -> SecurityEvent:
    return event(
        event_type="zebra_type",
        reason=f"zebra-in-the-reason {number}",
        ip_address="203.0.113.77",
        endpoint="/zebra/endpoint",
        metadata={"tag": "zebra-tag"},
    )


@pytest.fixture
def make_sealed(make_agent: MakeAgent) -> MakeAgent:
    """Build agents with the key."""

    def build(**settings: Any) -> Agent:
        return make_agent(**{"project_encryption_key": KEY, **settings})

    return build


# -- what arrives --------------------------------------------------------------------------------


def test_events_arrive_sealed(backend: Backend, make_sealed: MakeAgent) -> None:
    """At an address of their own; inside is what would have been sent in the open."""
    agent = make_sealed()
    keys = capture(agent, 5, metadata={"tries": 3})

    assert agent.flush()

    (request,) = backend.all_requests
    assert (request.method, request.path) == ("POST", "/api/v1/events/encrypted")
    document = payload(request)
    assert sorted(document) == ["events", "metrics"]
    assert document["metrics"] == []
    assert [one["idempotency_key"] for one in document["events"]] == keys
    assert document["events"][0]["metadata"] == {"tries": 3}
    assert_balanced(agent)


def test_keys_are_sorted_inside(backend: Backend, make_sealed: MakeAgent) -> None:
    """At every level, as the other agents write a sealed payload (WIRE.md 5)."""
    agent = make_sealed()
    metadata = {"z": [{"b": 1, "a": 2}], "a": {"y": None, "x": "é"}, "\U0001f600": 1, "\uffff": 2}
    capture(agent, 2, metadata=metadata)

    assert agent.flush()

    (request,) = backend.all_requests
    text = opened(request).decode()
    document = json.loads(text)
    assert document["events"][0]["metadata"] == metadata
    is_ascii = text.isascii()  # as the encoder does that is installed
    assert text == json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=is_ascii
    )


@pytest.mark.parametrize("encoder", ["orjson", "json"])
@given(document=JSON)
def test_sorted_json_says_the_same(encoder: str, document: Any) -> None:
    """Whatever it was, and with either encoder; what is sorted stays as it is."""
    written = sealing.sort_keys(json.dumps(document).encode(), encoder)

    pairs: list[list[str]] = []
    read = json.loads(
        written, object_pairs_hook=lambda found: pairs.append([k for k, _ in found]) or dict(found)
    )
    assert read == document
    assert all(names == sorted(names) for names in pairs)
    assert sealing.sort_keys(written, encoder) == written


def test_metrics_arrive_sealed(backend: Backend, make_sealed: MakeAgent) -> None:
    """At the same address, in the same envelope."""
    agent = make_sealed()
    agent.capture(SecurityMetric(metric_type="request_count", value=3, tags={"path": "/"}))

    assert agent.flush()

    (request,) = backend.all_requests
    assert request.path == "/api/v1/events/encrypted"
    document = payload(request)
    assert document["events"] == []
    (metric,) = document["metrics"]
    assert (metric["metric_type"], metric["value"], metric["tags"]) == (
        "request_count",
        3.0,
        {"path": "/"},
    )


def test_inside_and_outside_hold_the_same_records(backend: Backend, make_agent: MakeAgent) -> None:
    """An event reads the same, sealed or not."""
    fields = {
        "timestamp": dt.datetime(2027, 1, 15, 8, 0, tzinfo=dt.timezone.utc),
        "idempotency_key": "key-1",
        "metadata": {"nested": {"list": [1, None, "é"]}, "password": "x"},
        "response_time": 0.25,
        "tenant": "shop",
    }
    for settings in ({}, {"project_encryption_key": KEY}):
        agent = make_agent(**settings)
        agent.capture({"event_type": "x", **fields})
        assert agent.flush()

    open_, sealed = backend.requests
    assert records([sealed]) == open_.document["events"]
    assert records([sealed])[0]["metadata"]["password"] == "[REDACTED]"


def test_envelope(backend: Backend, make_sealed: MakeAgent) -> None:
    """Its five keys say who sent it; the project is in a header (WIRE.md 5)."""
    agent = make_sealed(guard_version="7.0.0", guard_core_version="3.1.0", project_id="shop")
    capture(agent)
    assert agent.flush()

    (request,) = backend.requests
    document = request.document
    assert set(document) == {
        "encrypted_payload",
        "batch_id",
        "agent_version",
        "guard_version",
        "guard_core_version",
    }
    assert document["batch_id"] == request.headers["idempotency-key"]
    assert document["agent_version"] == __version__
    assert (document["guard_version"], document["guard_core_version"]) == ("7.0.0", "3.1.0")
    assert request.headers["x-project-id"] == "shop"
    assert request.headers["x-api-key"] == "test-key-0123456789"
    assert b"shop" not in request.body


def test_payload_is_compact(backend: Backend, make_sealed: MakeAgent) -> None:
    """No space stands between its tokens, and times are ISO with a "T"."""
    agent = make_sealed()
    agent.capture(SecurityEvent(event_type="x", metadata={"a": [1, 2], "b": {"c": None}}))
    agent.flush()

    (request,) = backend.requests
    assert b" " not in opened(request)
    (found,) = records([request])
    assert dt.datetime.fromisoformat(found["timestamp"]).utcoffset() == dt.timedelta(0)
    assert found["timestamp"][10] == "T"


def test_nested_values_survive(backend: Backend, make_sealed: MakeAgent) -> None:
    """What is sealed is the record as it was encoded; the order of keys carries no meaning."""
    metadata = {"b": {"z": 1, "a": 2}, "a": [{"y": 1, "x": 2}]}
    agent = make_sealed()
    agent.capture(SecurityEvent(event_type="x", metadata=metadata))
    agent.flush()

    (request,) = backend.requests
    assert json.loads(opened(request))["events"][0]["metadata"] == metadata


def test_values_json_lacks(backend: Backend, make_sealed: MakeAgent) -> None:
    """They cost no batch: what cannot be JSON is written as its nearest kin."""
    values = {
        "set": {1},
        "bytes": b"\xff",
        "decimal": decimal.Decimal("1.5"),
        "uuid": uuid.UUID(int=1),
        "nan": float("nan"),
        "object": object(),
    }
    agent = make_sealed()
    capture(agent, 1, metadata=values)

    assert agent.flush()
    (found,) = records(backend.requests)
    assert set(found["metadata"]) >= set(values)
    assert found["metadata"]["uuid"] == str(uuid.UUID(int=1))
    assert found["metadata"]["decimal"] == "1.5"
    assert found["metadata"]["nan"] is None


@pytest.mark.parametrize("threshold", [0, 1 << 20])
def test_signature_and_compression_are_of_the_envelope(
    backend: Backend, make_sealed: MakeAgent, threshold: int
) -> None:
    """The signature before gzip, like every POST's (WIRE.md 4)."""
    agent = make_sealed(payload_signing_secret="s3cret", compression_threshold=threshold)
    keys = capture(agent, 20)
    assert agent.flush()

    (request,) = backend.requests
    digest = hmac.new(b"s3cret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-payload-signature"] == f"v1={digest}"
    assert request.headers.get("content-encoding") == ("gzip" if threshold == 0 else None)
    assert [one["idempotency_key"] for one in records([request])] == keys


def test_requests_keep_their_bounds(backend: Backend, make_sealed: MakeAgent) -> None:
    """Base64 makes a batch larger; a request is still no larger than it may be."""
    agent = make_sealed(max_batch_bytes=8_192, buffer_size=1_000, flush_interval=600.0)
    keys = capture(agent, 120, metadata={"filler": "x" * 300})

    assert agent.flush()
    assert len(backend.requests) > 5
    assert max(len(request.body) for request in backend.requests) <= 8_192
    assert [one["idempotency_key"] for one in records(backend.requests)] == keys


def test_a_batch_that_is_too_large_is_split(backend: Backend, make_sealed: MakeAgent) -> None:
    """Each half is sealed anew, under an id and a nonce of its own."""
    backend.default = RefuseOver(6_000)
    agent = make_sealed(flush_interval=600.0)
    keys = capture(agent, 30)

    assert agent.flush(timeout=20.0)
    accepted = [request for request in backend.requests if len(request.body) <= 6_000]
    assert sorted(one["idempotency_key"] for one in records(accepted)) == sorted(keys)
    assert len({request.document["batch_id"] for request in backend.requests}) == len(
        backend.requests
    )
    assert_balanced(agent)


def test_reports_and_rules_stay_in_the_open(backend: Backend) -> None:
    """Neither holds events (WIRE.md 1)."""
    transport = HTTPTransport(config(endpoint=backend.url, project_encryption_key=KEY), pause=bool)

    rules = transport.exchange("GET", "rules")
    status = transport.exchange("POST", "status", b'{"status":"healthy"}')
    transport.close()

    assert (rules.status, status.status) == (200, 200)
    (report,) = backend.status_requests
    assert report.document == {"status": "healthy"}


# -- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_attempts", [0, 3], ids=["by-the-agent", "by-the-transport"])
@pytest.mark.parametrize("fault", [Status(503), AcceptThenReset(), Status(429)], ids=repr)
def test_a_retry_sends_the_same_bytes(
    backend: Backend, make_sealed: MakeAgent, fault: Any, retry_attempts: int
) -> None:
    """Sealed once: a backend that had accepted the first can tell, and no nonce is spent twice."""
    backend.script(fault, fault)
    agent = make_sealed(retry_attempts=retry_attempts)
    keys = capture(agent, 3)

    assert agent.flush(timeout=20.0)
    first, second, third = backend.requests
    assert first.raw == second.raw == third.raw
    assert len({request.headers["idempotency-key"] for request in backend.requests}) == 1
    assert [one["idempotency_key"] for one in records([third])] == keys


def test_every_batch_has_its_own_nonce(backend: Backend, make_sealed: MakeAgent) -> None:
    """Under one key a nonce must not come twice."""
    agent = make_sealed(max_batch_size=1, flush_interval=600.0)
    capture(agent, 25)
    assert agent.flush()

    sealed = [request.document["encrypted_payload"] for request in backend.requests]
    assert len(sealed) == 25
    assert len({text[:16] for text in sealed}) == 25


# -- never in the open ---------------------------------------------------------------------------


def codings(request: Request) -> Iterator[str]:
    """Yield the request as anybody on the way could read it."""
    yield request.target
    yield from itertools.chain.from_iterable(request.headers.items())
    yield request.raw.decode("latin-1")
    yield request.body.decode("latin-1")
    text = request.document.get("encrypted_payload", "")
    yield base64.urlsafe_b64decode(text).decode("latin-1")


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [Status(503), Status(503), Status(503)],
        [Status(400)],
        [Status(413)],
        [Status(404)],
        [Status(415)],
        [Status(200, {}, b'{"success": false}', accepts=False)],
        [AcceptThenReset()],
    ],
    ids=["accepted", "503", "400", "413", "404", "415", "not-successful", "reset"],
)
def test_nothing_is_readable(backend: Backend, make_sealed: MakeAgent, answers: list[Any]) -> None:
    """Whatever the backend answers, there is no way round the key to plain text."""
    backend.script(*answers)
    agent = make_sealed(retry_attempts=1, status_interval=0.1)
    for number in range(4):
        agent.capture(secretive(number))
    agent.capture(SecurityMetric(metric_type="request_count", value=1, tags={"a": "zebra-tag"}))
    agent.flush(timeout=20.0)
    agent.stop()

    assert {request.path for request in backend.requests} == {"/api/v1/events/encrypted"}
    for request in backend.all_requests:
        for text in codings(request):
            assert not [secret for secret in SECRETS if secret in text]
    assert_balanced(agent)


def test_a_payload_that_cannot_be_sealed_is_not_sent(
    backend: Backend, make_sealed: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, and is counted when the agent stops."""
    agent = make_sealed()

    def fail(size: int) -> bytes:
        raise OSError("no randomness")

    monkeypatch.setattr(sealing, "os", SimpleNamespace(urandom=fail))
    capture(agent, 2)
    flushed = agent.flush(timeout=0.2)
    stopped = agent.stop(timeout=0.5)

    assert (flushed, stopped) == (False, False)
    assert backend.requests == []
    assert agent.stats().dropped["shutdown"] == 2
    assert_balanced(agent)


def test_the_wrong_key_opens_nothing(backend: Backend, make_sealed: MakeAgent) -> None:
    """Nor does the right one when a single bit was changed on the way."""
    agent = make_sealed()
    capture(agent)
    assert agent.flush()

    (request,) = backend.requests
    with pytest.raises(exceptions.InvalidTag):
        opened(request, bytes(32))
    sealed = bytearray(base64.urlsafe_b64decode(request.document["encrypted_payload"]))
    sealed[20] ^= 1
    with pytest.raises(exceptions.InvalidTag):
        aead.AESGCM(RAW).decrypt(bytes(sealed[:12]), bytes(sealed[12:]), None)


# -- keys ----------------------------------------------------------------------------------------

ODD = bytes([0xFB, 0xFF, 0xBF]) * 10 + b"\xfb\xff"


@pytest.mark.parametrize(
    "key",
    [
        base64.urlsafe_b64encode(ODD).decode(),
        base64.b64encode(ODD).decode(),
        base64.urlsafe_b64encode(ODD).decode().rstrip("="),
        base64.b64encode(ODD).decode().rstrip("="),
        f" {base64.b64encode(ODD).decode()}\n",
    ],
    ids=["urlsafe", "standard", "urlsafe-unpadded", "standard-unpadded", "spaces"],
)
def test_forms_of_a_key(backend: Backend, make_agent: MakeAgent, key: str) -> None:
    """Either alphabet, padded or not, spaces around it: all the same 32 bytes."""
    agent = make_agent(project_encryption_key=key)
    capture(agent)
    assert agent.flush()

    assert b'"events"' in opened(backend.requests[0], ODD)


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "short",
        base64.b64encode(bytes(16)).decode(),
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(bytes(64)).decode(),
        bytes(32).hex(),
        "é" * 43,
        "*" * 43,
        KEY.encode(),
        RAW,
        32,
        True,
    ],
    ids=lambda key: f"{type(key).__name__}-{len(str(key))}",
)
def test_wrong_keys_are_refused_at_the_start(key: Any) -> None:
    """They are named, but not shown."""
    with pytest.raises(ConfigError) as caught:
        AgentConfig(api_key="k", project_encryption_key=key)

    text = str(caught.value)
    assert text.startswith("project_encryption_key: given a value of type ")
    assert "32 bytes in base64" in text
    assert not (isinstance(key, str) and len(key) > 10 and key in text)


def test_a_key_of_the_environment(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and checked like one of the arguments."""
    settings = {**quick_settings(backend.url)}
    monkeypatch.setenv("GUARDAGENT_PROJECT_ENCRYPTION_KEY", KEY)
    with Agent(AgentConfig.from_env(**settings)) as agent:
        capture(agent)
        assert agent.flush()
    monkeypatch.setenv("GUARDAGENT_PROJECT_ENCRYPTION_KEY", KEY[:-4])
    with pytest.raises(ConfigError, match="project_encryption_key"):
        AgentConfig.from_env(**settings)

    assert len(records(backend.requests)) == 1


def test_the_key_is_shown_nowhere() -> None:
    """Neither by the settings nor by the agent."""
    agent = Agent(AgentConfig(api_key="k", project_encryption_key=KEY))

    assert KEY not in repr(agent.config)
    assert KEY not in repr(agent)
    assert agent.stop()


# -- without cryptography ------------------------------------------------------------------------


@pytest.fixture
def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it look as if the extra were not installed."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_cryptography")
def test_missing_cryptography_is_said_at_once() -> None:
    """When the agent is made, in words that say what to do."""
    settings = AgentConfig(api_key="k", project_encryption_key=KEY)

    with pytest.raises(ConfigError) as caught:
        Agent(settings)

    assert str(caught.value) == (
        "project_encryption_key: needs the extra crypto: pip install 'guardagent[crypto]'"
    )


@pytest.mark.usefixtures("without_cryptography")
def test_missing_cryptography_leaves_the_former_agent(
    guardless: RecordingAgent,
) -> None:
    """`init` fails before it replaces anything."""
    with pytest.raises(ConfigError):
        guardagent.init(api_key="k", project_encryption_key=KEY)

    assert guardagent.get_agent() is guardless


@pytest.mark.usefixtures("without_cryptography")
def test_without_a_key_it_is_not_needed(backend: Backend, make_agent: MakeAgent) -> None:
    """It is an extra."""
    agent = make_agent()
    capture(agent)

    assert agent.flush()
    assert len(backend.keys) == 1


@pytest.fixture
def guardless() -> Iterator[RecordingAgent]:
    """Put an agent in the process-wide place for the length of a test."""
    from guardagent import _default

    with RecordingAgent() as agent:
        former = _default.replace(agent)
        yield agent
        _default.replace(former)


# -- keys that change ----------------------------------------------------------------------------

NEWER = bytes(range(50, 82))


def written(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def a_batch() -> Batch:
    body = json.dumps({"idempotency_key": str(uuid.uuid4()), "event_type": "x"}).encode()
    return Batch(kind="events", bodies=[body], created_at=1_800_000_000.0)


@pytest.fixture
def transport_of(backend: Backend) -> Iterator[Callable[..., HTTPTransport]]:
    """Make transports to the backend, that make no retries."""
    with ExitStack() as stack:

        def make(**settings: Any) -> HTTPTransport:
            given = config(endpoint=backend.url, retry_attempts=0, **settings)
            return stack.enter_context(closing(HTTPTransport(given, pause=bool)))

        yield make


@pytest.mark.parametrize("is_file", [False, True], ids=["callable", "file"])
def test_keys_are_read_for_each_batch(
    backend: Backend, make_agent: MakeAgent, tmp_path: Path, is_file: bool
) -> None:
    """What is sealed and signed next is so with the new ones."""
    paths = [tmp_path / "key", tmp_path / "secret"]
    sources = paths if is_file else [path.read_text for path in paths]
    agent = make_agent(project_encryption_key=sources[0], payload_signing_secret=sources[1])

    for raw, secret in ((RAW, "old"), (NEWER, "new")):
        paths[0].write_text(f"{written(raw)}\n")
        paths[1].write_text(f"{secret}\n" if is_file else secret)
        capture(agent, 1)
        assert agent.flush()

    first, second = backend.all_requests
    assert json.loads(opened(first, RAW))["events"]
    assert json.loads(opened(second, NEWER))["events"]
    for request, secret in ((first, b"old"), (second, b"new")):
        expected = hmac.new(secret, request.body, hashlib.sha256).hexdigest()
        assert request.headers["x-payload-signature"] == f"v1={expected}"


def test_a_key_rotated_after_it_was_read_is_tried_at_once(
    backend: Backend, transport_of: Callable[..., HTTPTransport]
) -> None:
    """A backend that opens nothing says 401; the batch is sealed again with what is there now."""
    keys = iter([RAW, NEWER])
    backend.script(Status(401), Status(200, {}, b'{"success": true}'))
    transport = transport_of(project_encryption_key=lambda: written(next(keys)))

    transport.send(a_batch())

    first, second = backend.all_requests
    assert opened(first, RAW) == opened(second, NEWER)


_NONE = ["", " \n", None, 7, OSError("vault is away")]


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        *(("project_encryption_key", one) for one in [*_NONE, "short", "é" * 32]),
        *(("payload_signing_secret", one) for one in _NONE),
    ],
)
def test_a_key_that_is_none(
    backend: Backend, transport_of: Callable[..., HTTPTransport], name: str, given_: Any
) -> None:
    """Nothing is sent, in plain text least of all, and nothing of it is told."""

    def read() -> Any:
        if isinstance(given_, Exception):
            raise given_
        return given_

    transport = transport_of(**{name: read})
    with pytest.raises(SetupError, match=f"the {name} ") as caught:
        transport.send(a_batch())

    assert backend.all_requests == []
    assert "vault" not in str(caught.value)


def test_rules_are_asked_for_without_the_other_secrets(
    transport_of: Callable[..., HTTPTransport], tmp_path: Path
) -> None:
    """A GET has nothing to sign or to seal, and so needs none of them."""
    absent = tmp_path / "absent"
    transport = transport_of(payload_signing_secret=absent, project_encryption_key=absent)

    assert transport.exchange("GET", "rules").status == 200
