"""Sealed batches at the collector (WIRE.md 5), over real HTTP."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from guardagent import Agent, AgentConfig, ConfigError, SecurityEvent, SecurityMetric
from guardagent.collector import Collector, CollectorServer, Store
from guardagent.transport.sealing import Sealer, sign
from tests.collector.parts import event, metric
from tests.conftest import quick_settings

if TYPE_CHECKING:
    from tests.collector.conftest import Serve

pytest.importorskip("cryptography")

_PATH = "/api/v1/events/encrypted"
_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
_OTHER = base64.urlsafe_b64encode(bytes(32)).decode()


def _envelope(payload: object, *, key: str = _KEY, **fields: Any) -> dict[str, Any]:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {
        "encrypted_payload": Sealer(key).seal(raw),
        "batch_id": "1795367438828-0a1b2c3d",
        "agent_version": "3.2.4",
        "guard_version": None,
        "guard_core_version": None,
        **fields,
    }


def test_what_is_sealed_is_kept_like_any_other(serve: Serve, store: Store) -> None:
    """Events and metrics of one envelope are kept together, once, with their sender."""
    client = serve(encryption_keys=[_KEY])
    body = _envelope({"events": [event()], "metrics": [metric(), metric()]})
    headers = {"X_Project_ID": "shop", "X_Agent_Install_Id": "host-1"}

    first = client.post(_PATH, body, **headers)
    again = client.post(_PATH, body, **headers)

    assert first.document == {"success": True, "accepted": 3, "duplicates": 0}
    assert again.document == {"success": True, "accepted": 0, "duplicates": 3}
    kept = store.arrivals()
    assert [arrival.kind for arrival in kept] == ["event", "metric", "metric"]
    assert {(one.project_id, one.agent, one.agent_version) for one in kept} == {
        ("shop", "host-1", "3.2.4")
    }


def test_any_of_the_keys_opens(serve: Serve, store: Store) -> None:
    """So that keys can be rotated."""
    client = serve(encryption_keys=[_KEY, _OTHER])
    for key in (_KEY, _OTHER):
        body = _envelope({"events": [event()], "metrics": []}, key=key)

        assert client.post(_PATH, body).status == 200
    assert store.count("event") == 2


def test_another_key_is_a_401(serve: Serve, store: Store) -> None:
    """On which an agent keeps what it has."""
    client = serve(encryption_keys=[_KEY])

    reply = client.post(_PATH, _envelope({"events": [event()], "metrics": []}, key=_OTHER))

    assert reply.status == 401
    assert reply.errors == ["encrypted_payload: sealed with another key, altered or cut off"]
    assert store.count("event") == 0


@pytest.mark.parametrize(
    "harm",
    [
        lambda sealed: sealed[:-8],
        lambda sealed: sealed[:12],
        lambda sealed: "",
        lambda sealed: sealed[:-1],
        lambda sealed: f"{'B' if sealed[0] == 'A' else 'A'}{sealed[1:]}",
        lambda sealed: f"{sealed[:30]}*{sealed[31:]}",
        lambda sealed: f"{sealed}\n",
        lambda sealed: f"{sealed[:30]}\ud800",
    ],
    ids=["cut", "nonce", "empty", "padding", "bit", "foreign", "newline", "surrogate"],
)
def test_what_was_altered_is_a_401(serve: Serve, store: Store, harm: Any) -> None:
    """Cut off, changed or no base64 at all: nothing of it is kept."""
    client = serve(encryption_keys=[_KEY])
    body = _envelope({"events": [event()], "metrics": []})
    body["encrypted_payload"] = harm(body["encrypted_payload"])

    assert client.post(_PATH, body).status == 401
    assert store.count("event") == 0


def test_without_a_key_it_is_a_403(serve: Serve) -> None:
    """A collector that cannot open it says so, and the agent keeps what it has."""
    reply = serve().post(_PATH, _envelope({"events": [], "metrics": []}))

    assert reply.status == 403
    assert reply.errors == ["encrypted_payload: this collector has no key to open it with"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ([], 422, "body: given an array of 0, allowed: an object"),
        ({}, 422, "encrypted_payload: missing, allowed: a string"),
        (_envelope(b"", encrypted_payload=7), 422, "encrypted_payload: given 7"),
        (_envelope(b"", batch_id=""), 422, 'batch_id: given ""'),
        (_envelope(b"not JSON"), 400, "body: not JSON"),
        (_envelope([]), 422, "payload: given an array of 0"),
        (_envelope({"events": []}), 422, "metrics: missing"),
        (_envelope({"events": {}, "metrics": []}), 422, "events: given an object of 0"),
        (_envelope({"events": [{}], "metrics": []}), 422, "events[0].idempotency_key: missing"),
        (_envelope({"events": [], "metrics": [3]}), 422, "metrics[0]: given 3"),
    ],
)
def test_what_is_wrong_inside_or_outside_is_told(
    serve: Serve, store: Store, body: Any, status: int, reason: str
) -> None:
    """As for a batch in the open."""
    reply = serve(encryption_keys=[_KEY]).post(_PATH, body)

    assert reply.status == status
    assert reply.errors[0].startswith(reason)
    assert store.count("event") == store.count("metric") == 0


def test_the_signature_is_the_envelopes(serve: Serve) -> None:
    """It holds for the bytes that are sent, not for those inside."""
    client = serve(encryption_keys=[_KEY], signing_secret="secret")
    body = json.dumps(_envelope({"events": [], "metrics": []})).encode()

    assert client.post(_PATH, body, X_Payload_Signature=sign("secret", body)).status == 200
    assert client.post(_PATH, body).status == 401


@pytest.mark.parametrize("key", ["", "short", f"{_KEY}AAAA"])
def test_a_key_of_another_form_is_refused_at_the_start(store: Store, key: str) -> None:
    """Checked as an agent checks its own, and not shown."""
    with pytest.raises(ConfigError, match="32 bytes in base64") as caught:
        Collector(store, encryption_keys=[key])

    assert not key or key not in str(caught.value)


def test_an_agent_that_seals_is_understood(store: Store) -> None:
    """Agent and collector, with the same key: nothing is in the open, and all of it arrives."""
    app = Collector(store, encryption_keys=[_KEY], signing_secret="secret")
    with CollectorServer(app=app) as server:
        settings = {**quick_settings(server.url), "payload_signing_secret": "secret"}
        with Agent(AgentConfig(**settings, project_encryption_key=_KEY)) as agent:
            captured = SecurityEvent(event_type="a")
            agent.capture(captured)
            agent.capture(SecurityMetric(metric_type="block_rate", value=1.0))

            assert agent.flush(10.0)

    assert store.deliveries("event") == {captured.idempotency_key: 1}
    assert (store.count("metric"), store.count("refusal")) == (1, 0)


def test_an_agent_with_the_wrong_key_keeps_everything(store: Store) -> None:
    """Until the collector has the right one."""
    with CollectorServer(app=Collector(store, encryption_keys=[_OTHER])) as server:
        config = AgentConfig(**quick_settings(server.url), project_encryption_key=_KEY)
        agent = Agent(config)
        agent.capture(SecurityEvent(event_type="a"))
        agent.flush(0.5)
        stats = agent.stats()
        agent.stop(timeout=0.0)

    assert stats.pending == 1
    assert "401" in str(stats.last_error)
