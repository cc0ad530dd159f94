"""Records: one strict JSON object each, the same from both encoders, whatever was captured."""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import json
import math
import sys
import uuid
from collections import OrderedDict, deque
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardagent import SecurityEvent, SecurityMetric, encoding
from guardagent.encoding import Encoder, Record, dumps_function, record_key
from guardagent.errors import EncodeError, TooLargeError
from guardagent.events import METRIC_TYPES
from guardagent.fields import Item, take_event, take_metric
from guardagent.redaction import Redactor
from tests.support.strict import loads

UTC = dt.timezone.utc
NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 5, UTC)
WRITTEN_NOON = "2026-11-22T12:00:00.000005+00:00"
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"
LIMIT = 262_144
NOTES = "_guardagent"

#: WIRE.md 2: every key of an event and of a metric, in its order, with its default.
EVENT: dict[str, Any] = {
    "idempotency_key": KEY,
    "timestamp": WRITTEN_NOON,
    "event_type": "e",
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
METRIC: dict[str, Any] = {
    "idempotency_key": KEY,
    "timestamp": WRITTEN_NOON,
    "metric_type": "block_rate",
    "value": 0.5,
    "endpoint": None,
    "tags": {},
}
TEXTS = [name for name in EVENT if name not in ("idempotency_key", "timestamp", "metadata")]
TEXTS = [name for name in TEXTS if name not in ("status_code", "response_time")]

quickly = settings(max_examples=80, deadline=None, database=None)


@pytest.fixture(params=["orjson", "json"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """An encoder of each kind; without the extra `fast` both are the standard library's."""
    return make(request.param)


def make(name: str | None = None, *, bound: int = 1_024, limit: int = LIMIT) -> Encoder:
    redactor = Redactor(["authorization", "cookie", "x-api-key"], bound)
    return Encoder(redactor, limit, dumps_function(name))


def event(**fields: Any) -> SecurityEvent:
    given = {"event_type": "e", "timestamp": NOON, "idempotency_key": KEY, **fields}
    return SecurityEvent(**given)


def metric(**fields: Any) -> SecurityMetric:
    given = {"metric_type": "block_rate", "value": 0.5, "timestamp": NOON, "idempotency_key": KEY}
    return SecurityMetric(**(given | fields))


def taken(value: SecurityEvent | SecurityMetric) -> Item:
    """What a capture takes."""
    return take_event(value) if isinstance(value, SecurityEvent) else take_metric(value)


def spoil(value: Any, /, **fields: Any) -> Any:
    """Set fields after construction, which nobody checks."""
    for name, item in fields.items():
        setattr(value, name, item)
    return value


def send(encoder: Encoder, value: SecurityEvent | SecurityMetric) -> dict[str, Any]:
    """What a strict reader finds in the record."""
    record = encoder.record(taken(value), 7.5)
    document: dict[str, Any] = loads(record.body)
    assert record_key(record.body) == document["idempotency_key"]
    return document


# ------------------------------------------------------------------------------------ the documents


def test_an_event_has_every_key(encoder: Encoder) -> None:
    """All are present, in the order of the protocol, with their defaults."""
    document = send(encoder, event())

    assert document == EVENT
    assert list(document) == list(EVENT)


def test_a_metric_has_every_key(encoder: Encoder) -> None:
    """And a key of its own."""
    document = send(encoder, metric())

    assert document == METRIC
    assert list(document) == list(METRIC)


def test_an_event_keeps_its_values(encoder: Encoder) -> None:
    """What is plain is sent as it is, on the quick way and on the careful one."""
    fields: dict[str, Any] = {
        **{name: f"a {name} é 😀" for name in TEXTS},
        "status_code": 403,
        "response_time": 0.25,
        "metadata": {"text": "t", "int": -5, "float": 1e300, "bool": False, "none": None, "e": ""},
    }

    quick = send(encoder, event(**fields))
    careful = send(encoder, event(**fields, extra={"tenant": ["blue"]}))

    assert quick == {**EVENT, **fields}
    assert careful == {**quick, "tenant": ["blue"]}
    assert list(careful) == [*EVENT, "tenant"]


@pytest.mark.parametrize("name", sorted(METRIC_TYPES))
def test_a_metric_keeps_its_values(name: str, encoder: Encoder) -> None:
    """Of every type."""
    fields = {"metric_type": name, "value": 2.0, "endpoint": "/a", "tags": {"a": "b", "c": ""}}

    assert send(encoder, metric(**fields)) == {**METRIC, **fields}


def test_the_record_knows_its_kind_and_age(encoder: Encoder) -> None:
    """Which list of the batch it goes to, and since when it waits."""
    of_event = encoder.record(taken(event()), 7.5)
    of_metric = encoder.record(taken(metric()), 8.5)

    assert (of_event.kind, of_event.created_at) == ("events", 7.5)
    assert (of_metric.kind, of_metric.created_at) == ("metrics", 8.5)
    assert type(of_event.body) is bytes


def test_the_text_is_compact(encoder: Encoder) -> None:
    """No byte is spent on spaces."""
    body = encoder.record(taken(event(metadata={"a": [1, {"b": 2}]})), 0.0).body

    assert b" " not in body
    assert body.startswith(b'{"idempotency_key":"')


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (KEY, KEY),
        (uuid.UUID(KEY).bytes, KEY),
        ("a:b~c/d+e_f.g", "dd1239f2-a9d4-5227-86fd-2e12bffc3d65"),
    ],
)
def test_the_key_is_text_and_comes_first(given: Any, written: str, encoder: Encoder) -> None:
    """The agent's own are 16 bytes until here."""
    value = spoil(event(), _idempotency_key=given)

    record = encoder.record(taken(value), 0.0)

    assert record_key(record.body) == written
    assert loads(record.body)["idempotency_key"] == written


def test_a_key_with_colons_hides_nothing(encoder: Encoder) -> None:
    """Colons in a body are signs of credentials, wherever they come from."""
    document = send(encoder, event(idempotency_key=":::::", reason="password:s3cr3t"))

    assert document["reason"] == "password:[REDACTED]"


# -------------------------------------------------------------------------------------------- times


class Later(dt.datetime):
    """As pandas, pendulum and freezegun have them."""

    def isoformat(self, *_: object, **__: object) -> str:
        raise RuntimeError("nobody asked for this")


class Unruly(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise RuntimeError("no such zone")


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (NOON, WRITTEN_NOON),
        (NOON.replace(microsecond=0), "2026-11-22T12:00:00.000000+00:00"),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=-5))), WRITTEN_NOON),
        (NOON.replace(tzinfo=None), WRITTEN_NOON),
        (Later(2026, 11, 22, 12, 0, 0, 5, UTC), WRITTEN_NOON),
        (Later(2026, 11, 22, 12, 0, 0, 5), WRITTEN_NOON),
        (dt.datetime(1, 1, 1, 0, 0, 0, 1, UTC), "0001-01-01T00:00:00.000001+00:00"),
        (dt.datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_has_one_form(moment: dt.datetime, written: str, encoder: Encoder) -> None:
    """RFC 3339, UTC, six decimals, from whatever datetime."""
    assert send(encoder, event(timestamp=moment))["timestamp"] == written
    assert send(encoder, metric(timestamp=moment))["timestamp"] == written


@pytest.mark.parametrize(
    "moment",
    [
        None,
        "noon",
        5,
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-1))),
        dt.datetime(2026, 11, 22, tzinfo=Unruly()),
        object(),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_a_time_that_cannot_be_written_costs_only_itself(moment: Any, encoder: Encoder) -> None:
    """The time of encoding stands in for it, and a note says so."""
    document = send(encoder, spoil(event(), timestamp=moment))

    assert document["timestamp"] == "1970-01-01T00:00:07.500000+00:00"
    assert list(document["metadata"][NOTES]) == ["timestamp"]
    written = send(encoder, spoil(metric(), timestamp=moment))["timestamp"]
    assert written == "1970-01-01T00:00:07.500000+00:00"


