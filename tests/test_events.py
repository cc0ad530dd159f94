"""Events and metrics: every field, its default, what it takes, and how a wrong value is refused."""

from __future__ import annotations

import copy
import datetime as dt
import ipaddress
import math
import pickle
import re
import uuid
from collections import UserDict
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent import EventError, SecurityEvent, SecurityMetric
from guardagent.events import METRIC_TYPES, coerce

UTC = dt.timezone.utc
NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 5, UTC)
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"

#: WIRE.md 2, in its order, without the key and the time.
EVENT_DEFAULTS: dict[str, Any] = {
    "ip_address": "",
    "country": None,
    "user_agent": None,
    "action_taken": "",
    "reason": "",
    "endpoint": None,
    "method": None,
    "status_code": None,
    "response_time": None,
    "decorator_type": None,
    "rule_type": None,
    "pattern_matched": None,
    "handler_name": None,
    "metadata": {},
}
TEXTS = [name for name, default in EVENT_DEFAULTS.items() if default in ("", None)]
TEXTS = [name for name in TEXTS if name not in ("status_code", "response_time")]

KNOWN_METRICS = ", ".join(sorted(METRIC_TYPES))

quickly = settings(max_examples=60, deadline=None, database=None)


class Word(str):
    """Text of a class of its own."""

    __slots__ = ()


class Stranger:
    def __repr__(self) -> str:
        raise RuntimeError("nobody asked for this")


# --------------------------------------------------------------------------------------- the fields


def test_an_event_needs_a_type_only() -> None:
    """Every other field has the default that the wire protocol says."""
    before = dt.datetime.now(UTC)
    event = SecurityEvent(event_type="ip_banned")
    after = dt.datetime.now(UTC)

    assert event.event_type == "ip_banned"
    assert {name: getattr(event, name) for name in EVENT_DEFAULTS} == EVENT_DEFAULTS
    assert event.extra is None
    assert event.timestamp.tzinfo is UTC
    assert before <= event.timestamp <= after


def test_a_metric_needs_a_type_and_a_value() -> None:
    """The other fields of a metric have their defaults."""
    metric = SecurityMetric(metric_type="request_count", value=2)

    assert (metric.endpoint, metric.tags) == (None, {})
    assert type(metric.value) is float
    assert metric.timestamp.tzinfo is UTC


def test_defaults_are_not_shared() -> None:
    """Two events have two metadata, two metrics two tags."""
    one, other = SecurityEvent(event_type="a"), SecurityEvent(event_type="b")
    metrics = [SecurityMetric(metric_type="block_rate", value=1) for _ in range(2)]

    one.metadata["x"] = 1
    metrics[0].tags["x"] = "1"

    assert other.metadata == {}
    assert metrics[1].tags == {}


def test_fields_are_given_by_name_only() -> None:
    """Positional arguments would tie every caller to the order of the fields."""
    with pytest.raises(TypeError):
        SecurityEvent("ip_banned")  # type: ignore[misc]
    with pytest.raises(TypeError):
        SecurityMetric("request_count", 1.0)  # type: ignore[misc]


def test_an_event_keeps_what_it_was_given() -> None:
    """Values of the right type are the same afterwards."""
    values: dict[str, Any] = {
        **dict.fromkeys(TEXTS, "text"),
        "event_type": "custom_rule_triggered",
        "timestamp": NOON,
        "status_code": 403,
        "response_time": 0.25,
        "metadata": {"nested": [1]},
    }

    event = SecurityEvent(**values, idempotency_key=KEY)

    assert {name: getattr(event, name) for name in values} == values
    assert event.idempotency_key == KEY


def test_an_event_may_be_changed_until_it_is_captured() -> None:
    """Fields can be set later, but no field can be invented."""
    event = SecurityEvent(event_type="ip_banned")

    event.reason = "too many requests"

    assert event.reason == "too many requests"
    with pytest.raises(AttributeError):
        event.reasons = "misspelt"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(METRIC_TYPES))
def test_every_metric_of_the_protocol(name: str) -> None:
    """The seven metrics the backend knows are taken."""
    assert SecurityMetric(metric_type=name, value=0.5).metric_type == name


def test_the_metrics_are_those_of_the_protocol() -> None:
    """No more and no fewer."""
    known = (
        "request_count response_time error_rate bandwidth_usage threat_level block_rate "
        "cache_hit_rate"
    )

    assert set(known.split()) == METRIC_TYPES


