"""Passing trouble: what is sent again, when, and how long the agent waits."""

from __future__ import annotations

import email.utils
import itertools
import time

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import (
    Errors,
    assert_balanced,
    assert_delivered,
    bounded,
    capture,
    repeats,
)
from tests.support.answers import (
    Status,
)
from tests.support.backend import Backend


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_retried(backend: Backend, make_agent: MakeAgent, code: int) -> None:
    """Statuses that may pass cost nothing but another request."""
    backend.script(Status(code, body=b"<html>busy</html>"), Status(code))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert (len(backend.requests), agent.stats().retried) == (3, 2)
    assert repeats(backend.received) == []


@pytest.mark.parametrize("code", [501, 505, 507, 511, 599])
def test_other_server_errors_are_kept_and_retried(
    backend: Backend, make_agent: MakeAgent, code: int
) -> None:
    """A 5xx of any number is the backend's trouble, never the batch's."""
    backend.script(Status(code))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    "retry_after",
    [
        "0",
        "-5",
        "nan",
        "inf",
        "-inf",
        "",
        "soon",
        "1e",
        "0x10",
        "\u0661",
        "1;2",
        "Mon, 99 Foo 2026",
    ],
)
def test_useless_retry_after_means_the_usual_back_off(
    backend: Backend, make_agent: MakeAgent, code: int, retry_after: str
) -> None:
    """Nothing that a Retry-After may hold by mistake delays or breaks the retry."""
    value = retry_after.encode().decode("latin-1")
    backend.script(Status(code, {"Retry-After": value}))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=5.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 2


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_in_the_past_means_the_usual_back_off(
    backend: Backend, make_agent: MakeAgent, code: int
) -> None:
    """A date that has gone by delays nothing."""
    past = email.utils.formatdate(time.time() - 3600, usegmt=True)
    backend.script(Status(code, {"Retry-After": past}))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=5.0)
    assert_delivered(agent, backend, keys)


@pytest.mark.parametrize("attempts", [0, 2])
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_in_seconds_is_kept(
    backend: Backend, make_agent: MakeAgent, code: int, attempts: int
) -> None:
    """The next request comes no earlier than asked, also when the retries are used up."""
    backend.script(*[Status(code, {"Retry-After": "0.4"})] * (attempts + 1))
    agent = make_agent(retry_attempts=attempts)

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    times = [request.at for request in backend.requests]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert len(gaps) == attempts + 1
    assert min(gaps) >= 0.4


def test_retry_after_as_a_date_is_kept(backend: Backend, make_agent: MakeAgent) -> None:
    """The other form of RFC 9110 counts too."""
    at = time.time() + 2.0
    backend.script(Status(503, {"Retry-After": email.utils.formatdate(at, usegmt=True)}))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    first, second = backend.requests
    assert second.at - first.at >= 0.9  # the date has whole seconds only


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    "retry_after", ["120", "99999999", "9" * 200, "Fri, 31 Dec 2099 23:59:59 GMT"]
)
def test_long_retry_after_holds_no_stop(
    backend: Backend, make_agent: MakeAgent, code: int, retry_after: str
) -> None:
    """However long the backend wants to be left alone, stop makes one attempt at once."""
    backend.script(Status(code, {"Retry-After": retry_after}))
    agent = make_agent()
    keys = capture(agent, 5)
    assert backend.wait_for_requests(1)
    assert agent.flush(timeout=0.1) is False

    assert bounded(lambda: agent.stop(timeout=5.0))

    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 2


def test_breaker_opens_in_an_outage_and_closes_after_it(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """A long row of failures is asked less and less often, and all arrives in the end."""
    errors = Errors()
    backend.script(*[Status(500)] * 5)
    agent = make_agent(retry_attempts=0, on_error=errors)
    keys = capture(agent, 5)
    assert errors.wait(5)
    assert agent.stats().breaker == "open"

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert agent.stats().breaker == "closed"


def test_open_breaker_holds_no_stop(backend: Backend, make_agent: MakeAgent) -> None:
    """The last attempt at the end does not ask the breaker."""
    errors = Errors()
    backend.script(*[Status(500)] * 5)
    agent = make_agent(retry_attempts=0, on_error=errors)
    keys = capture(agent, 5)
    assert errors.wait(5)
    assert agent.stats().breaker == "open"

    assert bounded(lambda: agent.stop(timeout=5.0))
    assert_delivered(agent, backend, keys)


def test_patience_never_opens_the_breaker(backend: Backend, make_agent: MakeAgent) -> None:
    """A backend that asks for patience is not away."""
    errors = Errors()
    backend.script(*[Status(429)] * 8)
    agent = make_agent(retry_attempts=0, on_error=errors)
    keys = capture(agent, 5)
    assert errors.wait(8)
    assert agent.stats().breaker == "closed"

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)


def test_old_events_expire_in_an_outage(backend: Backend, make_agent: MakeAgent) -> None:
    """With `max_event_age` what waited too long is dropped and counted, and the rest is sent."""
    drops: dict[str, int] = {}
    backend.down()
    agent = make_agent(max_event_age=0.2, on_drop=lambda reason, n: drops.update({reason: n}))
    lost = capture(agent, 5)
    assert agent.flush(timeout=10.0)  # settled: dropped and counted
    backend.up()

    keys = lost + capture(agent, 5)

    agent.stop(timeout=5.0)  # a slow machine may have let some of the new ones expire too
    stats = agent.stats()
    assert_balanced(agent)
    assert stats.captured == len(keys)
    assert stats.dropped["expired"] >= 5
    assert not set(lost) & backend.keys