# ------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (10**30, str(10**30)),
        (-(10**30), str(-(10**30))),
        (10**5_000, "<integer of 16610 bits>"),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (1.7976931348623157e308, 1.7976931348623157e308),
        ("\ud800", "\ufffd"),
        ("a\udfff😀", "a\ufffd😀"),
        ("\x00\x1f\x7f\u2028", "\x00\x1f\x7f\u2028"),
        ('"\\/\b', '"\\/\b'),
        (b"\xff\xfea", "\ufffd\ufffda"),
        (bytearray(b"abc"), "abc"),
        (memoryview(b"abc"), "abc"),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (deque([1]), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (Decimal("1.5"), "1.5"),
        (uuid.UUID(KEY), KEY),
        (NOON, WRITTEN_NOON),
        (ValueError("broken"), "ValueError: broken"),
        (object(), "<builtins.object>"),
        (print, "<builtins.builtin_function_or_method>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_is_json_in_the_end(value: Any, sent: Any, encoder: Encoder) -> None:
    """At the top of the metadata, deep in it, in extra fields, and under an odd key."""
    given = {"a": value}

    document = send(encoder, event(metadata={**given, "deep": [{"b": (value,)}]}, extra=given))

    assert document["metadata"] == {"a": sent, "deep": [{"b": [sent]}]}
    assert document["a"] == sent
    assert send(encoder, event(metadata=given))["metadata"] == {"a": sent}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_null(value: float, encoder: Encoder) -> None:
    """A note says what it was, so that nothing is averaged that was never measured."""
    said = f"{value} (float)"

    flat = send(encoder, event(metadata={"a": value}))
    deep = send(encoder, event(metadata={"x": [{"a": value}]}))
    field = send(encoder, event(response_time=value))

    assert flat["metadata"] == {"a": None, NOTES: {"a": said}}
    assert deep["metadata"] == {"x": [{"a": None}], NOTES: {"a": said}}
    assert field["response_time"] is None
    assert field["metadata"] == {NOTES: {"response_time": said}}


def test_the_notes_are_bounded(encoder: Encoder) -> None:
    """A thousand odd values do not make a thousand notes."""
    document = send(encoder, event(metadata={str(n): math.nan for n in range(500)}))

    assert 0 < len(document["metadata"][NOTES]) <= 20


def test_the_notes_of_one_event_are_not_those_of_the_next(encoder: Encoder) -> None:
    """An encoder begins each event anew."""
    send(encoder, event(metadata={"a": math.nan}))

    assert send(encoder, event(metadata={"a": 1.0}))["metadata"] == {"a": 1.0}


def test_a_cycle_is_cut(encoder: Encoder) -> None:
    """What holds itself is followed to the bound of every depth."""
    cycle: dict[str, Any] = {"list": []}
    cycle["list"].append(cycle)

    document = send(encoder, event(metadata=cycle))

    assert "[nested too deeply]" in json.dumps(document)


@pytest.mark.parametrize(
    "base", [dict, list, str, int, float, bytes, bytearray, set, dt.datetime, ValueError, object]
)
def test_no_code_of_a_foreign_class_runs(base: type, encoder: Encoder) -> None:
    """From capture to bytes, an object in an event is not asked anything."""
    calls: list[str] = []

    def noting(name: str) -> Any:
        def method(*_args: object, **_kwargs: object) -> Any:
            calls.append(name)
            raise RuntimeError(name)

        return method

    names = (
        "__str__", "__repr__", "__iter__", "__len__", "__bool__", "__getitem__", "__int__",
        "__index__", "__float__", "__bytes__", "__eq__", "__format__", "__json__", "__reduce__",
        "__contains__", "items", "keys", "values", "encode", "decode", "isoformat", "astimezone",
        "utcoffset",
    )  # fmt: skip
    body: dict[str, Any] = {name: noting(name) for name in names}
    body["value"] = property(noting("value"))
    body["__hash__"] = base.__hash__
    kind = type("Lazy", (base,), body)
    lazy = kind(2026, 11, 22) if base is dt.datetime else kind()

    send(encoder, event(metadata={"a": lazy, "b": [lazy]}, extra={"c": lazy}))
    send(encoder, metric(tags={"a": lazy}))
    send(encoder, spoil(event(), reason=lazy, status_code=lazy, response_time=lazy))

    assert calls == []


# --------------------------------------------------------------------------------------------- keys


class Odd:
    """A key of a class of its own."""


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (1, "1"), (1.5, "1.5"), (True, "true"), (None, "null"), (b"x", "x"), ((1, "b"), "(1, b)"),
        (dt.date(2026, 11, 22), "2026-11-22"), (uuid.UUID(KEY), KEY), (math.nan, "null"),
        (10**30, str(10**30)), ("\ud800", "\ufffd"), ("é", "é"), ("", ""), ((), "()"),
        (Odd, f"<{__name__}.Odd>"), (frozenset(), "<builtins.frozenset>"),
    ],
)  # fmt: skip
def test_every_key_is_a_name(key: Any, name: str, encoder: Encoder) -> None:
    """At the top, deep, in extra fields and in tags."""
    document = send(encoder, event(metadata={key: "v", "deep": [{key: "v"}]}, extra={key: "v"}))

    assert document["metadata"] == {name: "v", "deep": [{name: "v"}]}
    assert document[name] == "v"
    assert send(encoder, event(metadata={key: "v"}))["metadata"] == {name: "v"}
    assert send(encoder, metric(tags={key: "v"}))["tags"] == {name: "v"}