# --------------------------------------------------------------------------------------- conversion


@pytest.mark.parametrize("name", TEXTS)
def test_none_stands_for_the_default_of_a_text(name: str) -> None:
    """None for a text field is what its absence means on the wire."""
    event = SecurityEvent(event_type="e", **{name: None})

    assert getattr(event, name) == EVENT_DEFAULTS[name]


@pytest.mark.parametrize("name", ["event_type", *TEXTS])
def test_texts_become_exact_texts(name: str) -> None:
    """A subclass of str gives its characters, not its behaviour."""
    event = SecurityEvent(**{"event_type": "e", name: Word("text")})

    assert getattr(event, name) == "text"
    assert type(getattr(event, name)) is str


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_may_be_an_object(address: str) -> None:
    """What the standard library knows as an IP address is taken as ip_address."""
    event = SecurityEvent(event_type="e", ip_address=ipaddress.ip_address(address))  # type: ignore[arg-type]

    assert event.ip_address == address


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-11-22T12:00:00.000005Z", NOON),
        (dt.datetime(2026, 11, 22, 12, 0, 0, 5), dt.datetime(2026, 11, 22, 12, 0, 0, 5)),  # noqa: DTZ001
        (0, dt.datetime(1970, 1, 1, tzinfo=UTC)),
        (1.5, dt.datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)),
    ],
)
def test_a_timestamp_has_several_forms(given: Any, expected: dt.datetime) -> None:
    """Times are datetimes, ISO 8601 text or unix seconds."""
    assert SecurityEvent(event_type="e", timestamp=given).timestamp == expected
    metric = SecurityMetric(metric_type="block_rate", value=1, timestamp=given)
    assert metric.timestamp == expected


def test_numbers_are_made_to_fit() -> None:
    """An int is a response time, an int subclass a status code."""
    event = SecurityEvent(event_type="e", response_time=2, status_code=uuid.SafeUUID.safe.value)

    assert type(event.response_time) is float
    assert event.response_time == 2.0
    assert event.status_code == 0


def test_metadata_may_be_any_mapping() -> None:
    """A mapping that is no dict is copied into one; None is an empty one."""
    event = SecurityEvent(event_type="e", metadata=UserDict(a=1))  # type: ignore[arg-type]

    assert event.metadata == {"a": 1}
    assert type(event.metadata) is dict
    assert SecurityEvent(event_type="e", metadata=None).metadata == {}  # type: ignore[arg-type]


def test_tags_may_be_any_mapping() -> None:
    """A metric's tags are converted like an event's metadata."""
    metric = SecurityMetric(metric_type="block_rate", value=1, tags=UserDict(a="b"))  # type: ignore[arg-type]

    assert metric.tags == {"a": "b"}
    assert type(metric.tags) is dict
    none = SecurityMetric(metric_type="block_rate", value=1, tags=None)  # type: ignore[arg-type]
    assert none.tags == {}


def test_a_metric_may_have_an_endpoint() -> None:
    """Text or nothing."""
    given = {"metric_type": "block_rate", "value": 1.0}

    assert SecurityMetric(**given, endpoint="/a").endpoint == "/a"
    assert SecurityMetric(**given, endpoint=None).endpoint is None
    assert type(SecurityMetric(**given, endpoint=Word("/a")).endpoint) is str


def test_the_name_of_a_metric_becomes_an_exact_text() -> None:
    """An enumeration of names, say, does not travel along."""
    metric = SecurityMetric(metric_type=Word("block_rate"), value=1)

    assert type(metric.metric_type) is str


def test_a_response_time_that_is_no_number_is_let_through() -> None:
    """NaN costs neither the event nor the call; it is dealt with when the event is encoded."""
    event = SecurityEvent(event_type="e", response_time=math.nan)

    assert event.response_time is not None
    assert math.isnan(event.response_time)


# ------------------------------------------------------------------------------------------ refusal


def refused(message: str) -> Any:
    return pytest.raises(EventError, match=rf"^{re.escape(message)}$")


