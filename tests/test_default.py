"""The process-wide agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import guardagent
from guardagent import Agent, ConfigError, SecurityEvent
from guardagent._default import replace
from tests.conftest import quick_settings
from tests.scripted import in_threads
from tests.support.backend import Backend


@pytest.fixture(autouse=True)
def no_agent(no_leaks: None) -> Iterator[None]:
    """Begin and end without one."""
    former = replace(None)
    yield
    agent = replace(former)
    if agent is not None:
        agent.stop(timeout=1.0)


def event() -> SecurityEvent:
    return SecurityEvent(event_type="probe")


def init(backend: Backend, **settings: Any) -> Agent:
    return guardagent.init(**{**quick_settings(backend.url), **settings})


def test_there_is_none_at_first() -> None:
    """Capturing is then a no-op that says so."""
    assert guardagent.get_agent() is None
    assert guardagent.capture(event()) is False


def test_init_makes_it(backend: Backend) -> None:
    """`capture` goes to it."""
    agent = init(backend)

    taken = guardagent.capture(event())

    assert (guardagent.get_agent() is agent, taken) == (True, True)
    assert backend.wait_for(1)


def test_capture_takes_mappings(backend: Backend) -> None:
    """As the agent's own does."""
    init(backend)

    assert guardagent.capture({"event_type": "probe"}) is True
    assert backend.wait_for(1)


def test_second_init_replaces_and_drains(backend: Backend) -> None:
    """The former one delivers what it has; nothing goes to it any more (FIELD E3)."""
    first = init(backend, flush_interval=3_600.0, api_key="first-key-000")
    guardagent.capture(event())

    second = init(backend, api_key="second-key-000")
    guardagent.capture(event())

    assert guardagent.get_agent() is second
    assert backend.wait_for(2)
    assert first.capture(event()) is False
    assert {request.headers["x-api-key"] for request in backend.requests} == {
        "first-key-000",
        "second-key-000",
    }


def test_wrong_settings_leave_the_former_one(backend: Backend) -> None:
    """It goes on as if nothing had been tried."""
    agent = init(backend)

    with pytest.raises(ConfigError, match="buffer_size"):
        init(backend, buffer_size=0)

    assert guardagent.get_agent() is agent
    assert guardagent.capture(event()) is True


def test_settings_come_from_the_environment(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not given."""
    monkeypatch.setenv("GUARDAGENT_API_KEY", "from-environment")
    monkeypatch.setenv("GUARDAGENT_ENDPOINT", backend.url)

    agent = guardagent.init(flush_interval=0.05)
    guardagent.capture(event())

    assert agent.config.flush_interval == 0.05
    assert backend.wait_for(1)
    assert backend.requests[0].headers["x-api-key"] == "from-environment"


def test_without_a_key_it_is_disabled(caplog: pytest.LogCaptureFixture) -> None:
    """No exception, one warning (FIELD E1)."""
    agent = guardagent.init()

    assert guardagent.capture(event()) is False
    assert agent.stats().dropped["disabled"] == 1
    assert caplog.messages == ["guardagent is disabled: there is no api_key."]


def test_eight_threads_at_once_leave_one(backend: Backend) -> None:
    """Every other one was stopped."""
    agents = in_threads(8, lambda _: init(backend))

    running = [agent for agent in agents if agent.capture(event())]

    assert running == [guardagent.get_agent()]


def test_unknown_names() -> None:
    """The package has the names it says it has, and no others."""
    missing = [name for name in guardagent.__all__ if not hasattr(guardagent, name)]

    assert missing == []
    assert set(guardagent.__all__) <= set(dir(guardagent))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        guardagent.nonsense  # noqa: B018