def test_keys_that_become_the_same_are_told_apart(encoder: Encoder) -> None:
    """No value is lost to a clash of names."""
    given = {
        1: "a",
        "1": "b",
        b"1": "c",
        "1_": "d",
        None: "e",
        "null": "f",
        ("1",): "g",
        "(1)": "h",
    }

    for metadata in (given, {"deep": given}):
        document = send(encoder, event(metadata=metadata, extra=given))
        sent = document["metadata"].get("deep", document["metadata"])

        assert sorted(sent.values()) == sorted(given.values())
        assert sorted(set(given.values()) - set(map(str, document.values()))) == []


@pytest.mark.parametrize("nested", [False, True])
def test_keys_are_cut(nested: bool, encoder: Encoder) -> None:
    """A key of 100,000 characters is no way around the bound of a text."""
    given = {"k" * 100_000: 1, "é" * 100_000: 2}

    sent = send(encoder, event(metadata={"a": given} if nested else given))["metadata"]
    sent = sent["a"] if nested else sent

    assert list(sent.values()) == [1, 2]
    assert max(map(len, sent)) < 400


class Counted(Redactor):
    """Counts the names it is asked to look at."""

    asked = 0

    def key(self, name: str) -> str:
        self.asked += 1
        return super().key(name)


@pytest.mark.parametrize("count", [100, 900])
def test_clashing_keys_take_linear_work(count: int) -> None:
    """An attacker who names the fields of a form can make all of them the same."""
    redactor = Counted([], 1_024)
    clashing = {"k" * 256 + str(number): number for number in range(count)}
    encode = Encoder(redactor, LIMIT)

    record = encode.record(taken(event(metadata={"form": clashing})), 0.0)

    sent = loads(record.body)["metadata"]
    assert redactor.asked <= 2 * count + 40
    assert "[truncated]" in sent or sorted(sent["form"].values()) == list(range(count))


