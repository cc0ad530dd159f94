"""The agent behind the methods of a Guard library, for callers that await and that do not."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

import guardagent
import guardagent.contrib.guard
from guardagent import BufferFull, ConfigError
from guardagent.contrib.guard import GuardAgentHandler, guard_agent
from guardagent.contrib.guard.awaitables import Pending, Settled
from guardagent.contrib.guard.factory import translate
from guardagent.contrib.guard.models import (
    AgentConfig,
    DynamicRules,
    EventBatch,
    SecurityEvent,
    SecurityMetric,
)
from tests.conftest import quick_settings
from tests.support.answers import Held, Status
from tests.support.backend import Backend

MakeHandler = Callable[..., GuardAgentHandler]
RULES = Status(200, {}, b'{"version": 7, "blocked_cloud_providers": ["AWS"], "ttl": 60}')


@pytest.fixture
def make_handler(backend: Backend) -> Iterator[MakeHandler]:
    """Build handlers of guardagent's own settings; all are stopped at the end."""
    handlers: list[GuardAgentHandler] = []

    def build(**settings: Any) -> GuardAgentHandler:
        config = guardagent.AgentConfig(**{**quick_settings(backend.url), **settings})
        handlers.append(guard_agent(config))
        return handlers[-1]

    yield build
    for handler in handlers:
        handler.agent.stop(timeout=0.5)


def event(**fields: Any) -> SecurityEvent:
    return SecurityEvent(**{"event_type": "ip_banned", **fields})


# -- callers of both kinds ---------------------------------------------------------------------


def test_the_plain_use_in_an_async_application(backend: Backend, make_handler: MakeHandler) -> None:
    """Configure, start, send and stop, all awaited, with guardagent's own classes."""

    async def main() -> bool:
        agent = make_handler(flush_interval=60)
        await agent.start()
        assert await agent.send_event(guardagent.SecurityEvent(event_type="login_failed"))
        return await agent.stop()

    assert asyncio.run(main())
    assert len(backend.received) == 1


def test_nobody_has_to_await(backend: Backend, make_handler: MakeHandler) -> None:
    """A result that is dropped warns of nothing, also on a running loop, and the work is done."""

    async def main() -> None:
        agent = make_handler()
        agent.start()
        agent.send_event(event())
        agent.send_metric(SecurityMetric(metric_type="request_count", value=1))
        agent.get_dynamic_rules()
        agent.flush_buffer()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()

    assert backend.wait_for(2)
    assert warned == []


def test_calls_without_a_loop(backend: Backend, make_handler: MakeHandler) -> None:
    """Without a loop every call is done when it returns."""
    backend.default_rules = RULES
    agent = make_handler(flush_interval=60)
    agent.start()
    agent.send_event(event())

    rules = agent.get_dynamic_rules()

    assert isinstance(rules, DynamicRules)
    assert rules.version == 7
    assert agent.flush_buffer()
    assert len(backend.received) == 1
    assert agent.health_check()
    assert agent.stop()
    assert not agent.health_check()


def test_results_are_as_good_as_coroutines() -> None:
    """What takes coroutines only takes the results too: a task, `asyncio.run`, `gather`."""

    async def main() -> list[Any]:
        first = asyncio.create_task(Settled(1))
        second = asyncio.create_task(Pending(lambda: 2))
        return await asyncio.gather(first, second, Settled(3), Pending(lambda: 4))

    assert asyncio.run(main()) == [1, 2, 3, 4]
    assert asyncio.run(Settled(5)) == 5
    assert asyncio.run(Pending(lambda: 6)) == 6


def test_results_that_fail_or_are_given_up() -> None:
    """An error of the work belongs to who awaits it; one who gives up waiting is not held."""

    def fail() -> None:
        raise LookupError("it is not there")

    async def main() -> None:
        with pytest.raises(LookupError):
            await Pending(fail)
        waiting = asyncio.create_task(Pending(lambda: None))
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    with pytest.raises(LookupError):
        Settled(None).throw(LookupError("thrown"))


def test_a_sleeping_backend_does_not_hold_up_the_loop(
    backend: Backend, make_handler: MakeHandler
) -> None:
    """While the first rules are waited for, the loop goes on; then they are there."""
    held = Held(then=RULES)
    backend.script_rules(held)

    async def main() -> tuple[bool, Any]:
        waiting = asyncio.ensure_future(make_handler().get_dynamic_rules())
        while not backend.rules_requests:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0)
        was_waiting = not waiting.done()
        held.let_go()
        return was_waiting, await waiting

    was_waiting, rules = asyncio.run(main())

    assert was_waiting
    assert rules.version == 7


def test_rules_serve_both_kinds_of_callers(backend: Backend, make_handler: MakeHandler) -> None:
    """On a loop, rules that are known can be awaited and can be read as they are."""
    backend.default_rules = RULES

    async def main() -> None:
        agent = make_handler()
        awaited = await agent.get_dynamic_rules()
        known = agent.get_dynamic_rules()
        assert known is awaited
        assert await known is known
        assert known.blocked_cloud_providers == {"AWS"}

    asyncio.run(main())


