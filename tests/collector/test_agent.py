"""The agent and the collector, together: both must read WIRE.md the same way."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from guardagent import Agent, AgentConfig, SecurityEvent, SecurityMetric
from guardagent.collector import Collector, CollectorServer, Store
from tests.conftest import quick_settings

if TYPE_CHECKING:
    from pathlib import Path

_KEY = "right-key-0123456789"

Connect = Callable[..., Agent]


@pytest.fixture
def server(store: Store) -> Iterator[CollectorServer]:
    """A collector that asks for a key and a signature."""
    app = Collector(store, api_keys=[_KEY], signing_secret="secret")
    with CollectorServer(app=app) as server:
        yield server


@pytest.fixture
def connect(server: CollectorServer) -> Iterator[Connect]:
    """Build agents of the collector."""
    with ExitStack() as stack:

        def build(**settings: Any) -> Agent:
            given = {"api_key": _KEY, "payload_signing_secret": "secret", "install_id": "host-1"}
            config = AgentConfig(**{**quick_settings(server.url), **given, **settings})
            return stack.enter_context(Agent(config))

        yield build


@pytest.mark.parametrize("threshold", [0, 10_000_000])
def test_what_is_captured_arrives(connect: Connect, store: Store, threshold: int) -> None:
    """Events and metrics arrive under their keys, compressed or not, signed either way."""
    agent = connect(compression_threshold=threshold)
    events = [SecurityEvent(event_type="ip_banned", status_code=403) for _ in range(50)]
    metrics = [SecurityMetric(metric_type="block_rate", value=n, tags={"n": n}) for n in range(50)]
    for item in [*events, *metrics]:
        agent.capture(item)

    assert agent.flush(10.0)
    assert store.deliveries("event") == {event.idempotency_key: 1 for event in events}
    assert store.deliveries("metric") == {metric.idempotency_key: 1 for metric in metrics}
    assert store.count("refusal") == 0
    assert {arrival.agent for arrival in store.arrivals()} == {"host-1"}


def test_hostile_events_arrive_as_events(connect: Connect, store: Store) -> None:
    """Whatever is captured, the collector finds nothing wrong with what is sent of it."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    odd: dict[Any, Any] = {1: "one", None: "none", (2, 3): "pair", "half\ud800": "\udfff"}
    values: list[dict[str, Any]] = [
        {"metadata": {"number": float("nan"), "more": float("inf"), "huge": 2**200}},
        {"metadata": cycle},
        {"metadata": odd},
        {"metadata": {"bytes": b"\xff\0", "object": object(), "set": {1}}},
        {"metadata": {"deep": json.loads("[" * 90 + "]" * 90)}},
        {"reason": "x" * 1_000_000},
        {"reason": "half\ud800", "event_type": "odd\udfff"},
        {"response_time": float("nan")},
        {"timestamp": dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc)},
        {"timestamp": dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5.5)))},
        {"timestamp": dt.datetime(2026, 1, 1)},  # noqa: DTZ001 - naive on purpose
        {"idempotency_key": "457dd84b-183e-4c26-9b40-1dc3b7bba90f"},
    ]
    agent = connect()
    events = [SecurityEvent(**{"event_type": "hostile", **fields}) for fields in values]
    for event in events:
        agent.capture(event)

    assert agent.flush(10.0)
    assert agent.stats().delivered == len(values)
    assert set(store.deliveries("event")) == {event.idempotency_key for event in events}
    assert store.count("refusal") == 0


def test_extra_fields_arrive_at_the_top(connect: Connect, store: Store) -> None:
    """What the event does not know is sent beside what it knows."""
    agent = connect()
    agent.capture({"event_type": "custom", "tenant": "north", "level": 3})

    assert agent.flush(10.0)
    (arrival,) = store.arrivals()
    body = json.loads(arrival.body)
    assert (body["tenant"], body["level"]) == ("north", 3)


def test_an_agent_survives_the_collector(
    connect: Connect, store: Store, server: CollectorServer
) -> None:
    """What is captured while the collector is away arrives once when it is back."""
    agent = connect()
    keys = []
    for is_away in (False, True, False):
        if is_away:
            server.stop()
        else:
            server.start()
        event = SecurityEvent(event_type="ip_banned")
        keys.append(event.idempotency_key)
        agent.capture(event)
        agent.flush(0.2)

    assert agent.flush(20.0)
    assert store.deliveries("event") == dict.fromkeys(keys, 1)


def test_a_wrong_key_keeps_everything(connect: Connect, store: Store) -> None:
    """The agent keeps its events while the collector refuses its key."""
    agent = connect(api_key="wrong-key-0123456789")
    agent.capture(SecurityEvent(event_type="ip_banned"))
    agent.flush(0.5)

    stats = agent.stats()

    assert stats.pending == 1
    assert "401" in str(stats.last_error)
    assert store.count("event") == 0


def test_a_status_report_is_taken(connect: Connect, store: Store) -> None:
    """What the agent says of itself is a report as the collector knows it."""
    connect(status_interval=1.0)

    assert store.wait(0, timeout=20.0)
    (arrival,) = store.arrivals()
    assert (arrival.kind, arrival.type, arrival.agent) == ("status", "healthy", "host-1")


def test_rules_reach_the_agent(tmp_path: Path, store: Store) -> None:
    """The document that the collector hands out is the one in force at the agent."""
    path = tmp_path / "rules.json"
    path.write_text('{"rule_id": "r-1", "version": 7, "ip_blacklist": ["203.0.113.9"]}')
    arrived = threading.Event()
    with CollectorServer(app=Collector(store, rules=path)) as server:
        agent = Agent(AgentConfig(**{**quick_settings(server.url), "install_id": "host-1"}))
        agent.on_rules(lambda _rules: arrived.set())
        with agent:
            assert arrived.wait(20.0)
            rules = agent.rules

    assert rules is not None
    assert (rules.rule_id, rules.version, rules.ip_blacklist) == ("r-1", 7, ["203.0.113.9"])


def test_rules_and_reports_go_on_with_a_rotated_key(store: Store) -> None:
    """A refused key is read again, and the request made once more at once."""
    app = Collector(store, api_keys=[_KEY])
    app.rulebook.replace({"rule_id": "r-1", "version": 3})
    given: list[str] = []

    def read_key() -> str:
        given.append(_KEY if given else "old-key-0123456789")
        return given[-1]

    with CollectorServer(app=app) as server:
        settings = {**quick_settings(server.url), "install_id": "host-1", "api_key": read_key}
        with Agent(AgentConfig(**settings)) as agent:
            rules = agent.wait_for_rules(timeout=20.0)

    assert rules is not None
    assert (rules.rule_id, rules.version) == ("r-1", 3)
    assert [arrival.type for arrival in store.arrivals(kind="refusal")] == ["401"]


def test_a_rule_is_obeyed_at_the_next_poll(store: Store) -> None:
    """What is put at the collector decides at the agent, without a restart."""
    app = Collector(store)
    came = threading.Event()
    with CollectorServer(app=app) as server:
        settings = {**quick_settings(server.url), "dynamic_rule_interval": 0.05}
        with Agent(AgentConfig(**settings)) as agent:
            agent.on_rules(lambda _rules: came.set())
            before = agent.wait_for_rules(timeout=20.0)
            app.rulebook.replace({"ip_blacklist": ["203.0.113.0/24"]})
            assert came.wait(20.0)
            rules = agent.rules

    assert before is None
    assert rules is not None
    assert not rules.decide(ip="203.0.113.9").allowed
    assert rules.decide(ip="198.51.100.9").allowed