@pytest.mark.parametrize("key", ["reason", b"reason", "metadata", "idempotency_key", "extra"])
def test_an_extra_field_does_not_replace_a_field(key: Any, encoder: Encoder) -> None:
    """Names that clash only now keep both values."""
    document = send(encoder, spoil(event(reason="mine"), extra={key: "theirs"}))

    assert document["reason"] == "mine"
    assert document["idempotency_key"] == KEY
    assert "theirs" in document.values()


# ------------------------------------------------------------------------------------ spoilt fields


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_set_to_none_is_what_its_absence_is(name: str, encoder: Encoder) -> None:
    """Texts that the protocol does not allow to be null are empty."""
    expected = "" if name == "event_type" else EVENT[name]

    document = send(encoder, spoil(event(), **{name: None}))

    assert document == {**EVENT, name: expected}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("value", "sent"),
    [(5, "5"), (b"b", "b"), ([1], "<builtins.list>"), (ValueError("x"), "ValueError: x")],
    ids=str,
)
def test_a_text_of_another_type_becomes_one(
    name: str, value: Any, sent: str, encoder: Encoder
) -> None:
    """Fields are not checked when they are set; the protocol is kept all the same."""
    document = send(encoder, spoil(event(), **{name: value}))

    assert document == {**EVENT, name: sent}