TAKERS: dict[str, Callable[[Any], Any]] = {
    "await": lambda found: found,
    "create_task": asyncio.create_task,
    "gather": lambda found: asyncio.gather(found, Settled(1)),
    "shield": asyncio.shield,
    "wait_for": lambda found: asyncio.wait_for(found, 60),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=list(TAKERS))
def test_known_rules_go_wherever_coroutines_go(take: Callable[[Any], Any]) -> None:
    """Rules that are there are as good as awaited ones: in a task, beside others, with a limit."""
    rules = DynamicRules.of(guardagent.DynamicRules(ip_blacklist=["203.0.113.9"]))

    async def main() -> Any:
        return await take(rules)

    found = asyncio.run(main(), debug=True)

    assert (found[0] if isinstance(found, list) else found) is rules
    assert asyncio.run(rules) is rules


def test_several_may_wait_for_one_result() -> None:
    """Each of them gets it, in tasks and awaited; who gives up takes it from nobody."""
    going = threading.Event()

    def work() -> int:
        going.wait(60)
        return 5

    async def main() -> tuple[bool, list[int]]:
        pending = Pending(work)
        tasks = [asyncio.create_task(pending) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        going.set()
        found = [await one for one in (*tasks[1:], pending)]
        return tasks[0].cancelled(), found

    assert asyncio.run(main(), debug=True) == (True, [5] * 4)


def test_no_rules(make_handler: MakeHandler) -> None:
    """A backend without rules is no news, for callers of both kinds."""
    agent = make_handler()

    async def main() -> Any:
        return await agent.get_dynamic_rules()

    assert agent.get_dynamic_rules() is None
    assert asyncio.run(main()) is None


# -- the agent behind --------------------------------------------------------------------------


def test_one_agent_for_each_configuration(make_handler: MakeHandler) -> None:
    """The same settings give the same handler; others leave it alone and have their own."""
    first = make_handler()

    assert make_handler() is first
    assert make_handler(project_id="another") is not first
    assert first.config.project_id == "tests"


def test_it_starts_anew_after_a_stop(backend: Backend, make_handler: MakeHandler) -> None:
    """What is sent while it is stopped is refused; a second start makes it report again."""
    agent = make_handler()
    agent.start()
    assert agent.close()

    refused = agent.send_event(event())
    agent.start()
    taken = agent.send_event(event())

    assert (bool(refused), bool(taken)) == (False, True)
    assert agent.flush_buffer()
    assert len(backend.received) == 1


def test_a_full_queue_speaks_as_it_was_told(backend: Backend, make_handler: MakeHandler) -> None:
    """`raise` raises; `block` on a loop waits beside it, not on it."""
    raising = make_handler(overflow="raise", queue_capacity=1, spool_max_records=1)
    backend.default = held = Held()

    def fill() -> None:
        while raising.send_event(event()):
            pass

    async def main() -> bool:
        blocking = make_handler(overflow="block")
        result = blocking.send_event(event())
        assert isinstance(result, Pending)
        return await result

    with pytest.raises(BufferFull):
        fill()
    assert asyncio.run(main())
    held.let_go()


def test_bare_objects_are_events(backend: Backend, make_handler: MakeHandler) -> None:
    """The engine's own anomalies are objects with a few attributes; they arrive as events."""
    now = dt.datetime.now(dt.timezone.utc)
    agent = make_handler()

    agent.send_event(
        SimpleNamespace(
            timestamp=now,
            event_type="pattern_anomaly_timeout",
            ip_address="system",
            action_taken="anomaly_detected",
            reason="slow",
            metadata={"pattern": "x"},
        )
    )

    assert agent.flush_buffer()
    (sent,) = backend.requests[0].document["events"]
    assert (sent["event_type"], sent["handler_name"]) == ("pattern_anomaly_timeout", None)
    assert sent["metadata"] == {"pattern": "x"}


def test_stats_are_what_the_manuals_read(make_handler: MakeHandler) -> None:
    """The counters can be spread into a dict, with the names of the Guard libraries' manuals."""
    agent = make_handler()
    agent.start()
    agent.send_event(event())
    agent.flush_buffer()

    stats = {"enabled": True, **agent.get_stats()}

    assert stats["running"]
    assert (stats["captured"], stats["events_sent"]) == (1, 1)
    assert stats["buffer_stats"] == {"buffer_size": 0, "events_dropped": 0}
    assert stats["transport_stats"] == {"circuit_breaker_state": "CLOSED"}
    assert asyncio.run(agent.get_status()).status == "healthy"
    assert repr(agent).startswith("<GuardAgentHandler <Agent")


@pytest.mark.parametrize(
    "manager",
    [SimpleNamespace(), SimpleNamespace(config=SimpleNamespace(redis_url=None)), None],
)
def test_a_manager_without_an_address(
    backend: Backend, make_handler: MakeHandler, manager: Any
) -> None:
    """A Redis that cannot be found leaves everything as it is, and never raises."""
    agent = make_handler()
    before = agent.agent

    agent.initialize_redis(manager)

    assert agent.agent is before
    assert agent.send_event(event())


def test_a_useless_address(make_handler: MakeHandler) -> None:
    """An address that no spool takes is said in the log; a request never fails for it."""
    agent = make_handler()

    agent.initialize_redis(SimpleNamespace(config=SimpleNamespace(redis_url="redis://[::1")))

    assert agent.config.spool == "memory://"
    assert agent.send_event(event())


def test_a_spool_of_ones_own_stays(
    make_handler: MakeHandler, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who chose a durable spool keeps it when the Guard library brings its Redis."""
    spool = f"sqlite:///{tmp_path_factory.mktemp('spool')}/events.db"
    agent = make_handler(spool=spool)

    agent.initialize_redis(SimpleNamespace(config=SimpleNamespace(redis_url="redis://127.0.0.1:9")))

    assert agent.config.spool == spool


# -- the models --------------------------------------------------------------------------------


def test_events_take_any_keyword(backend: Backend, make_handler: MakeHandler) -> None:
    """Keywords that are no fields travel at the top level, and can be read back."""
    agent = make_handler()
    one = event(session="s-1", extra={"tenant": "t"}, metadata=None)

    assert agent.send_event(one)
    assert agent.flush_buffer()
    (sent,) = backend.requests[0].document["events"]
    assert (one.session, one.tenant) == ("s-1", "t")
    assert (sent["session"], sent["tenant"], sent["metadata"]) == ("s-1", "t", {})
    with pytest.raises(AttributeError, match="nothing_there"):
        _ = one.nothing_there


def test_mappings_of_the_instance_can_be_written() -> None:
    """The enricher writes into metadata and tags; what the caller gave stays as it was."""
    metadata, tags = {"a": 1}, {"method": "GET"}
    one = event(metadata=metadata)
    metric = SecurityMetric(metric_type="error_rate", value=1, tags=tags, unknown=1)

    one.metadata["guard.risk"] = 2
    metric.tags["guard.risk"] = "2"

    assert (metadata, tags) == ({"a": 1}, {"method": "GET"})


def test_events_that_do_not_fit_are_made_to() -> None:
    """A value of the wrong type does not cost the event."""
    one = event(status_code="404", timestamp="2026-01-02T03:04:05Z", response_time="soon")

    assert one.status_code == 404
    assert one.timestamp == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    assert one.metadata["response_time_given"] == "soon"


@pytest.mark.parametrize("model", [SecurityEvent, SecurityMetric, EventBatch])
def test_models_can_be_prepared(model: Any) -> None:
    """guard-core sets a plugin's settings on the classes and has them rebuilt."""
    model.model_config.setdefault("plugin_settings", {})["logfire"] = {"record": "off"}

    assert model.model_rebuild(force=True)
    assert "logfire" not in AgentConfig.model_config.get("plugin_settings", {})


def test_rules_can_be_dumped() -> None:
    """The snapshot of the last rules names the fields it wants, and gets those only."""
    rules = DynamicRules.of(guardagent.DynamicRules(version=3, message="hello"))

    assert rules.model_dump(include={"version", "ttl", "not_there"}) == {"version": 3, "ttl": 300}
    assert rules
    with pytest.raises(AttributeError):
        rules.version = 4  # type: ignore[misc]


# -- settings ----------------------------------------------------------------------------------


def test_settings_are_checked_late() -> None:
    """Wrong settings raise in `guard_agent`, which the libraries guard, not in `AgentConfig`."""
    config = AgentConfig(api_key="key", endpoint="not an address", buffer_size=5)

    assert config
    assert (config.buffer_size, config.model_dump(include={"buffer_size"})) == (
        5,
        {"buffer_size": 5},
    )
    assert "key" not in repr(config).replace("api_key", "")
    with pytest.raises(AttributeError):
        _ = config.timeout
    with pytest.raises(ConfigError, match="endpoint"):
        guard_agent(config)


def test_settings_have_other_names_here() -> None:
    """A Guard library's settings become guardagent's of the same effect."""
    given = {
        "api_key": "k",
        "buffer_size": 100,
        "high_watermark_ratio": 0.8,
        "buffer_overflow_policy": "drop",
        "compression_enabled": False,
        "max_concurrent_flushes": 2,
    }

    assert translate(given) == {
        "api_key": "k",
        "buffer_size": 80,
        "overflow": "drop_oldest",
        "compression": False,
    }


def test_settings_of_a_later_version(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown setting is named in the log and stops nothing."""
    assert translate({"api_key": "k", "telepathy": True}) == {"api_key": "k"}
    assert "telepathy" in caplog.text


def test_names_of_the_package() -> None:
    """The names load when they are first used; others are an error."""
    package = guardagent.contrib.guard

    assert {"GuardAgentHandler", "guard_agent", "install", "uninstall"} <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_a_forked_child_has_its_own(backend: Backend, make_handler: MakeHandler) -> None:
    """A child reports for itself, whatever lock a thread of its parent held at the fork."""
    agent = make_handler()
    agent.start()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with agent._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        settled = False
        try:
            agent.start()
            agent.send_event(event(event_type="of_the_child"))
            settled = bool(agent.stop())
        finally:
            os._exit(0 if settled else 1)
    done.set()
    thread.join()
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert len(backend.received) == 1
