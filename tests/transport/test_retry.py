"""The retry policy: how often, how long between, and what Retry-After says."""

from __future__ import annotations

import email.utils
import random
from typing import Any

import pytest
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError, ProtocolError, ResponseError

from guardagent.transport.retry import RETRY_STATUSES, DeliveryRetry, Interrupted, parse_retry_after

NOW = 1_800_000_000.0


def http_date(seconds: float) -> str:
    return email.utils.formatdate(NOW + seconds, usegmt=True)


class Waiting:
    """What a policy calls: the pauses it took and the requests it sent again."""

    def __init__(self, *, stops: bool = False) -> None:
        self.pauses: list[float] = []
        self.retries = 0
        self.stops = stops

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return not self.stops

    def note(self) -> None:
        self.retries += 1

    def policy(self, attempts: int = 3, backoff_factor: float = 1.0) -> DeliveryRetry:
        hooks: dict[str, Any] = {"pause": self.pause, "now": lambda: NOW, "on_retry": self.note}
        return DeliveryRetry.of(attempts, backoff_factor, **hooks)


def failed(policy: DeliveryRetry, times: int = 1) -> DeliveryRetry:
    """Return the policy after so many connection errors."""
    for _ in range(times):
        policy = policy.increment("POST", "/", error=ProtocolError("reset"))
    return policy


def answer(status: int = 503, **headers: str) -> HTTPResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPResponse(b"", headers=named, status=status, preload_content=False)


# -- Retry-After ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("300", 300.0),
        ("301", 300.0),
        ("9" * 300, 300.0),
        (http_date(12), 12.0),
        (http_date(86_400), 300.0),
        ("Sun, 06 Nov 2039 08:49:37 GMT", 300.0),
    ],
)
def test_retry_after_is_read(header: str, expected: float) -> None:
    """Seconds and dates, whole or not, at most five minutes."""
    assert parse_retry_after(header, NOW) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "0",
        "-5",
        "+5",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "٣",
        "1_000",
        "soon",
        "9" * 301,
        http_date(0),
        http_date(-3_600),
        "Sun, 99 Nov 2039 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov 2039 08:49:37 +99999999999",
        "\x00" * 50,
        ",",
        "Mon",
    ],
)
def test_retry_after_that_says_nothing(header: str | None) -> None:
    """Whatever else it holds, the usual back-off applies."""
    assert parse_retry_after(header, NOW) is None


# -- what is retried -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_these_answers_are_retried(status: int) -> None:
    """With POST, which urllib3 by itself does not repeat."""
    assert Waiting().policy().is_retry("POST", status)


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 403, 404, 409, 413, 422, 501, 505])
def test_these_answers_are_not(status: int) -> None:
    """Not even when they bring a Retry-After: 413 asks for a smaller request."""
    assert not Waiting().policy().is_retry("POST", status, has_retry_after=True)


def test_attempts_are_counted() -> None:
    """So many repeats are made and not one more."""
    policy = failed(Waiting().policy(attempts=2), 2)

    with pytest.raises(MaxRetryError):
        failed(policy)


def test_answers_count_as_attempts() -> None:
    """The last answer is handed on rather than made an exception."""
    policy = Waiting().policy(attempts=1)
    first = answer()

    policy = policy.increment("POST", "/", response=first)

    assert first.closed
    assert policy.raise_on_status is False
    with pytest.raises(MaxRetryError) as caught:
        policy.increment("POST", "/", response=answer())
    assert isinstance(caught.value.reason, ResponseError)


def test_policy_is_a_value() -> None:
    """An increment answers with another one, with the same hooks, and leaves the first alone."""
    waiting = Waiting()
    policy = waiting.policy()

    following = failed(policy)

    assert (policy.total, following.total) == (3, 2)
    assert isinstance(following, DeliveryRetry)
    assert (following.pause, following.on_retry) == (policy.pause, policy.on_retry)
    assert (len(policy.history), len(following.history)) == (0, 1)


def test_new_may_change_a_hook() -> None:
    """What it is given beats what it has."""
    policy = Waiting().policy()

    assert policy.new(now=lambda: 5.0).now() == 5.0


# -- how long ------------------------------------------------------------------------------------


def test_first_retry_waits_too() -> None:
    """The delay before retry n is `backoff_factor * 2 ** (n - 1)` and up to a fifth more."""
    policy = Waiting().policy(attempts=5, backoff_factor=2.0)
    delays = [policy.get_backoff_time()]

    for _ in range(4):
        policy = failed(policy)
        delays.append(policy.get_backoff_time())

    assert delays[0] == 0.0
    for delay, expected in zip(delays[1:], [2.0, 4.0, 8.0, 16.0], strict=True):
        assert expected <= delay <= expected * 1.2


def test_backoff_is_bounded() -> None:
    """At most a minute and its jitter, however many failures there were."""
    policy = failed(Waiting().policy(attempts=100, backoff_factor=3_600.0), 99)

    assert 60.0 <= policy.get_backoff_time() <= 72.0


def test_backoff_spreads() -> None:
    """A hundred agents that failed together do not come back together."""
    random.seed(7)
    policy = failed(Waiting().policy())

    delays = {policy.get_backoff_time() for _ in range(100)}

    assert len(delays) > 90
    assert max(delays) - min(delays) > 0.1


def test_sleep_waits_on_the_agent() -> None:
    """By its pause, which a stop ends; then the repeat is counted."""
    waiting = Waiting()

    failed(waiting.policy()).sleep()

    assert len(waiting.pauses) == 1
    assert 1.0 <= waiting.pauses[0] <= 1.2
    assert waiting.retries == 1


@pytest.mark.parametrize(("header", "low", "high"), [("7", 7.0, 7.0), ("nonsense", 1.0, 1.2)])
def test_sleep_honours_the_answer(header: str, low: float, high: float) -> None:
    """A Retry-After of use beats the back-off; nonsense does not."""
    waiting = Waiting()

    failed(waiting.policy()).sleep(answer(429, Retry_After=header))

    assert low <= waiting.pauses[0] <= high


def test_sleep_without_a_header() -> None:
    """An answer that says nothing leaves the back-off as it is."""
    waiting = Waiting()

    failed(waiting.policy()).sleep(answer(500))

    assert 1.0 <= waiting.pauses[0] <= 1.2


def test_a_stop_ends_the_retries() -> None:
    """The repeat is neither made nor counted."""
    waiting = Waiting(stops=True)

    with pytest.raises(Interrupted):
        failed(waiting.policy()).sleep()

    assert waiting.retries == 0


def test_statuses_are_those_of_the_design() -> None:
    """The same set that `judge` takes for transient, as far as a repeat can help."""
    assert {408, 429, 500, 502, 503, 504} == RETRY_STATUSES