@pytest.mark.parametrize("value", ["403", 403.5, [403], math.nan, 10**30, -1, b"4"])
def test_a_status_code_that_is_none_is_null(value: Any, encoder: Encoder) -> None:
    """A note keeps what it was."""
    document = send(encoder, spoil(event(), status_code=value))

    assert document["status_code"] is None
    assert list(document["metadata"][NOTES]) == ["status_code"]


@pytest.mark.parametrize("value", ["1.5", [1], b"1", object()])
def test_a_response_time_that_is_none_is_null(value: Any, encoder: Encoder) -> None:
    """A note keeps what it was."""
    document = send(encoder, spoil(event(), response_time=value))

    assert document["response_time"] is None
    assert list(document["metadata"][NOTES]) == ["response_time"]


@pytest.mark.parametrize("value", [2, 2.5, Decimal("2.5")])
def test_numbers_of_other_types_are_taken(value: Any, encoder: Encoder) -> None:
    """Where they say the same."""
    document = send(encoder, spoil(event(), response_time=value))

    assert document["response_time"] in (value, None)


@pytest.mark.parametrize("spoilt", [5, "text", None, [1, [2]]])
def test_metadata_that_is_no_mapping_costs_only_itself(spoilt: Any, encoder: Encoder) -> None:
    """Even fields that no snapshot has seen."""
    kind, values, _, extra = taken(spoil(event(reason="r"), metadata=spoilt))

    document = loads(encoder.record((kind, values, spoilt, extra), 0.0).body)

    assert document["reason"] == "r"
    assert type(document["metadata"]) is dict


@pytest.mark.parametrize(
    "spoilt",
    [
        {"value": math.nan},
        {"value": "1"},
        {"value": None},
        {"metric_type": 5},
        {"metric_type": None},
    ],
)
def test_a_metric_without_a_number_or_a_name_is_refused(spoilt: Any, encoder: Encoder) -> None:
    """There is nothing to send; the refusal says what was given."""
    with pytest.raises(EncodeError, match=r"given .*, allowed: "):
        encoder.record(taken(spoil(metric(), **spoilt)), 0.0)


@pytest.mark.parametrize(
    ("tag", "sent"),
    [
        ("text", "text"), (5, "5"), (1.5, "1.5"), (True, "true"), (None, "null"), (b"b", "b"),
        ([1, "a"], '[1,"a"]'), ({"a": None}, '{"a":null}'), (math.nan, "null"),
        (10**30, str(10**30)),
    ],
)  # fmt: skip
def test_tags_are_texts(tag: Any, sent: str, encoder: Encoder) -> None:
    """The backend refuses any other."""
    document = send(encoder, metric(tags={"a": tag}))

    assert document["tags"]["a"].replace(", ", ",").replace(": ", ":") == sent


