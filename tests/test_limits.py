"""The limits of the rules: no window holds more than its limit, and memory is bounded."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent import DynamicRules
from guardagent.limits import SLICES, Hit, Limit, Limits, LocalCounter, RateLimiter
from guardagent.testing import ManualClock
from tests.scripted import in_threads

IP = "203.0.113.9"


def limiter(clock: ManualClock | None = None, **fields: Any) -> RateLimiter:
    clock = ManualClock() if clock is None else clock
    return RateLimiter(DynamicRules.from_mapping(fields), clock=clock)


def let_in(limiter: RateLimiter, times: int, path: str | None = None, ip: str = IP) -> int:
    return sum(bool(limiter.hit(ip, path)) for _ in range(times))


# -- the limits of a document --------------------------------------------------------------------


def test_rules_without_limits() -> None:
    """Nothing is counted, nothing is kept."""
    counter = LocalCounter(clock=ManualClock())
    free = RateLimiter(counter=counter)

    assert let_in(free, 1_000, "/") == 1_000
    assert free.hit(IP) == Hit(True, 0.0, None)
    assert len(counter) == 0


def test_the_limit_for_all_paths() -> None:
    """It holds for each client by itself."""
    limited = limiter(global_rate_limit=3, global_rate_window=10)

    assert [let_in(limited, 2, path) for path in ("/a", "/b", None)] == [2, 1, 0]
    assert let_in(limited, 5, ip="203.0.113.10") == 3


def test_a_limit_without_a_window_is_for_a_minute() -> None:
    """The Guard libraries' own default."""
    assert Limits.of(DynamicRules(global_rate_limit=7)).general == Limit(7, 60)


def test_the_limit_of_a_path() -> None:
    """Of that path exactly, with whatever query, and before the one for all."""
    limited = limiter(
        global_rate_limit=5, global_rate_window=10, endpoint_rate_limits={"/login": [2, 10]}
    )

    assert let_in(limited, 3, "/login?next=/") == 2
    assert let_in(limited, 3, "/login/") == 3
    assert let_in(limited, 1, "/") == 0
    refused = limited.hit(IP, "/login")
    assert refused.limit == Limit(2, 10, "/login")
    assert limited.hit(IP, "/").limit == Limit(5, 10)


@pytest.mark.parametrize(("switch", "expected"), [(None, 1), (True, 1), (False, 9)])
def test_limits_can_be_switched_off(switch: bool | None, expected: int) -> None:
    """By `enable_rate_limiting`; None leaves them on."""
    limited = limiter(
        global_rate_limit=1, endpoint_rate_limits={"/a": [1, 9]}, enable_rate_limiting=switch
    )

    assert let_in(limited, 9, "/a") == expected


def test_limits_end_with_their_rules() -> None:
    """At `expires_at`, whether or not anything newer has come."""
    clock = ManualClock()
    limited = limiter(clock, global_rate_limit=1, expires_at=clock.now() + 5)

    before = let_in(limited, 9)
    clock.advance(5.0)

    assert before == 1
    assert let_in(limited, 9) == 9


def test_counts_outlive_a_new_document() -> None:
    """A client does not begin anew because some other rule has changed."""
    limited = limiter(global_rate_limit=3)
    let_in(limited, 2)

    limited.use(DynamicRules(version=2, global_rate_limit=3))
    same = let_in(limited, 9)
    limited.use(DynamicRules(version=3, global_rate_limit=4))
    other = let_in(limited, 9)
    limited.use(None)

    assert (same, other, let_in(limited, 9)) == (1, 4, 9)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("203.0.113.9", "::ffff:203.0.113.9", True),
        ("203.0.113.9", "203.0.113.9:50001", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("203.0.113.9", "203.0.113.10", False),
        ("user-7", "user-8", False),
    ],
)
def test_who_is_the_same_client(one: str, other: str, is_same: bool) -> None:
    """All forms of an address are one, and an IPv6 client is its network of 64 bits."""
    limited = limiter(global_rate_limit=1)
    limited.hit(one)

    assert bool(limited.hit(other)) is not is_same


