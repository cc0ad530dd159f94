"""The application's `before_send`: what it is given, may return, and cannot change."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from guardagent import SecurityEvent, SecurityMetric
from guardagent.encoding import Encoder
from guardagent.fields import Item, Kind, named, take_event, take_metric
from guardagent.hooks import event_hook
from guardagent.redaction import Redactor

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.timezone.utc)
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"
RAW_KEY = bytes.fromhex(KEY.replace("-", ""))


def event(**fields: Any) -> Item:
    """What a capture takes."""
    given = {"event_type": "e", "timestamp": NOON, "idempotency_key": KEY, **fields}
    return take_event(SecurityEvent(**given))


def metric() -> Item:
    return take_metric(
        SecurityMetric(
            metric_type="block_rate",
            value=1,
            tags={"a": "b"},
            timestamp=NOON,
            idempotency_key=KEY,
        )
    )


def call(before_send: Callable[[Any], Any], item: Item) -> Item | None:
    hook = event_hook(before_send)
    assert hook is not None
    return hook(item)


def sent(item: Item | None) -> dict[str, Any]:
    assert item is not None
    record = Encoder(Redactor([], 1_024), 65_536).record(item, 0.0)
    document: dict[str, Any] = json.loads(record.body)
    return document


def test_no_function_is_no_hook() -> None:
    """Without a `before_send` nothing is called for an event."""
    assert event_hook(None) is None


def test_the_function_gets_the_event() -> None:
    """It sees an event with every field that was captured."""
    fields = event(reason="r", status_code=403, metadata={"a": [1]}, extra={"tenant": "blue"})
    seen: list[SecurityEvent] = []

    call(seen.append, fields)

    (got,) = seen
    assert type(got) is SecurityEvent
    assert (got.event_type, got.timestamp, got.reason, got.status_code) == ("e", NOON, "r", 403)
    assert (got.metadata, got.extra) == ({"a": [1]}, {"tenant": "blue"})
    assert got.idempotency_key == KEY


def test_the_function_gets_the_metric() -> None:
    """Metrics pass through the same function."""
    seen: list[SecurityMetric] = []

    call(seen.append, metric())

    (got,) = seen
    assert type(got) is SecurityMetric
    assert (got.metric_type, got.value, got.tags) == ("block_rate", 1.0, {"a": "b"})
    assert got.idempotency_key == KEY


def test_a_key_that_is_still_raw_is_shown_as_text() -> None:
    """The agent keeps keys as 16 bytes; an application never sees them so."""
    fields = event(idempotency_key=RAW_KEY)
    seen: list[str] = []

    kept = call(lambda it: seen.append(it.idempotency_key) or it, fields)

    assert seen == [KEY]
    assert sent(kept)["idempotency_key"] == KEY


def test_an_event_that_is_returned_is_sent() -> None:
    """Unchanged, it is what was captured."""
    fields = event(reason="r", metadata={"a": [1]}, extra={"tenant": "blue"})
    before = sent(fields)

    assert sent(call(lambda it: it, fields)) == before


def test_a_metric_that_is_returned_is_sent() -> None:
    """As with events."""
    assert call(lambda it: it, metric()) == metric()


def test_none_drops() -> None:
    """A function that returns None does not want the event sent."""
    assert call(lambda _: None, event()) is None
    assert call(lambda _: None, metric()) is None


def test_changes_are_sent() -> None:
    """The function may change every field, add fields, and set them to None."""

    def change(it: SecurityEvent) -> SecurityEvent:
        it.reason = None  # type: ignore[assignment]
        it.country = "NZ"
        it.metadata["team"] = {"name": "blue"}
        it.extra = {"tenant": "blue"}
        return it

    document = sent(call(change, event(reason="r", metadata={"a": 1})))

    assert (document["reason"], document["country"]) == ("", "NZ")
    assert document["metadata"] == {"a": 1, "team": {"name": "blue"}}
    assert document["tenant"] == "blue"


@pytest.mark.parametrize("name", ["metadata", "extra"])
@pytest.mark.parametrize("spoilt", [None, 5, "text", [1, 2]])
def test_a_spoilt_mapping_does_not_cost_the_event(name: str, spoilt: Any) -> None:
    """The function may leave nonsense behind."""

    def spoil(it: SecurityEvent) -> SecurityEvent:
        setattr(it, name, spoilt)
        return it

    assert sent(call(spoil, event()))["event_type"] == "e"


def test_an_event_may_be_replaced() -> None:
    """The function may return another event, which is then the captured one: it keeps its key."""
    other = SecurityEvent(event_type="other", reason="new", timestamp=NOON)

    document = sent(call(lambda _: other, event()))

    assert (document["event_type"], document["reason"]) == ("other", "new")
    assert document["idempotency_key"] == KEY


def test_a_metric_may_be_replaced() -> None:
    """The same for metrics."""
    other = SecurityMetric(metric_type="error_rate", value=0.5)

    kept = call(lambda _: other, metric())

    document = sent(kept)
    names = ("metric_type", "value", "idempotency_key")
    assert [document[name] for name in names] == ["error_rate", 0.5, KEY]


def test_the_key_cannot_be_changed() -> None:
    """The identity belongs to the event from its capture on."""

    def change(it: SecurityEvent) -> SecurityEvent:
        it._idempotency_key = "mine"
        return it

    kept = call(change, event())

    assert kept is not None
    assert named(kept)["idempotency_key"] == KEY


def test_what_the_function_keeps_is_its_own() -> None:
    """A function that holds on to an event cannot change what is sent later."""
    held: list[SecurityEvent] = []

    kept = call(lambda it: held.append(it) or it, event(metadata={"a": [1]}))
    held[0].metadata["a"].append(2)
    held[0].metadata["b"] = 3
    held[0].reason = "late"

    document = sent(kept)
    assert (document["metadata"], document["reason"]) == ({"a": [1]}, "")


def test_an_event_spoilt_before_its_capture_reaches_the_function() -> None:
    """Fields are not checked again on the way: the function may be there to repair them."""
    spoilt = SecurityEvent(event_type="e", idempotency_key=KEY)
    spoilt.status_code = "teapot"  # type: ignore[assignment]
    spoilt.timestamp = None  # type: ignore[assignment]
    seen: list[Any] = []

    call(seen.append, take_event(spoilt))

    assert (seen[0].status_code, seen[0].timestamp) == ("teapot", None)


@pytest.mark.parametrize("answer", [True, {}, {"event_type": "e"}, "e", SecurityEvent, metric()])
@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_anything_else_is_an_error(kind: Kind, answer: object) -> None:
    """The error names the type, and nothing of the value."""
    fields = event() if kind == "events" else metric()

    with pytest.raises(TypeError, match=rf"^before_send returned {type(answer).__name__}$"):
        call(lambda _: answer, fields)


def test_an_event_is_no_metric() -> None:
    """A function cannot turn one into the other."""
    with pytest.raises(TypeError, match=r"^before_send returned SecurityMetric$"):
        call(lambda _: SecurityMetric(metric_type="block_rate", value=1), event())
    with pytest.raises(TypeError, match=r"^before_send returned SecurityEvent$"):
        call(lambda _: SecurityEvent(event_type="e"), metric())


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_what_the_function_raises_is_passed_on(error: BaseException) -> None:
    """The drain, which calls it, decides: it drops the event and counts it."""

    def fail(_: object) -> None:
        raise error

    with pytest.raises(type(error)):
        call(fail, event())