@pytest.mark.parametrize("endpoint", [5, b"/a", "x" * 9_000, "\ud800"])
def test_the_endpoint_of_a_metric_is_a_text(endpoint: Any, encoder: Encoder) -> None:
    """Cut like any other."""
    document = send(encoder, spoil(metric(), endpoint=endpoint))

    assert type(document["endpoint"]) is str
    assert len(document["endpoint"]) < 1_100


# --------------------------------------------------------------------------------------------- size


def test_long_texts_are_cut_wherever_they_are(encoder: Encoder) -> None:
    """With or without a credential near them, and once only."""
    long = "x" * 5_000
    expected = "x" * 1_024 + "...[truncated, 5000 characters]"

    for also in ({}, {"b": "c=d"}, {"b": [1]}):
        document = send(
            encoder,
            event(**dict.fromkeys(TEXTS, long), metadata={"a": long, **also}, extra={"c": [long]}),
        )

        assert {name: document[name] for name in TEXTS} == dict.fromkeys(TEXTS, expected)
        assert document["metadata"]["a"] == expected
        assert document["c"] == [expected]


@pytest.mark.parametrize("name", [*TEXTS, "metadata"])
def test_a_text_that_is_long_in_bytes_only_is_cut(name: str, encoder: Encoder) -> None:
    """A thousand characters may be four thousand bytes."""
    text = "😀" * 1_000

    document = send(encoder, event(**{name: {"a": text} if name == "metadata" else text}))

    sent = document["metadata"]["a"] if name == "metadata" else document[name]
    assert sent == "😀" * 256 + "...[truncated, 1000 characters]"


@pytest.mark.parametrize("name", ["metadata", "extra"])
@pytest.mark.parametrize("inner", ["value", "metric_type", "tags", "endpoints"])
@pytest.mark.parametrize("codec", ["orjson", "json"])
def test_an_event_that_is_too_large_gives_up_what_is_large(
    name: str, inner: str, codec: str
) -> None:
    """Whatever an attacker calls the large part, the event itself arrives."""
    encoder = make(codec, limit=16_384)

    document = send(encoder, event(reason="r", **{name: {inner: ["x" * 1_000] * 900}}))

    assert document == {
        **EVENT,
        "reason": "r",
        "metadata": {"[truncated]": "larger than a batch may be"},
    }


def test_what_is_small_of_a_large_event_is_kept() -> None:
    """The name of the attack is not lost to the length of its payload."""
    payloads = ["x" * 1_000] * 60
    encoder = make("json", limit=16_384)

    metadata = send(encoder, event(metadata={"attack": "sqli", "payloads": payloads}))["metadata"]

    assert metadata == {"attack": "sqli", "[truncated]": "larger than a batch may be"}


def test_what_is_searched_of_one_event_is_bounded(encoder: Encoder) -> None:
    """An attacker who sends a thousand texts gets the first of them looked into, and no more."""
    texts = ["a=" + "x" * 1_022] * 900

    sent = send(encoder, event(metadata={"form": texts}))["metadata"]["form"]

    kept = [text for text in sent if text in texts]
    assert 60 <= len(kept) <= 64
    assert set(sent[len(kept) :]) == {"[truncated: too much text in one event]"}


@pytest.mark.parametrize("codec", ["orjson", "json"])
def test_a_metric_that_is_too_large_gives_up_its_tags(codec: str) -> None:
    """Its number is what counts."""
    encoder = make(codec, limit=16_384)

    document = send(encoder, metric(tags={str(n): "x" * 1_000 for n in range(900)}))

    tags = document.pop("tags")
    assert document == {name: value for name, value in METRIC.items() if name != "tags"}
    assert tags == {"0": "x" * 1_000, "1": "x" * 1_000, "[truncated]": "larger than a batch may be"}


@pytest.mark.parametrize("name", ["orjson", "json"])
def test_an_event_that_stays_too_large_is_refused(name: str) -> None:
    """When the bounds of a text and of a batch do not fit together."""
    encoder = make(name, bound=4_000, limit=4_096)

    with pytest.raises(TooLargeError, match=r"^\d+ bytes, allowed: 4096$"):
        encoder.record(taken(event(reason="x" * 4_000, endpoint="x" * 4_000)), 0.0)


