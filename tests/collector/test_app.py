"""The collector's answers, over real HTTP."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import sqlite3
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from guardagent.collector import Collector, CollectorServer, Store
from tests.collector.parts import Client, batch, event, metric, status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.collector.conftest import Serve

_EVENTS = "/api/v1/events"
_METRICS = "/api/v1/metrics"
_SEALED = "/api/v1/events/encrypted"
_STATUS = "/api/v1/status"
_RULES = "/api/v1/rules"
_AGENTS = "/api/v1/agents"


def _raw(body: object) -> bytes:
    return json.dumps(body).encode()


def _signature(raw: bytes, secret: str) -> str:
    return "v1=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def test_events_are_kept(client: Client, store: Store) -> None:
    """Accepted events are in the store with their sender, as they came."""
    events = [event(), event(event_type="login_failed", extra_field={"deep": [1, None]})]

    reply = client.post(_EVENTS, batch(events=events), X_Agent_Install_Id="host-1")

    assert reply.status == 200
    assert reply.document == {"success": True, "accepted": 2, "duplicates": 0}
    kept = [arrival.as_mapping() for arrival in store.arrivals()]
    assert [arrival["body"] for arrival in kept] == events
    assert [arrival["type"] for arrival in kept] == ["ip_banned", "login_failed"]
    assert {arrival["agent"] for arrival in kept} == {"host-1"}
    assert {arrival["project_id"] for arrival in kept} == {"shop"}
    assert {arrival["batch_id"] for arrival in kept} == {"1795367438828-0a1b2c3d"}


def test_a_batch_sent_again_is_recognised(client: Client, store: Store) -> None:
    """The second delivery of a batch is accepted as duplicates and changes nothing."""
    body = batch(events=[event(), event()])
    client.post(_EVENTS, body)

    reply = client.post(_EVENTS, body)

    assert reply.document == {"success": True, "accepted": 0, "duplicates": 2}
    assert store.count("event") == 2
    assert set(store.deliveries("event").values()) == {2}


def test_an_empty_batch_is_accepted(client: Client) -> None:
    """A batch of nothing is no error."""
    assert client.post(_EVENTS, batch()).document["accepted"] == 0


def test_metrics_with_and_without_keys_are_kept_once(client: Client, store: Store) -> None:
    """Metrics that have no key get one from their batch, so that a retry adds nothing."""
    body = batch(metrics=[metric(), metric(idempotency_key="m-1"), metric()])
    client.post(_METRICS, body)

    reply = client.post(_METRICS, body)

    assert reply.document == {"success": True, "accepted": 0, "duplicates": 3}
    assert sorted(store.deliveries("metric")) == [
        "1795367438828-0a1b2c3d/0",
        "1795367438828-0a1b2c3d/2",
        "m-1",
    ]


def test_status_reports_are_kept(client: Client, store: Store) -> None:
    """A report is kept with its sender; the same one again is a duplicate."""
    body = status(status="degraded", dropped={"overflow": 4})
    headers = {"X_Agent_Install_Id": "host-1", "X_Project_ID": "shop"}
    first = client.post(_STATUS, body, **headers)

    again = client.post(_STATUS, body, **headers)

    assert first.document == {"success": True, "accepted": 1, "duplicates": 0}
    assert again.document == {"success": True, "accepted": 0, "duplicates": 1}
    (arrival,) = store.arrivals(kind="status")
    assert (arrival.type, arrival.agent, arrival.project_id) == ("degraded", "host-1", "shop")
    assert json.loads(arrival.body) == body


def test_the_same_report_of_another_agent_is_another(client: Client, store: Store) -> None:
    """Two agents may say the same at the same moment."""
    client.post(_STATUS, status(), X_Agent_Install_Id="host-1")
    client.post(_STATUS, status(), X_Agent_Install_Id="host-2")

    assert store.count("status") == 2


def test_gzip_is_taken(client: Client, store: Store) -> None:
    """A compressed batch is kept like any other."""
    body = gzip.compress(_raw(batch(events=[event()])))

    assert client.post(_EVENTS, body, Content_Encoding="gzip").status == 200
    assert store.count("event") == 1


def test_rules_are_handed_out_with_a_tag(serve: Serve, tmp_path: Path) -> None:
    """The document comes with an ETag, and 304 without a body to who has it."""
    path = tmp_path / "rules.json"
    path.write_text('{"rule_id": "r-1", "version": 7}')
    client = serve(rules=str(path))

    first = client.get(_RULES)
    again = client.get(_RULES, If_None_Match=first.headers["etag"])

    assert (first.status, first.document["version"]) == (200, 7)
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(_RULES).status == 200


def test_rules_are_put_and_handed_out(serve: Serve, tmp_path: Path) -> None:
    """A document that is put is in the file and in the next answer, under the next version."""
    path = tmp_path / "rules.json"
    path.write_text('{"rule_id": "r-1", "version": 7}')
    client = serve(rules=path)
    tag = client.get(_RULES).headers["etag"]

    put = client.request("PUT", _RULES, b'{"rule_id": "r-1", "ttl": 5, "tll": 6}', If_Match=tag)
    late = client.request("PUT", _RULES, b'{"rule_id": "r-1", "ttl": 9}', If_Match=tag)

    assert put.document == {
        "success": True,
        "changed": True,
        "rule_id": "r-1",
        "version": 8,
        "ignored": ["tll (did you mean ttl?)"],
    }
    assert late.status == 412
    got = client.get(_RULES)
    assert (got.document["version"], got.document["ttl"]) == (8, 5)
    assert got.headers["etag"] == put.headers["etag"]
    assert got.body == path.read_bytes()


def test_rules_that_agents_would_refuse_are_not_taken(client: Client) -> None:
    """The reasons are those that agents would have."""
    reply = client.request("PUT", _RULES, b'{"ttl": "soon", "message": 7}')

    assert reply.status == 422
    assert "ttl: given 'soon' (str)" in reply.errors[0]
    assert "message: given 7 (int)" in reply.errors[0]
    assert client.get(_RULES).document == {}


def test_rules_are_changed_by_who_can_sign(serve: Serve) -> None:
    """Where bodies are signed, this one is too."""
    client = serve(signing_secret="secret")
    signed = {"X_Payload_Signature": _signature(b"{}", "secret")}

    assert client.request("PUT", _RULES, b"{}").status == 401
    assert client.request("PUT", _RULES, b"{}", **signed).status == 200


def test_without_rules_the_document_is_empty(client: Client) -> None:
    """An agent that polls a collector without rules gets none."""
    assert client.get(_RULES).document == {}


def test_a_broken_rules_file_is_told(serve: Serve, tmp_path: Path) -> None:
    """An agent that polls meets a 500 with the reason."""
    path = tmp_path / "rules.json"
    path.write_text("[]")

    reply = serve(rules=path).get(_RULES)

    assert reply.status == 500
    assert reply.errors == ["rules document: not a JSON object"]


@pytest.mark.parametrize("key", ["first-key-0123456789", "zweiter-schlüssel"])
def test_each_of_the_keys_opens(serve: Serve, key: str) -> None:
    """Every configured key is let in, so that keys can be rotated."""
    client = serve(api_keys=["first-key-0123456789", "zweiter-schlüssel"])
    header = key.encode().decode("latin-1")

    assert client.post(_EVENTS, batch(), X_API_Key=header).status == 200
    assert client.get(_RULES, X_API_Key=header).status == 200


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "X-API-Key: missing"),
        ({"X_API_Key": "wrong-key-0123456789"}, "X-API-Key: not a known key"),
        ({"X_API_Key": "right-key-01234567890"}, "X-API-Key: not a known key"),
    ],
)
@pytest.mark.parametrize("path", [_EVENTS, _METRICS, _SEALED, _STATUS, _RULES, _AGENTS])
def test_other_keys_do_not(serve: Serve, path: str, headers: dict[str, str], reason: str) -> None:
    """A missing or wrong key is a 401 on every path, and the answer shows no key."""
    client = serve(api_keys=["right-key-0123456789"])
    method, body = ("GET", None) if path in (_RULES, _AGENTS) else ("POST", _raw(batch()))

    reply = client.request(method, path, body, **headers)

    assert reply.status == 401
    assert reply.errors == [reason]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("path", [_EVENTS, _METRICS, _STATUS])
def test_a_signed_body_is_taken(serve: Serve, path: str, compressed: bool) -> None:
    """The signature holds for the bytes before gzip, on every POST."""
    client = serve(signing_secret="secret")
    raw = _raw(status() if path == _STATUS else batch())
    headers = {"X_Payload_Signature": _signature(raw, "secret")}
    if compressed:
        raw, headers["Content_Encoding"] = gzip.compress(raw), "gzip"

    assert client.post(path, raw, **headers).status == 200


@pytest.mark.parametrize("signature", [None, _signature(b"{}", "other")])
def test_a_body_that_is_not_signed_is_refused(
    serve: Serve, store: Store, signature: str | None
) -> None:
    """Without the right signature nothing is kept, and nothing of the body is judged."""
    client = serve(signing_secret="secret")
    headers = {} if signature is None else {"X_Payload_Signature": signature}

    reply = client.post(_EVENTS, b"not even JSON", **headers)

    assert reply.status == 401
    assert reply.errors[0].startswith("X-Payload-Signature: ")
    assert store.count("event") == 0


def test_rules_need_no_signature(serve: Serve) -> None:
    """A GET is never signed."""
    assert serve(signing_secret="secret").get(_RULES).status == 200


@pytest.mark.parametrize("path", ["/", "/api/v1/event", "/api/v1/events/", "/api/v2/events"])
def test_an_unknown_path_is_told(client: Client, path: str) -> None:
    """A path that is none is a 404 that lists those there are."""
    reply = client.post(path, batch())

    assert reply.status == 404
    allowed = f"{_EVENTS}, {_METRICS}, {_SEALED}, {_STATUS}, {_RULES}, {_AGENTS}"
    assert reply.errors == [f'path: given "{path}", allowed: {allowed}']


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", _EVENTS, "POST"),
        ("PUT", _METRICS, "POST"),
        ("DELETE", _STATUS, "POST"),
        ("POST", _RULES, "GET, PUT"),
        ("GET", _SEALED, "POST"),
        ("POST", _AGENTS, "GET"),
    ],
)
def test_a_wrong_method_is_told(client: Client, method: str, path: str, allowed: str) -> None:
    """A method the path does not have is a 405 that names the one it has."""
    reply = client.request(method, path, b"{}")

    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert reply.errors == [f'method: given "{method}", allowed: {allowed}']


@pytest.mark.parametrize("path", [_EVENTS, _METRICS, _STATUS])
@pytest.mark.parametrize("raw", [b"", b"{", b'{"events": [NaN]}', b"\xff\xfe"])
def test_what_is_not_json_is_told(client: Client, path: str, raw: bytes) -> None:
    """A body that is no JSON is a 400 with the place."""
    reply = client.post(path, raw)

    assert reply.status == 400
    assert reply.errors[0].startswith("body: not ")


def test_wrong_fields_are_told_by_event(client: Client, store: Store) -> None:
    """Bad fields are a 422 that names each by the index of its event; nothing is kept."""
    bad = [event(), event(status_code="403"), event(), event(event_type=None, metadata=[])]

    reply = client.post(_EVENTS, batch(events=bad))

    assert reply.status == 422
    assert reply.errors == [
        'events[1].status_code: given "403", allowed: an integer or null',
        "events[3].event_type: given null, allowed: a string that is not empty",
        "events[3].metadata: given an array of 0, allowed: an object",
    ]
    assert store.count("event") == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (_EVENTS, batch(metrics=[metric()])),
        (_METRICS, batch(events=[event()])),
        (_METRICS, batch(metrics=[metric(tags={"code": 7})])),
        (_STATUS, batch()),
        (_STATUS, status(uptime="long")),
        (_EVENTS, []),
    ],
)
def test_bodies_of_another_shape_are_told(client: Client, path: str, body: Any) -> None:
    """Each path takes its own kind of body only."""
    assert client.post(path, body).status == 422


def test_a_body_too_large_is_told(serve: Serve) -> None:
    """A body over the bound is a 413, however it is packed."""
    client = serve(max_body_bytes=2_000)
    raw = _raw(batch(events=[event(reason="x" * 3_000)]))

    plain = client.post(_EVENTS, raw)
    packed = client.post(_EVENTS, gzip.compress(raw), Content_Encoding="gzip")

    assert (plain.status, packed.status) == (413, 413)
    assert plain.errors == [f"body: given {len(raw)} bytes, allowed: 2000 bytes"]
    assert packed.errors == ["body: given more when inflated, allowed: 2000 bytes"]


def test_deep_nesting_is_no_crash(client: Client) -> None:
    """Metadata as deep as JSON allows, and deeper, is kept or refused."""
    statuses = set()
    for depth in (100, 900, 2_000, 20_000, 100_000):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        raw = _raw(batch(events=[event(metadata={"deep": "HERE"})])).replace(b'"HERE"', nested)
        statuses.add(client.post(_EVENTS, raw).status)

    assert statuses == {200, 400}


def test_half_a_surrogate_is_kept(client: Client, store: Store) -> None:
    """JSON may carry lone surrogates; they are kept where they are."""
    raw = _raw(batch(events=[event(event_type="odd\ud800", reason="\udfff")]))

    assert client.post(_EVENTS, raw).status == 200
    (arrival,) = store.arrivals()
    assert arrival.as_mapping()["body"]["reason"] == "\udfff"


def test_refusals_are_kept_for_whoever_watches(serve: Serve, store: Store) -> None:
    """A refused request leaves its status, its reasons and its sender, and no key."""
    client = serve(api_keys=["right-key-0123456789"])

    client.post(_EVENTS, batch(), X_API_Key="wrong-key-0123456789", X_Agent_Install_Id="host-1")

    (arrival,) = store.arrivals()
    assert (arrival.kind, arrival.type, arrival.agent) == ("refusal", "401", "host-1")
    assert json.loads(arrival.body) == {
        "request": "POST /api/v1/events",
        "errors": ["X-API-Key: not a known key"],
    }


def test_a_store_that_fails_is_a_503(serve: Serve, store: Store) -> None:
    """When nothing can be kept the agent is asked to come again, for refusals too."""
    client = serve()
    store.close()

    kept = client.post(_EVENTS, batch(events=[event()]))
    refused = client.post(_EVENTS, b"{")

    assert kept.status == 503
    assert kept.errors[0].startswith("store: ")
    assert refused.status == 400


def test_any_wsgi_server_will_do(store: Store) -> None:
    """The application needs nothing but PEP 3333."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ.update(PATH_INFO=_RULES, QUERY_STRING="")
    answers: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append(status)
        return answers.append

    result = validator(Collector(store))(environ, start_response)
    body = b"".join(result)
    result.close()  # type: ignore[attr-defined]

    assert (answers, body) == (["200 OK"], b"{}")


def test_a_file_that_another_program_holds_is_a_503(tmp_path: Path) -> None:
    """A locked database keeps nothing and crashes nothing; refusals are given all the same."""
    path = tmp_path / "held.db"
    holder = sqlite3.connect(path, isolation_level=None)
    with Store(path) as store, CollectorServer(app=Collector(store)) as server:
        store._connection.execute("PRAGMA busy_timeout = 10")
        holder.execute("BEGIN IMMEDIATE")
        with Client(server) as client:
            kept = client.post(_EVENTS, batch(events=[event()]))
            refused = client.post("/nowhere", b"")
        holder.execute("ROLLBACK")

        count = store.count("event") + store.count("refusal")
    holder.close()

    assert (kept.status, kept.errors) == (503, ["store: database is locked"])
    assert refused.status == 404
    assert count == 0
