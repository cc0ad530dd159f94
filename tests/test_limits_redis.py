"""Counting on a real Redis server: together while it is there, each by itself while it is not."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from guardagent import DynamicRules
from guardagent.limits import SLICES, Limit, RateLimiter
from guardagent.shared_limits import RedisCounter
from guardagent.testing import ManualClock
from tests.support.redis_server import RedisServer

DAY = Limit(5, 86_400)

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(persistent=False) as server:
        yield server


@pytest.fixture
def connect(server: RedisServer, no_leaks: None) -> Iterator[Connect]:
    """Return clients, closed at the end; the server is empty at the start."""
    server.start()
    server.command("FLUSHALL")
    clients: list[Any] = []

    def build(**options: Any) -> Any:
        given: dict[str, Any] = {"socket_timeout": 20.0, **options}
        clients.append(redis.Redis.from_url(server.url, **given))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


def let_in(counter: RedisCounter, times: int, limit: Limit = DAY, client: str = "a") -> int:
    return sum(counter.hit(client, limit) == 0.0 for _ in range(times))


def test_counters_count_together(connect: Connect) -> None:
    """Two processes' worth of clients share one limit, for each client and path by itself."""
    one, other = RedisCounter(connect()), RedisCounter(connect())

    assert (let_in(one, 3), let_in(other, 9), let_in(one, 9)) == (3, 2, 0)
    assert let_in(other, 9, client="b") == 5
    assert let_in(other, 9, Limit(5, 86_400, "/login")) == 5


def test_projects_count_apart(connect: Connect) -> None:
    """One server may serve several."""
    client = connect()
    one, other = RedisCounter(client, project="one"), RedisCounter(client, project="other")

    assert (let_in(one, 9), let_in(other, 9)) == (5, 5)


def test_keys(connect: Connect) -> None:
    """They have the project as their hash tag, an end, and nobody's address."""
    client = connect()
    limited = RateLimiter(
        DynamicRules(global_rate_limit=2, global_rate_window=30),
        counter=RedisCounter(client, project="shop"),
    )
    for _ in range(5):
        limited.hit("203.0.113.9", "/login")

    (key,) = client.keys("*")
    assert re.fullmatch(rb"guardagent:\{shop\}:limit:[0-9a-f]{32}", key)
    assert 30 < client.ttl(key) <= 35
    assert client.hlen(key) <= SLICES + 1


def test_a_refusal_says_how_long_to_wait(connect: Connect) -> None:
    """By the server's clock: the clocks of hosts differ."""
    counter = RedisCounter(connect())
    let_in(counter, 5)

    wait = counter.hit("a", DAY)

    assert 0 < wait <= 86_400 * (1 + 1 / SLICES)


def test_the_window_slides(connect: Connect) -> None:
    """Who waits as long as he was told is let in again."""
    counter, limit = RedisCounter(connect()), Limit(2, 1)
    let_in(counter, 9, limit)
    deadline = time.monotonic() + 20.0
    waits = []
    while (wait := counter.hit("a", limit)) and time.monotonic() < deadline:
        waits.append(wait)

    assert wait == 0.0
    assert all(wait <= 1 + 1 / SLICES for wait in waits)
    assert waits == sorted(waits, reverse=True)


def test_what_is_out_of_the_window_is_taken_away(connect: Connect) -> None:
    """A hash holds the slices of one window, however long the client goes on."""
    client = connect()
    counter, limit = RedisCounter(client), Limit(10_000, 1)
    counter.hit("a", limit)
    (key,) = client.keys("*")
    client.hset(key, mapping={str(number): 1_000 for number in range(300)})

    wait = counter.hit("a", limit)

    assert wait == 0.0
    assert client.hlen(key) <= SLICES + 1


_MEMBER = """
import json, sys
import redis
from guardagent.limits import Limit
from guardagent.shared_limits import RedisCounter
client = redis.Redis.from_url(sys.argv[1], socket_timeout=20.0)
counter = RedisCounter(client)
print(json.dumps(sum(counter.hit("a", Limit(300, 86400)) == 0.0 for _ in range(200))))
client.close()
"""


def test_processes_count_together(server: RedisServer, connect: Connect) -> None:
    """Four of them at once let in exactly what the limit says."""
    members = [
        subprocess.Popen(
            [sys.executable, "-c", _MEMBER, server.url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    outputs = [member.communicate(timeout=60)[0] for member in members]

    assert sum(map(json.loads, outputs)) == 300


@pytest.mark.parametrize("fault", ["dead", "full", "foreign"])
def test_while_redis_is_away(
    server: RedisServer, connect: Connect, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Each process holds the limit by itself, says so once, and comes back by itself."""
    caplog.set_level(logging.INFO, "guardagent.shared_limits")
    clock = ManualClock()
    client = connect(socket_timeout=2.0, retry=None)
    counter = RedisCounter(client, clock=clock)
    let_in(counter, 2)
    (key,) = client.keys("*")
    breaks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "dead": (server.kill, server.start),
        "full": (
            lambda: server.command("CONFIG", "SET", "maxmemory", "1"),
            lambda: server.command("CONFIG", "SET", "maxmemory", "0"),
        ),
        "foreign": (lambda: client.set(key, "no hash"), lambda: client.delete(key)),
    }
    do, undo = breaks[fault]
    do()

    alone = let_in(counter, 20)
    undo()
    at_once = let_in(counter, 1)
    clock.advance(6.0)
    together = let_in(counter, 20)

    assert alone == 5
    assert at_once == 0
    assert together in (3, 5)  # what was counted before may be gone with the server
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "Redis is away",
        "Requests are counted on Redis again.",
    ]


def test_a_redis_that_is_away_is_not_asked_each_time(connect: Connect, server: RedisServer) -> None:
    """Every attempt may take its timeout, and a request waits for it."""
    clock = ManualClock()
    client = connect(socket_timeout=2.0, retry=None)
    counter = RedisCounter(client, clock=clock)
    server.kill()
    counter.hit("a", DAY)
    server.start()

    let_in(counter, 20)
    unasked = client.keys("*")
    clock.advance(6.0)
    let_in(counter, 1)

    assert unasked == []
    assert len(client.keys("*")) == 1