@pytest.mark.parametrize("limit", [4_096, LIMIT])
@pytest.mark.parametrize("name", ["orjson", "json"])
def test_no_record_is_larger_than_allowed(name: str, limit: int) -> None:
    """The bound is on bytes, escapes included."""
    encoder = make(name, limit=limit)
    texts = ["x" * 1_000, "\x00" * 1_000, "😀" * 200, '"' * 1_000, "\ud800" * 1_000]

    for text, count in itertools.product(texts, [1, 3, 200]):
        body = encoder.record(taken(event(metadata={"a": [text] * count})), 0.0).body

        assert len(body) <= limit
        loads(body)


def test_a_tag_is_cut_like_any_text(encoder: Encoder) -> None:
    """Also one that was a list."""
    document = send(encoder, metric(tags={"a": [1.5] * 900, "b": "x" * 9_000}))

    assert max(map(len, document["tags"].values())) < 1_100


class Recorded:
    """An encoder's function that remembers the sizes of what it wrote."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def __call__(self, value: Any) -> bytes:
        body = dumps_function("json")(value)
        self.written.append(len(body))
        return body


@pytest.mark.parametrize(
    "name", ["reason", "endpoint", "user_agent", "pattern_matched", "metadata"]
)
def test_a_huge_text_is_never_written_whole(name: str) -> None:
    """It is cut first: 20 MB through an encoder would hold up every other thread."""
    recorded = Recorded()
    encoder = Encoder(Redactor([], 1_024), LIMIT, recorded)
    huge = "x" * 20_000_000

    encoder.record(taken(event(**{name: {"a": huge} if name == "metadata" else huge})), 0.0)

    assert max(recorded.written) < 10_000


# ------------------------------------------------------------------------------------- the encoders


def test_an_encoder_chooses_the_fastest() -> None:
    """That is orjson where it is installed, the standard library's otherwise."""
    installed = importlib.util.find_spec("orjson") is not None

    assert (dumps_function() is dumps_function("json")) is not installed
    assert dumps_function("orjson") is dumps_function()


@pytest.fixture
def without_orjson(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A second copy of the module, imported where orjson is not installed."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    spec = importlib.util.spec_from_file_location("encoding_without_orjson", encoding.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_orjson_is_not_needed(without_orjson: ModuleType) -> None:
    """The package works without the extra `fast`, also when orjson is asked for."""
    assert without_orjson.dumps_function() is without_orjson.dumps_function("orjson")
    encoder = without_orjson.Encoder(Redactor([], 1_024), LIMIT)

    record = encoder.record(taken(event(metadata={"a": "é"})), 0.0)

    assert loads(record.body) == {**EVENT, "metadata": {"a": "é"}}


@pytest.mark.parametrize("error", [TypeError, ValueError, RecursionError])
def test_what_an_encoder_refuses_costs_only_its_event(error: type[Exception]) -> None:
    """The refusal names the error and nothing of the event."""

    def refuse(_: Any) -> bytes:
        raise error("reason: s3cr3t")

    encoder = Encoder(Redactor([], 1_024), LIMIT, refuse)

    with pytest.raises(EncodeError, match=rf"^cannot be written as JSON \({error.__name__}\)$"):
        encoder.record(taken(event(extra={"a": 1})), 0.0)
    with pytest.raises(EncodeError, match=r"^cannot be written as JSON"):
        encoder.record(taken(metric()), 0.0)


def test_many_shapes_of_events(encoder: Encoder) -> None:
    """Which fields are given makes thousands of combinations; each is encoded rightly."""
    names = [name for name in TEXTS if EVENT[name] is None] + ["status_code", "response_time"]
    given: dict[str, Any] = dict.fromkeys(names, "t") | {"status_code": 1, "response_time": 0.5}

    for chosen in itertools.product([False, True], repeat=len(names)):
        fields = {name: given[name] for name, use in zip(names, chosen, strict=True) if use}

        assert loads(encoder.record(taken(event(**fields)), 0.0).body) == {**EVENT, **fields}


def test_a_record_is_small() -> None:
    """A hundred thousand may wait: there is no dict for each."""
    record = Record("events", b"{}", 0.0)

    assert not hasattr(record, "__dict__")


# --------------------------------------------------------------------------------------- properties

texts = st.text(st.characters(exclude_categories=[]), max_size=40)
keys = (
    texts
    | st.sampled_from(
        ["a", "password", "x_api_key", "1", "null", "_guardagent", "[truncated]", "reason"]
    )
    | st.integers(-3, 3)
    | st.booleans()
    | st.none()
    | st.binary(max_size=3)
    | st.tuples(st.integers(0, 1))
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**65)
    | st.floats()
    | texts
    | st.sampled_from(["password=x", '{"password": 1}', "a: b", "Bearer x", "//u:p@h", "x" * 3_000])
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.builds(object)
    | st.builds(ValueError, texts)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)
