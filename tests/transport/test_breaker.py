"""The circuit breaker: a pure state machine whose clock is passed in."""

from __future__ import annotations

import pytest

from guardagent.transport.breaker import CircuitBreaker
from tests.scripted import in_threads


def breaker(**options: float) -> CircuitBreaker:
    return CircuitBreaker(**{"rng": lambda: 0.0, **options})  # type: ignore[arg-type]


def opened(**options: float) -> CircuitBreaker:
    """Return one that has just opened, at second 100."""
    circuit = breaker(**options)
    for _ in range(5):
        circuit.failed(100.0)

    assert circuit.state == "open"
    return circuit


def test_it_begins_closed() -> None:
    """Everything may pass."""
    circuit = breaker()

    assert circuit.state == "closed"
    assert (circuit.allow(0.0), circuit.remaining(0.0)) == (True, 0.0)


def test_it_opens_after_failures_in_a_row() -> None:
    """Four are borne, the fifth opens it."""
    circuit = breaker()
    states = []

    for _ in range(5):
        circuit.failed(100.0)
        states.append(circuit.state)

    assert states == ["closed"] * 4 + ["open"]


def test_a_success_begins_the_count_anew() -> None:
    """Only failures in a row count."""
    circuit = breaker()

    for _ in range(3):
        for _ in range(4):
            circuit.failed(100.0)
        circuit.succeeded()

    assert circuit.state == "closed"


def test_open_lets_nothing_through() -> None:
    """It says how long that lasts."""
    circuit = opened(cooldown=10.0)

    assert circuit.allow(109.9) is False
    assert circuit.remaining(104.0) == 6.0
    assert circuit.remaining(200.0) == 0.0


def test_half_open_lets_one_through() -> None:
    """The one probe decides; nobody else may try meanwhile."""
    circuit = opened(cooldown=10.0)

    answers = [circuit.allow(110.0), circuit.allow(110.0), circuit.allow(999.0)]

    assert answers == [True, False, False]
    assert circuit.state == "half_open"
    assert circuit.remaining(110.0) == 0.0


def test_half_open_lets_one_of_eight_threads_through() -> None:
    """However they race."""
    for _ in range(50):
        circuit = opened()

        answers = in_threads(8, lambda _: circuit.allow(500.0))  # noqa: B023

        assert sorted(answers) == [False] * 7 + [True]


def test_a_probe_that_succeeds_closes_it() -> None:
    """And the next outage begins with the shortest cooldown again."""
    circuit = opened(cooldown=10.0)
    circuit.allow(110.0)

    circuit.succeeded()
    closed = (circuit.state, circuit.allow(110.0), circuit.allow(110.0))
    for _ in range(5):
        circuit.failed(200.0)

    assert closed == ("closed", True, True)
    assert circuit.remaining(200.0) == 10.0


def test_each_failed_probe_doubles_the_cooldown() -> None:
    """Up to its bound, and one failure is enough."""
    circuit = opened(cooldown=1.0, max_cooldown=30.0)
    now, cooldowns = 100.0, []

    for _ in range(8):
        cooldowns.append(circuit.remaining(now))
        now += cooldowns[-1]
        assert circuit.allow(now)
        circuit.failed(now)

    assert cooldowns == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_year_of_failed_probes_overflows_nothing() -> None:
    """The exponent is bounded."""
    circuit = opened()

    for n in range(5_000):
        circuit.allow(1_000.0 * n)
        circuit.failed(1_000.0 * n)

    assert circuit.remaining(1_000.0 * 4_999) == 30.0


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 10.0), (0.5, 11.0), (1.0, 12.0)])
def test_jitter_lengthens_the_cooldown(chance: float, expected: float) -> None:
    """By at most a fifth, so that a fleet does not return as one."""
    circuit = CircuitBreaker(cooldown=10.0, threshold=1, rng=lambda: chance)

    circuit.failed(0.0)

    assert circuit.remaining(0.0) == pytest.approx(expected)
