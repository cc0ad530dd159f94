"""What one side seals and signs, the other opens and signs alike."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardagent import AgentConfig, ConfigError
from guardagent.transport.sealing import Sealer, SealError, sign
from tests.conftest import MakeAgent
from tests.oracle.values import events, metrics
from tests.support.backend import Backend

RAW = bytes(range(200, 232))
KEY = base64.urlsafe_b64encode(RAW).decode()

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def encryption(guard_agent: None) -> Any:
    """Return guard-agent's module."""
    from guard_agent import encryption

    return encryption


@pytest.fixture(scope="session")
def theirs(encryption: Any) -> Any:
    """Its encryptor, with the key."""
    return encryption.PayloadEncryptor(KEY)


@given(document=st.dictionaries(st.text(), _JSON, max_size=3))
def test_theirs_opens_ours(theirs: Any, document: dict[str, Any]) -> None:
    """Whatever JSON was sealed here is the same there."""
    assert theirs.decrypt(Sealer(KEY).seal(json.dumps(document).encode())) == document


@given(document=st.dictionaries(st.text(), _JSON, max_size=3))
def test_ours_opens_theirs(theirs: Any, document: dict[str, Any]) -> None:
    """And the other way round."""
    assert json.loads(Sealer(KEY).open(theirs.encrypt(document))) == document


@given(payload=st.binary(max_size=40), place=st.integers(0), bit=st.integers(0, 7))
def test_neither_opens_what_was_altered(
    encryption: Any, theirs: Any, payload: bytes, place: int, bit: int
) -> None:
    """A single bit, at any place, is enough for both."""
    sealed = bytearray(base64.urlsafe_b64decode(Sealer(KEY).seal(payload)))
    sealed[place % len(sealed)] ^= 1 << bit
    altered = base64.urlsafe_b64encode(sealed).decode()

    with pytest.raises(SealError):
        Sealer(KEY).open(altered)
    with pytest.raises(encryption.EncryptionError):
        theirs.decrypt(altered)


def test_theirs_opens_what_an_agent_sends(
    backend: Backend, make_agent: MakeAgent, theirs: Any, models: Any
) -> None:
    """Real requests: inside are events and metrics that validate, signed as theirs would be."""
    from guard_agent.signing import sign_payload

    agent = make_agent(project_encryption_key=KEY, payload_signing_secret="sécret")
    seen = 0

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(events() | metrics(), min_size=1, max_size=6))
    def check(captured: list[Any]) -> None:
        nonlocal seen
        assert all(map(agent.capture, captured))
        assert agent.flush(20.0)
        for request in backend.requests[seen:]:
            seen += 1
            assert request.path == "/api/v1/events/encrypted"
            assert request.headers["x-payload-signature"] == sign_payload(
                request.body, secret="sécret"
            )
            payload = theirs.decrypt(request.document["encrypted_payload"])
            assert sorted(payload) == ["events", "metrics"]
            for name, model in (("events", "SecurityEvent"), ("metrics", "SecurityMetric")):
                for record in payload[name]:
                    getattr(models, model).model_validate_json(json.dumps(record), strict=True)

    check()
    assert seen > 0


@given(secret=st.text(min_size=1).filter(str.isprintable), body=st.binary())
def test_signatures_agree(secret: str, body: bytes) -> None:
    """Over any bytes, under any secret."""
    from guard_agent.signing import sign_payload

    assert sign(secret, body) == sign_payload(body, secret=secret)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        KEY.rstrip("="),
        f" {KEY}\n",
        base64.b64encode(b"\xfb\xff" * 16).decode(),
        base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
    ],
)
def test_both_read_the_forms_of_a_key_alike(encryption: Any, key: str) -> None:
    """Either alphabet, padded or not, spaces around it: both get the same 32 bytes."""
    ours = AgentConfig(api_key=None, project_encryption_key=key).project_encryption_key

    assert encryption.PayloadEncryptor(key).decrypt(Sealer(str(ours)).seal(b'{"a":1}')) == {"a": 1}


@pytest.mark.parametrize("key", ["", "short", KEY[:-5], "AAAA" + KEY, "é" * 43])
def test_both_refuse_other_keys(encryption: Any, key: str) -> None:
    """At the start, and never with plain text instead."""
    with pytest.raises(ConfigError):
        AgentConfig(api_key=None, project_encryption_key=key)
    with pytest.raises(encryption.EncryptionError):
        encryption.PayloadEncryptor(key)


@pytest.mark.parametrize("key", [f"{KEY[:20]}*{KEY[20:]}", f"{KEY}AAAA"])
def test_foreign_characters_in_a_key_are_refused_here_alone(encryption: Any, key: str) -> None:
    """A known difference: what is no base64 is a slip of the hand, and said to be one."""
    encryption.PayloadEncryptor(key)

    with pytest.raises(ConfigError):
        AgentConfig(api_key=None, project_encryption_key=key)
