"""Hostile values: each costs at most itself, and every body stays strict JSON.

The backend reads each body with a strict parser, so NaN, lone surrogates and the like would show
up in `unreadable`, which `assert_delivered` looks at.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import pytest

from guardagent import SecurityMetric
from tests.conftest import MakeAgent
from tests.faults.hostile import HOSTILE, Exiting, Explosive, Lazy, Unhappy
from tests.support.accounts import assert_balanced, assert_delivered, capture, event
from tests.support.answers import RefuseOver
from tests.support.backend import Backend


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_value_in_metadata(backend: Backend, make_agent: MakeAgent, name: str) -> None:
    """Whatever stands in the metadata, the event and its neighbours arrive."""
    agent = make_agent(buffer_size=3)
    hostile = event(metadata={"value": HOSTILE[name], "beside": "still here"})

    keys = capture(agent)
    assert agent.capture(hostile) is True
    keys += [hostile.idempotency_key, *capture(agent)]

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    (sent,) = [one for one in backend.requests[0].records if one["metadata"]]
    assert sent["metadata"]["beside"] == "still here"
    assert len(backend.requests[0].body) < 256 * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_value_in_a_mapping(backend: Backend, make_agent: MakeAgent, name: str) -> None:
    """A mapping with such a value in every field is taken, or refused truthfully."""
    value = HOSTILE[name]
    agent = make_agent()
    fields = ("ip_address", "reason", "status_code", "response_time", "metadata", "more")

    keys = capture(agent)
    taken = [agent.capture({"event_type": "x", field: value}) for field in fields]
    keys += capture(agent)

    assert agent.stop(timeout=10.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert backend.unreadable == []
    assert set(keys) <= backend.keys
    assert stats.delivered == len(keys) + sum(taken)
    assert stats.dropped["invalid"] == taken.count(False)


NONSENSE: list[object] = [
    None,
    7,
    "text",
    b"bytes",
    [],
    {},
    {"event_type": ""},
    object(),
    Explosive(),
    Unhappy(),
    Exiting,
    {"metric_type": "no such"},
    {"metric_type": "bandwidth_usage"},
    {"metric_type": "error_rate", "value": math.nan},
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda nonsense: type(nonsense).__name__)
def test_what_is_no_event_is_refused(
    backend: Backend, make_agent: MakeAgent, nonsense: object
) -> None:
    """It is counted as invalid, capture returns False, and nothing else is touched."""
    agent = make_agent()

    keys = capture(agent)
    assert agent.capture(nonsense) is False
    keys += capture(agent)

    assert agent.stop(timeout=10.0)
    assert_balanced(agent)
    assert backend.keys == set(keys)
    assert agent.stats().dropped["invalid"] == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_field_spoilt_after_construction(
    backend: Backend, make_agent: MakeAgent, name: str
) -> None:
    """An event whose fields were overwritten costs at most itself, and that is counted."""
    spoilt = event()
    spoilt.reason = spoilt.ip_address = spoilt.status_code = HOSTILE[name]
    agent = make_agent()

    keys = capture(agent)
    taken = agent.capture(spoilt)
    keys += capture(agent)

    assert agent.stop(timeout=10.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert backend.unreadable == []
    assert set(keys) <= backend.keys
    lost = sum(stats.dropped.values())
    assert stats.delivered == 3 - lost
    assert taken or lost == 1


def test_metric_tags_of_any_kind(backend: Backend, make_agent: MakeAgent) -> None:
    """Tags go out as text values, whatever they were."""
    agent = make_agent()
    tags: dict[Any, Any] = {
        "none": None,
        "int": 1,
        7: math.nan,
        "surrogate": "\ud800",
        "o": Explosive(),
    }
    metric = SecurityMetric(metric_type="request_count", value=1.0, tags=tags)

    assert agent.capture(metric) is True

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, [metric.idempotency_key])
    (sent,) = backend.requests[0].records
    assert {type(value) for value in sent["tags"].values()} == {str}


def test_lazy_values_are_left_alone(backend: Backend, make_agent: MakeAgent) -> None:
    """No method of a foreign class is called, neither at capture nor later."""
    Lazy.queries = 0
    agent = make_agent()

    keys = capture(agent, metadata={"rows": Lazy()})

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert Lazy.queries == 0


def test_changes_after_capture_are_not_sent(backend: Backend, make_agent: MakeAgent) -> None:
    """An event is copied when it is captured, nested values included."""
    agent = make_agent(flush_interval=60.0)
    metadata: dict[str, Any] = {"flat": 1, "list": [1, {"deep": 1}], "bytes": bytearray(b"a")}
    one = event(metadata=metadata, reason="before")
    assert agent.capture(one)

    metadata["flat"] = 2
    metadata["list"][1]["deep"] = 2
    metadata["list"].append("more")
    metadata["bytes"][:] = b"zzz"
    one.reason = "after"
    one.metadata = {}

    assert agent.stop(timeout=10.0)
    (sent,) = backend.requests[0].records
    assert sent["reason"] == "before"
    assert sent["metadata"] == {"flat": 1, "list": [1, {"deep": 1}], "bytes": "a"}
    assert_delivered(agent, backend, [one.idempotency_key])


def test_mappings_that_other_threads_change(backend: Backend, make_agent: MakeAgent) -> None:
    """Dicts and lists changed while they are copied and sent never make capture fail."""
    agent = make_agent(buffer_size=50)
    metadata: dict[str, Any] = {"nested": {"a": 1}, "list": [1]}
    is_over = threading.Event()

    def change() -> None:
        for n in itertools.count():
            metadata[f"k{n % 50}"] = n
            metadata["nested"][n % 30] = [n]
            metadata["list"].append(n)
            if n % 7 == 0:
                metadata["nested"].clear()
                del metadata["list"][:]
                metadata.pop(f"k{n % 49}", None)
            if is_over.is_set():
                return

    changers = [threading.Thread(target=change) for _ in range(2)]
    for changer in changers:
        changer.start()
    try:
        keys = capture(agent, 500, metadata=metadata)
    finally:
        is_over.set()
        for changer in changers:
            changer.join()

    assert agent.stop(timeout=15.0)
    assert_delivered(agent, backend, keys)


def test_event_changed_by_other_threads(backend: Backend, make_agent: MakeAgent) -> None:
    """One event object captured again and again while another thread rewrites it."""
    agent = make_agent(buffer_size=50)
    shared = event()
    is_over = threading.Event()

    def change() -> None:
        while not is_over.is_set():
            shared.reason = "a" * 10
            shared.metadata = {"x": [1, 2]}
            shared.metadata = {}

    changer = threading.Thread(target=change)
    changer.start()
    try:
        taken = [agent.capture(shared) for _ in range(300)]
    finally:
        is_over.set()
        changer.join()

    assert agent.stop(timeout=10.0)
    assert taken == [True] * 300
    assert_balanced(agent)
    assert agent.stats().delivered == 300


def test_no_request_is_larger_than_allowed(backend: Backend, make_agent: MakeAgent) -> None:
    """Batches are cut by bytes: a backend with the default bound never answers 413."""
    backend.default = RefuseOver(256 * 1024)
    agent = make_agent(buffer_size=5_000)
    keys: list[str] = []
    for n in range(300):
        metadata = {f"text{i}": "\u20ac" * 300 for i in range(n % 100)}
        keys += capture(agent, metadata=metadata)

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) > 10
    assert max(len(request.body) for request in backend.requests) <= 256 * 1024


def test_batch_of_everything(backend: Backend, make_agent: MakeAgent) -> None:
    """All of it together, in one buffer, under the default bounds."""
    agent = make_agent(buffer_size=5_000)
    events = [event(metadata={name: value}) for name, value in HOSTILE.items()]

    assert [agent.capture(one) for one in events] == [True] * len(events)

    assert agent.stop(timeout=20.0)
    assert_delivered(agent, backend, [one.idempotency_key for one in events])