mappings = st.dictionaries(keys, trees, max_size=5)


@quickly
@given(mappings, mappings)
@example({"a": 2**63}, {})
@example({1: 1, "1": 2}, {b"reason": 3})
@example({"a": "\ud800"}, {"\udfff": "x"})
def test_both_encoders_say_the_same(metadata: dict[Any, Any], extra: dict[Any, Any]) -> None:
    """Of any event there is a strict document, and it does not depend on the encoder."""
    value = spoil(event(), metadata=metadata, extra=extra)

    documents = [send(make(name), value) for name in ("orjson", "json")]

    assert documents[0] == documents[1]
    assert list(documents[0])[: len(EVENT)] == list(EVENT)
    assert documents[0]["idempotency_key"] == KEY


@quickly
@given(st.dictionaries(st.sampled_from(TEXTS), trees), trees, trees, trees)
def test_no_event_is_too_odd(texts: dict[str, Any], code: Any, seconds: Any, moment: Any) -> None:
    """Whatever was put into its fields, an event is sent, and its fields have their types."""
    value = spoil(event(), **texts, status_code=code, response_time=seconds, timestamp=moment)

    documents = [send(make(name), value) for name in ("orjson", "json")]

    assert documents[0] == documents[1]
    for name in TEXTS:
        assert type(documents[0][name]) in (str, type(EVENT[name]))
    assert type(documents[0]["status_code"]) in (int, type(None))
    assert type(documents[0]["response_time"]) in (float, int, type(None))
    assert dt.datetime.fromisoformat(documents[0]["timestamp"]).utcoffset() == dt.timedelta(0)


@quickly
@given(mappings, trees)
def test_no_metric_is_too_odd(tags: dict[Any, Any], endpoint: Any) -> None:
    """Tags are texts under texts, the endpoint is one or null."""
    value = spoil(metric(), tags=tags, endpoint=endpoint)

    documents = [send(make(name), value) for name in ("orjson", "json")]

    assert documents[0] == documents[1]
    assert {type(tag) for tag in documents[0]["tags"].values()} <= {str}
    assert type(documents[0]["endpoint"]) in (str, type(None))


@quickly
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_an_ordinary_text_arrives_as_it_was(text: str) -> None:
    """Quotes, control characters and all of Unicode, when there is no credential in it."""
    if any(sign in text for sign in ("=", ":", "@", "//", "%", "eyJ", '"')) or text[:1] in (
        "{",
        "[",
    ):
        return
    if "bearer" in text.lower() or "basic" in text.lower() or text[:1].isspace():
        return

    for name in ("orjson", "json"):
        document = send(make(name), event(reason=text, metadata={"a": text, "b": [text]}))

        assert (document["reason"], document["metadata"]) == (text, {"a": text, "b": [text]})