@pytest.mark.parametrize("value", ["", None])
def test_an_event_without_a_name_is_refused(value: Any) -> None:
    """An event says what happened."""
    with pytest.raises(
        EventError, match=r"^event_type: given .*allowed: a text that is not empty$"
    ):
        SecurityEvent(event_type=value)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_field_refuses_what_is_no_text(name: str) -> None:
    """The refusal names the field, what was given and what is allowed."""
    allowed = "text" if EVENT_DEFAULTS[name] == "" else "text or None"

    with refused(f"{name}: given 5 (int), allowed: {allowed}"):
        SecurityEvent(event_type="e", **{name: 5})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("event_type", 5, "event_type: given 5 (int), allowed: text or None"),
        ("status_code", "200", "status_code: given '200' (str), allowed: an integer or None"),
        ("status_code", 200.0, "status_code: given 200.0 (float), allowed: an integer or None"),
        ("status_code", True, "status_code: given True (bool), allowed: an integer or None"),
        ("response_time", "1", "response_time: given '1' (str), allowed: a finite number"),
        ("response_time", False, "response_time: given False (bool), allowed: a finite number"),
        ("metadata", [], "metadata: given <builtins.list>, allowed: a mapping"),
        ("extra", [], "extra: given <builtins.list>, allowed: a mapping"),
        (
            "timestamp",
            "noon",
            "timestamp: given 'noon' (str), allowed: a datetime, ISO 8601 text or unix seconds",
        ),
        (
            "timestamp",
            True,
            "timestamp: given True (bool), allowed: a datetime, ISO 8601 text or unix seconds",
        ),
        (
            "timestamp",
            10**400,
            "timestamp: given <builtins.int>, allowed: a datetime, ISO 8601 text or unix seconds",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any, message: str) -> None:
    """The refusal names the field, what was given and what is allowed."""
    with refused(message):
        SecurityEvent(**{"event_type": "e", name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("value", math.nan, "value: given nan (float), allowed: a finite number"),
        ("value", math.inf, "value: given inf (float), allowed: a finite number"),
        ("value", 10**400, "value: given <builtins.int>, allowed: a finite number"),
        ("value", True, "value: given True (bool), allowed: a finite number"),
        ("value", "1", "value: given '1' (str), allowed: a finite number"),
        ("value", None, "value: given None, allowed: a finite number"),
        ("tags", [("a", "b")], "tags: given <builtins.list>, allowed: a mapping"),
        ("endpoint", 5, "endpoint: given 5 (int), allowed: text or None"),
        (
            "timestamp",
            None,
            "timestamp: given None, allowed: a datetime, ISO 8601 text or unix seconds",
        ),
        (
            "metric_type",
            "requests",
            f"metric_type: given 'requests' (str), allowed: one of {KNOWN_METRICS}",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_metric_is_refused_by_name(name: str, value: Any, message: str) -> None:
    """The refusal names the field, what was given and what is allowed."""
    with refused(message):
        SecurityMetric(**{"metric_type": "request_count", "value": 1.0, name: value})


@pytest.mark.parametrize("value", [5, None, ["request_count"]])
def test_a_metric_whose_name_is_no_text_is_refused(value: Any) -> None:
    """Also when the value cannot even be looked up."""
    with pytest.raises(EventError, match=r"^metric_type: given "):
        SecurityMetric(metric_type=value, value=1.0)


def test_a_refusal_does_not_ask_the_value() -> None:
    """A foreign `__repr__` is not called for an error message."""
    with pytest.raises(EventError, match=r"^reason: given <.*Stranger>, allowed: text$"):
        SecurityEvent(event_type="e", reason=Stranger())  # type: ignore[arg-type]


def test_a_refusal_is_short() -> None:
    """A long value does not make a long message."""
    with pytest.raises(EventError) as caught:
        SecurityEvent(event_type="e", timestamp="\x00" * 10_000)  # type: ignore[arg-type]

    assert len(str(caught.value)) < 200


# --------------------------------------------------------------------------------------------- keys


def test_the_key_is_made_when_it_is_asked_for() -> None:
    """A key is a UUID4 in text, and stays the same."""
    for value in (
        SecurityEvent(event_type="e"),
        SecurityMetric(metric_type="block_rate", value=1),
    ):
        key = value.idempotency_key

        assert uuid.UUID(key).version == 4
        assert value.idempotency_key == key


def test_two_events_have_two_keys() -> None:
    """Equal events are two events all the same."""
    one, other = (SecurityEvent(event_type="e", timestamp=NOON) for _ in range(2))

    assert one == other
    assert one.idempotency_key != other.idempotency_key
    assert one == other


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (KEY, KEY),
        (uuid.UUID(KEY), KEY),
        (b"order-17", "order-17"),
        (Word("order-17"), "order-17"),
        ("A-z0.9_:~+/", "A-z0.9_:~+/"),
        ("k" * 128, "k" * 128),
    ],
)
def test_a_key_may_be_given(given: Any, kept: str) -> None:
    """UUIDs and short texts of harmless characters are keys."""
    event = SecurityEvent(event_type="e", idempotency_key=given)
    metric = SecurityMetric(metric_type="block_rate", value=1, idempotency_key=given)

    assert event.idempotency_key == kept
    assert metric.idempotency_key == kept
    assert type(event.idempotency_key) is str


@pytest.mark.parametrize(
    "given", ["", "k" * 129, "a b", 'a"b', "a\n", "schlüssel", "\ud800", 17, 1.5, [KEY], True]
)
def test_a_key_that_could_harm_is_refused(given: Any) -> None:
    """A key stands in every body, unescaped: quotes, spaces and lengths are limited."""
    message = (
        "^idempotency_key: given .*allowed: a UUID, or 1 to 128 of the characters "
        + re.escape("A-Z a-z 0-9 - _ . : ~ + /")
        + "$"
    )

    with pytest.raises(EventError, match=message):
        SecurityEvent(event_type="e", idempotency_key=given)
    with pytest.raises(EventError, match=message):
        SecurityMetric(metric_type="block_rate", value=1, idempotency_key=given)


def test_a_key_is_not_shown() -> None:
    """The repr of an event shows its fields, not its identity."""
    event = SecurityEvent(event_type="e", idempotency_key=KEY)

    assert KEY not in repr(event)
    assert "event_type='e'" in repr(event)


def test_events_can_be_copied_and_pickled() -> None:
    """Copies are equal and have the same key: they are the same event."""
    event = SecurityEvent(event_type="e", metadata={"a": [1]}, extra={"team": {"name": "blue"}})
    key = event.idempotency_key

    for twin in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert twin == event
        assert twin.idempotency_key == key


def test_a_changed_copy_can_be_made_of_an_event() -> None:
    """What attrs offers for its classes works after the key is made, too."""
    event = SecurityEvent(event_type="e")
    assert event.idempotency_key

    evolved = attrs.evolve(event, reason="changed")

    assert (evolved.event_type, evolved.reason) == ("e", "changed")


# ------------------------------------------------------------------------------------- extra fields


def test_extra_fields_are_kept_apart() -> None:
    """Fields that an event does not have are in `extra`, in a dict of their own."""
    given = UserDict(tenant="blue", shard=3)

    event = SecurityEvent(event_type="e", extra=given)
    given["more"] = 1

    assert event.extra == {"tenant": "blue", "shard": 3}
    assert type(event.extra) is dict


@pytest.mark.parametrize("extra", [None, {}])
def test_no_extra_fields_are_none(extra: Any) -> None:
    """An empty mapping is the same as nothing."""
    assert SecurityEvent(event_type="e", extra=extra).extra is None


@pytest.mark.parametrize("name", ["event_type", "metadata", "idempotency_key", "extra"])
def test_extra_fields_do_not_pose_as_fields(name: str) -> None:
    """A field of an event cannot be given a second time."""
    message = f"extra: given '{name}' (str), allowed: names that are not fields of an event"

    with refused(message):
        SecurityEvent(event_type="e", extra={name: "x"})


# ------------------------------------------------------------------------------------ from mappings


def test_an_event_from_a_mapping() -> None:
    """Known names become fields, others extra."""
    given = {"event_type": "e", "status_code": 403, "tenant": "blue", 7: "odd"}

    event = SecurityEvent.from_mapping(given)

    assert (event.event_type, event.status_code) == ("e", 403)
    assert event.extra == {"tenant": "blue", 7: "odd"}
    assert given["tenant"] == "blue"


def test_an_event_from_a_mapping_that_is_no_dict() -> None:
    """Any Mapping will do."""
    event = SecurityEvent.from_mapping(UserDict(event_type="e", reason="r"))

    assert (event.event_type, event.reason, event.extra) == ("e", "r", None)


def test_extra_of_a_mapping_joins_its_unknown_names() -> None:
    """A mapping that has an `extra` of its own keeps both."""
    event = SecurityEvent.from_mapping({"event_type": "e", "extra": {"a": 1}, "b": 2})

    assert event.extra == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("event_type", 5, "5"),
        ("timestamp", "2026-11-22T12:00:00.000005Z", NOON),
        ("timestamp", NOON.timestamp(), NOON),
        ("ip_address", ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        ("reason", None, ""),
        ("reason", 5, "5"),
        ("reason", b"bytes", "bytes"),
        ("country", None, None),
        ("user_agent", Stranger(), f"<{__name__}.Stranger>"),
        ("status_code", "403", 403),
        ("status_code", 403.0, 403),
        ("status_code", None, None),
        ("response_time", "0.5", 0.5),
        ("response_time", 2, 2.0),
        ("response_time", None, None),
        ("metadata", None, {}),
        ("metadata", UserDict(a=1), {"a": 1}),
        ("idempotency_key", uuid.UUID(KEY), KEY),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_values_of_a_mapping_are_made_to_fit(name: str, value: Any, kept: Any) -> None:
    """A mapping's values are converted where they say the same in another type."""
    event = SecurityEvent.from_mapping({"event_type": "e", name: value})

    assert getattr(event, name) == kept
    assert type(getattr(event, name)) is type(kept)
    assert [key for key in event.metadata if key.endswith("_given")] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestamp", "noon"),
        ("timestamp", None),
        ("timestamp", 10**400),
        ("status_code", "forbidden"),
        ("status_code", 403.5),
        ("status_code", True),
        ("status_code", [403]),
        ("response_time", "fast"),
        ("response_time", True),
        ("metadata", "text"),
        ("idempotency_key", "not a key"),
        ("idempotency_key", ""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_values_that_do_not_fit_are_kept_beside(name: str, value: Any) -> None:
    """A value that cannot be made to fit costs neither the event nor itself."""
    event = SecurityEvent.from_mapping({"event_type": "e", name: value})

    assert event.metadata == {f"{name}_given": value}
    assert isinstance(event.timestamp, dt.datetime)
    assert event.status_code is None
    assert event.response_time is None


def test_an_extra_that_is_no_mapping_is_kept() -> None:
    """It is sent under a name that says where it comes from."""
    event = SecurityEvent.from_mapping({"event_type": "e", "extra": 5})

    assert event.extra == {"extra_given": 5}


@pytest.mark.parametrize("extra", [{"reason": "mine"}, {"extra": {"a": 1}}, {"event_type": "x"}])
def test_an_extra_that_poses_as_a_field_does_not_cost_the_event(extra: Any) -> None:
    """Names in `extra` may come from an attacker, who must not be able to hide an event."""
    event = SecurityEvent.from_mapping({"event_type": "e", "reason": "r", "extra": extra})

    assert (event.event_type, event.reason) == ("e", "r")
    assert next(iter(extra)) in repr({**event.metadata, **(event.extra or {})})


@pytest.mark.parametrize("given", [{}, {"event_type": None}, {"event_type": ""}])
def test_a_mapping_without_a_type_is_refused(given: Any) -> None:
    """There is no event without a type."""
    with pytest.raises(EventError, match=r"^event_type: "):
        SecurityEvent.from_mapping(given)


@pytest.mark.parametrize("cls", [SecurityEvent, SecurityMetric])
@pytest.mark.parametrize("given", [5, "text", [("event_type", "e")], Stranger()])
def test_what_is_no_mapping_is_refused(cls: Any, given: Any) -> None:
    """The refusal says so."""
    with pytest.raises(EventError, match=r"^(event|metric): given .*, allowed: a mapping$"):
        cls.from_mapping(given)


def test_a_metric_from_a_mapping() -> None:
    """Known names become fields; the backend knows no others for metrics."""
    given = {
        "metric_type": "block_rate",
        "value": 1,
        "endpoint": 5,
        "tags": {"a": "b"},
        "timestamp": NOON,
        "idempotency_key": KEY,
        "tenant": "blue",
    }

    metric = SecurityMetric.from_mapping(given)

    assert (metric.metric_type, metric.value, metric.endpoint) == ("block_rate", 1.0, "5")
    assert (metric.tags, metric.timestamp, metric.idempotency_key) == ({"a": "b"}, NOON, KEY)


@pytest.mark.parametrize("missing", ["metric_type", "value"])
def test_a_metric_that_lacks_something_is_refused(missing: str) -> None:
    """The refusal names what is missing."""
    given = {"metric_type": "block_rate", "value": 1, "endpoint": None}
    del given[missing]

    with refused(f"{missing}: missing; a metric needs metric_type and value"):
        SecurityMetric.from_mapping(given)


keys = st.text(max_size=8) | st.integers() | st.binary(max_size=4) | st.none()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
fields_of_events = st.sampled_from([*EVENT_DEFAULTS, "timestamp", "idempotency_key", "extra"])


@quickly
@given(st.dictionaries(fields_of_events | keys, values, max_size=6))
def test_no_mapping_with_a_type_is_refused(given: dict[Any, Any]) -> None:
    """Whatever stands beside the type, there is an event, whose fields have their types."""
    event = SecurityEvent.from_mapping({**given, "event_type": "e"})

    assert event.event_type == "e"
    assert isinstance(event.timestamp, dt.datetime)
    assert type(event.status_code) in (int, type(None))
    assert type(event.response_time) in (float, type(None))
    assert type(event.metadata) is dict
    for name in TEXTS:
        assert type(getattr(event, name)) in (str, type(EVENT_DEFAULTS[name]))


# ------------------------------------------------------------------------------------- from objects


def test_an_event_from_an_object() -> None:
    """Attributes with the names of fields become fields, others extra; private ones stay behind."""
    source = SimpleNamespace(event_type="e", reason="r", tenant="blue", _cache={}, timestamp=NOON)

    event = SecurityEvent.from_object(source)

    assert (event.event_type, event.reason, event.timestamp) == ("e", "r", NOON)
    assert event.extra == {"tenant": "blue"}


def test_an_event_from_an_object_with_slots() -> None:
    """Attributes are found wherever they are kept, properties included."""

    @attrs.define
    class Incident:
        event_type: str
        status_code: str

        @property
        def reason(self) -> str:
            return "computed"

    event = SecurityEvent.from_object(Incident("e", "403"))

    assert (event.event_type, event.status_code, event.reason) == ("e", 403, "computed")


def test_an_event_from_a_pydantic_model() -> None:
    """Fields that a model was given beyond its own are found in `model_extra`."""

    class Model:
        def __init__(self) -> None:
            self.event_type = "e"
            self.shard = 3

        model_extra = {"tenant": "blue", "reason": "not this"}  # noqa: RUF012

    event = SecurityEvent.from_object(Model())

    assert event.extra == {"shard": 3, "tenant": "blue"}
    assert event.reason == ""


def test_an_attribute_that_raises_does_not_cost_the_event() -> None:
    """A broken property is a missing attribute."""

    class Lazy:
        event_type = "e"

        @property
        def reason(self) -> str:
            raise LookupError("the session is closed")

    event = SecurityEvent.from_object(Lazy())

    assert (event.event_type, event.reason) == ("e", "")


def test_a_metric_from_an_object() -> None:
    """An object with a metric's attributes is a metric."""
    source = SimpleNamespace(metric_type="block_rate", value=1, tags={"a": "b"}, tenant="blue")

    metric = SecurityMetric.from_object(source)

    assert (metric.metric_type, metric.value, metric.tags) == ("block_rate", 1.0, {"a": "b"})


@pytest.mark.parametrize("source", [SimpleNamespace(), SimpleNamespace(reason="r"), 5, None])
def test_an_object_without_a_type_is_refused(source: object) -> None:
    """There is no event and no metric in it."""
    with pytest.raises(EventError, match=r"^event_type: "):
        SecurityEvent.from_object(source)
    with pytest.raises(EventError, match=r"^metric_type: "):
        SecurityMetric.from_object(source)


# ----------------------------------------------------------------------------------------- coercion


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"event_type": "e"}, SecurityEvent),
        ({"metric_type": "block_rate", "value": 1}, SecurityMetric),
        (UserDict(event_type="e"), SecurityEvent),
        (SimpleNamespace(event_type="e"), SecurityEvent),
        (SimpleNamespace(metric_type="block_rate", value=1), SecurityMetric),
        (SimpleNamespace(event_type=None, metric_type="block_rate", value=1), SecurityMetric),
    ],
)
def test_what_looks_like_an_event_is_one(source: object, kind: type) -> None:
    """Mappings and objects are told apart by the fields they have."""
    assert type(coerce(source)) is kind


@pytest.mark.parametrize("source", [5, "event_type", None, Stranger(), [{"event_type": "e"}]])
def test_what_looks_like_neither_is_refused(source: object) -> None:
    """The refusal says what would do."""
    with pytest.raises(
        EventError, match=r"^event: given .*, allowed: SecurityEvent, Sec.*or object"
    ):
        coerce(source)


def test_a_mapping_that_is_neither_is_refused() -> None:
    """A mapping without event_type is taken for a metric."""
    with pytest.raises(EventError, match=r"^metric_type: missing"):
        coerce({"reason": "r"})
