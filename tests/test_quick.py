"""The shortest way makes the same bytes as the careful one, or leaves the event to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardagent import SecurityEvent
from guardagent.encoding import Encoder, dumps_function
from guardagent.fields import Item, take_event
from guardagent.redaction import Redactor

LIMIT = 65_536
NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 7, tzinfo=dt.timezone.utc)
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"

Ways = tuple[Callable[[Item], bytes | None], Encoder]


@pytest.fixture(params=["orjson", "json"])
def ways(request: pytest.FixtureRequest) -> Ways:
    """The quick way, and an encoder that never takes it."""
    return made(request.param)


def made(name: str) -> Ways:
    encoder = Encoder(Redactor(["authorization"], 256), LIMIT, dumps_function(name))
    quick, encoder._quick = encoder._quick, lambda _: None
    return quick, encoder


def event(**fields: Any) -> SecurityEvent:
    given = {"event_type": "e", "timestamp": NOON, "idempotency_key": KEY, **fields}
    return SecurityEvent(**given)


texts = st.text(max_size=40) | st.sampled_from(
    [
        "-----BEGIN PRIVATE KEY-----",
        "Mozilla/5.0 (X11; Linux x86_64)",
        "/api/orders/7",
        "bearer abcDEF123",
        "a=b",
        "x" * 300,
    ]
)
optional = st.none() | texts
usual = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.datetimes(timezones=st.just(dt.timezone.utc)),
        "idempotency_key": st.uuids(version=4).map(lambda one: one.bytes) | st.uuids().map(str),
        "reason": texts,
        "user_agent": optional,
        "endpoint": optional,
        "country": optional,
        "status_code": st.none() | st.integers(-1, 1_100_000),
        "response_time": st.none() | st.floats(),
        "metadata": st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["rule", "token", "Authorization"]),
            texts | st.none() | st.booleans() | st.integers() | st.floats(),
            max_size=4,
        ),
    },
)


@settings(max_examples=300, deadline=None, database=None)
@given(usual)
@example({"reason": "\ud800"})
@example({"metadata": {"rule": "sqli-7", "attempt": 3}})
def test_both_ways_lead_to_the_same_bytes(fields: dict[str, Any]) -> None:
    """With either encoder, whatever is in the event."""
    for name in ("orjson", "json"):
        quick, careful = made(name)
        item = take_event(event(**fields))
        body = quick(item)

        assert body is None or body == careful.record(item, 0.0).body


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"idempotency_key": bytes(range(16))},
        {"reason": "SQL injection", "user_agent": "Mozilla/5.0 (X11)", "endpoint": "/a/b"},
        {"status_code": 403, "response_time": 0.25, "metadata": {"rule": "r", "attempt": 3}},
        {"timestamp": NOON.replace(microsecond=0)},
    ],
)
def test_a_usual_event_goes_the_quick_way(ways: Ways, fields: dict[str, Any]) -> None:
    """Nothing in it has to be hidden, cut or corrected."""
    quick, careful = ways
    item = take_event(event(**fields))

    assert quick(item) == careful.record(item, 0.0).body


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": {"tenant": "blue"}},
        {"idempotency_key": "no-uuid"},
        {"status_code": -1},
        {"response_time": float("inf")},
        {"reason": "x" * 257},
        {"user_agent": "x" * 257},
        {"endpoint": "x" * 257},
        {"pattern_matched": "x" * 257},
        {"country": "x" * 257},
        {"metadata": {"a": [1]}},
        {"metadata": {"password": "x"}},
        {"metadata": {"a": "x" * 257}},
        {"metadata": {"a": 2**70}},
        {"metadata": {1: "a"}},
        {"reason": "sent bearer abc"},
        {"reason": "Basic+abcDEF123"},
        {"endpoint": "/a/+/Bearer+abcDEF123"},
        {"reason": "user:pass"},
        {"reason": "user.password.1:pass"},
        {"reason": "a=b"},
        {"reason": "it's"},
        {"reason": "a\\b"},
        {"reason": "a@b"},
        {"reason": "a%20b"},
        {"reason": "eyJhbGciOi"},
        {"reason": "-----BEGIN RSA PRIVATE KEY----- MIIEow"},
    ],
)
def test_any_other_needs_care(ways: Ways, fields: dict[str, Any]) -> None:
    """It may hide a credential, or be more than may be sent."""
    quick, _ = ways

    assert quick(take_event(event(**fields))) is None


@pytest.mark.parametrize("code", [one for one in range(128, 0x3001) if chr(one).isspace()])
def test_no_space_of_unicode_hides_a_credential(ways: Ways, code: int) -> None:
    """Whatever stands between a scheme and its credential."""
    quick, careful = ways
    item = take_event(event(reason=f"sent Bearer{chr(code)}abcDEF123"))

    assert quick(item) is None
    assert b"abcDEF123" not in careful.record(item, 0.0).body


def test_many_shapes_are_not_remembered(ways: Ways) -> None:
    """A field with a wrong type makes a shape that is asked anew each time."""
    quick, _ = ways
    value = event()
    value.status_code = "403"  # type: ignore[assignment]

    assert quick(take_event(value)) is None
    assert quick(take_event(value)) is None