@pytest.mark.parametrize("client", ["", "\ud800", "x" * 1_000_000])
def test_any_name_is_a_client(client: str) -> None:
    """What proxies write is not always an address; it is not kept whole either."""
    limited = limiter(global_rate_limit=1)

    assert let_in(limited, 3, ip=client) == 1


# -- the window ----------------------------------------------------------------------------------


@given(
    requests=st.integers(1, 6),
    window=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 1.5), max_size=60),
)
def test_no_window_holds_more_than_its_limit(
    requests: int, window: int, pauses: list[float]
) -> None:
    """Whenever one looks, and whatever pace the requests come at; the promise is kept too."""
    clock = ManualClock()
    counter, limit = LocalCounter(clock=clock), Limit(requests, window)
    taken: list[float] = []
    for pause in pauses:
        clock.advance(pause * window / 4)
        wait = counter.hit("a", limit)
        now = clock.monotonic()
        recent = [at for at in taken if now - at < window]
        if wait == 0:
            assert len(recent) < requests
            taken.append(now)
        else:
            # A sixteenth more than the window is as strict as it ever gets.
            slack = window * (1 + 1 / SLICES)
            assert len([at for at in taken if now - at <= slack]) >= requests
            assert wait <= slack


@given(st.integers(1, 5), st.integers(1, 1_000), st.floats(0, 1e6))
def test_a_client_that_waits_is_let_in(requests: int, window: int, start: float) -> None:
    """After `retry_after` seconds, and for the whole limit after a window of silence."""
    clock = ManualClock()
    clock.advance(start)
    limited = limiter(clock, global_rate_limit=requests, global_rate_window=window)
    let_in(limited, requests)
    refused = limited.hit(IP)

    clock.advance(refused.retry_after * (1 + 1e-9) + 1e-6)

    assert not refused
    assert let_in(limited, 99) == requests
    clock.advance(window * 50)
    assert let_in(limited, 99) == requests


@pytest.mark.parametrize("number", [2**31, 10**30])
def test_numbers_beyond_all_use(number: int) -> None:
    """They limit nothing, and break nothing."""
    limited = limiter(global_rate_limit=number, global_rate_window=number)

    assert let_in(limited, 99) == 99


# -- bounds --------------------------------------------------------------------------------------


def test_memory_is_bounded() -> None:
    """Those not seen for longest are forgotten first; one that keeps coming is not."""
    clock = ManualClock()
    counter = LocalCounter(keys_max=100, clock=clock)
    limit = Limit(1, 60)
    counter.hit("attacker", limit)

    for number in range(5_000):
        counter.hit(f"client-{number}", limit)
        assert counter.hit("attacker", limit) > 0

    assert len(counter) == 100


def test_clients_that_are_gone_leave_nothing() -> None:
    """Each new one takes up to two with it whose window has passed."""
    clock = ManualClock()
    counter = LocalCounter(clock=clock)
    for number in range(1_000):
        counter.hit(f"client-{number}", Limit(5, 10))
    clock.advance(30.0)

    for number in range(1_000, 2_000):
        counter.hit(f"client-{number}", Limit(5, 10))

    assert len(counter) == 1_000


def test_a_counter_needs_room() -> None:
    """The bound is checked where it is given."""
    with pytest.raises(ValueError, match="keys_max: given 0, allowed: 1 or more"):
        LocalCounter(keys_max=0)


def test_threads_count_together() -> None:
    """Not one request too many is let in, and not one too few."""
    limited = RateLimiter(DynamicRules(global_rate_limit=500, global_rate_window=86_400))

    taken = in_threads(8, lambda _number: let_in(limited, 200))

    assert sum(taken) == 500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_is_not_held_up_by_its_parents_lock() -> None:
    """Another thread may have been counting when the process was forked."""
    counter = LocalCounter()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with counter._lock:
            entered.set()
            leave.wait(20.0)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(20.0)
    child = os.fork()
    if child == 0:
        os._exit(0 if counter.hit("a", Limit(1, 1)) == 0.0 else 1)
    leave.set()
    holder.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
