"""The ways to Redis, and what happens on them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from guardagent.errors import ConfigError, SpoolError
from guardagent.spool.redis import RedisStore
from tests.spool.test_redis import until
from tests.spool.test_store import drained, put, span
from tests.spool.tls_front import TLSFront
from tests.support.certificates import Authority
from tests.support.redis_server import RedisServer, Sentinel


def new_store(where: Any, **settings: Any) -> RedisStore:
    given = {"max_records": 100_000, "max_bytes": 1 << 30, "owner": "o"}
    return RedisStore(where, "link", **{**given, **settings})


def works(where: Any) -> bool:
    """Put something in, take it out and close."""
    store = new_store(where)
    try:
        put(store, 3)
        return drained(store) == span(0, 3)
    finally:
        store.close()


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The shared server, with nothing of this module's project in it."""
    yield redis_server
    redis_server.command("FLUSHALL")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    """One node that owns all slots."""
    with RedisServer(cluster=True) as server:
        yield server


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    """A server that asks for a password."""
    with RedisServer(password="hem-lig") as server:
        yield server


# -- ways ----------------------------------------------------------------------------------------


def test_a_unix_socket(server: RedisServer) -> None:
    """As an address, and of a client."""
    assert works(server.unix_url)
    with redis.Redis(unix_socket_path=server.socket_path) as client:
        assert works(client)


def test_a_password(locked: RedisServer) -> None:
    """In the address."""
    assert works(locked.url)
    assert works(locked.unix_url)


@pytest.mark.parametrize("userinfo", ["", ":falsch@", "niemand:falsch@"])
def test_a_wrong_password(locked: RedisServer, userinfo: str) -> None:
    """It is not shown."""
    store = new_store(f"redis://{userinfo}127.0.0.1:{locked.port}/0")

    with pytest.raises(SpoolError, match="Auth") as caught:
        store.depth()

    assert "falsch" not in str(caught.value)
    store.close()


def test_tls(server: RedisServer, tmp_path: Path) -> None:
    """A certificate must be of an authority that is trusted."""
    authority = Authority(tmp_path)
    context = authority.issue().server_context()
    with TLSFront(server.port, context) as front:
        url = f"rediss://127.0.0.1:{front.port}/0"

        with pytest.raises(SpoolError, match="CERTIFICATE_VERIFY_FAILED"):
            works(url)
        assert works(f"{url}?ssl_ca_certs={authority.bundle}")


def test_a_cluster(cluster: RedisServer) -> None:
    """All keys of a project are in one slot."""
    assert works(f"redis+cluster://127.0.0.1:{cluster.port}")


def test_a_client_of_a_cluster(cluster: RedisServer) -> None:
    """It serves as a pattern, and stays open."""
    client = redis.RedisCluster("127.0.0.1", cluster.port, decode_responses=True)

    assert works(client)

    assert client.set("its-own", "value")
    client.close()


@pytest.mark.slow
def test_a_cluster_that_is_away(cluster: RedisServer) -> None:
    """It is asked again when it is back."""
    store = new_store(f"redis+cluster://127.0.0.1:{cluster.port}")
    put(store, 2)

    cluster.kill()
    with pytest.raises(SpoolError):
        store.depth()
    with pytest.raises(SpoolError):
        store.depth()
    cluster.start()

    assert until(lambda: depth_of(store)) == 2
    store.purge()
    store.close()


def depth_of(store: RedisStore) -> int | None:
    try:
        return store.depth().records
    except SpoolError:
        return None


@pytest.mark.slow
def test_sentinels_lead_to_the_new_primary() -> None:
    """After a failover, without being told."""
    with (
        RedisServer() as first,
        RedisServer(replica_of=first) as second,
        Sentinel(first) as sentinel,
    ):
        store = new_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0?socket_timeout=5")
        put(store, 3)
        until(lambda: sentinel.command("SENTINEL", "REPLICAS", "main"))
        until(lambda: second.command("XLEN", "guardagent:{link}:events") == 3)

        first.kill()
        left = until(lambda: depth_of(store))

        assert left == 3
        assert put(store, 1, start=3).depth.records == 4
        assert second.command("XLEN", "guardagent:{link}:events") == 4
        with redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)]).master_for("main") as client:
            like = new_store(client)
            assert drained(like) == span(0, 4)
            like.close()
            client.connection_pool.disconnect()
        store.close()


# -- a client of the application's ---------------------------------------------------------------


def test_a_client_is_a_pattern(server: RedisServer) -> None:
    """Its connections are not used, and its way of reading does not matter."""
    client = redis.Redis("127.0.0.1", server.port, decode_responses=True, max_connections=1)
    client.set("its-own", "value")
    store = new_store(client)

    put(store, 3)
    found = drained(store)
    store.close()

    assert found == span(0, 3)
    assert client.get("its-own") == "value"
    assert len(client.connection_pool._available_connections) == 1
    client.close()


def test_a_clients_database_is_kept(server: RedisServer) -> None:
    """As are its other settings."""
    with redis.Redis("127.0.0.1", server.port, db=3) as client:
        store = new_store(client)
        put(store, 1)

        assert client.exists("guardagent:{link}:events")
        store.close()


@pytest.mark.parametrize("value", [object(), 7, redis.asyncio.Redis()])
def test_what_is_no_client(value: Any) -> None:
    """It says what it was given and what is allowed."""
    with pytest.raises(ConfigError, match=r"spool: given a .*, allowed: redis\.Redis"):
        new_store(value)


# -- away, slow, broken --------------------------------------------------------------------------


def test_nothing_is_touched_before_it_is_needed() -> None:
    """And without a server the first operation says so, and the next one tries again."""
    with RedisServer() as server:
        url = server.url
        server.kill()
        store = new_store(url)

        for _ in range(2):
            with pytest.raises(SpoolError, match="refused"):
                put(store, 1)
        server.start()

        assert put(store, 1).depth.records == 1
        store.close()


def test_killed_in_the_middle() -> None:
    """What was told to be kept is kept."""
    with RedisServer() as server:
        store = new_store(server.url)
        put(store, 2)

        server.kill()
        with pytest.raises(SpoolError):
            put(store, 1)
        server.start()

        assert drained(store) == span(0, 2)
        server.kill()
        store.close()


def test_a_restart_between_two_operations_is_not_noticed() -> None:
    """A connection that was closed meanwhile is not used."""
    with RedisServer() as server:
        store = new_store(server.url)
        put(store, 2)

        server.restart()

        assert put(store, 1).depth.records == 3
        store.close()


def test_a_server_that_hangs_is_not_waited_for() -> None:
    """Longer than the address says; nothing is sent twice."""
    with RedisServer() as server:
        store = new_store(f"{server.url}?socket_timeout=0.2")
        put(store, 1)

        server.freeze()
        with pytest.raises(SpoolError, match="Timeout"):
            put(store, 1, start=1)
        server.thaw()

        until(lambda: depth_of(store))
        found = drained(store)
        assert found in (span(0, 1), span(0, 2))  # the second, if its append had gone out
        store.close()


@pytest.mark.parametrize(
    "url", ["redis://h", "unix:///s", "rediss://h?socket_timeout=2"], ids=lambda url: url[:5]
)
def test_every_wait_is_bounded(url: str) -> None:
    """Also where the address says nothing about it."""
    link = new_store(url)._link

    settings = link._client().connection_pool.connection_kwargs

    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (2, 2)
    assert settings["retry"]._retries == 0
    link.close()


class Impostor:
    """Answers every command with the same bytes, and closes after the last."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0?socket_timeout=1"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            with wire:
                wire.settimeout(10)
                while (data := wire.recv(65_536)) and self._answer:
                    # The greeting is taken for good, and everything else is answered.
                    greeting = b"CLIENT" in data or b"SELECT" in data
                    count = max(1, data.count(b"CLIENT"))
                    wire.sendall(b"+OK\r\n" * count if greeting else self._answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
        b"-NOPERM User default has no permissions\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-BUSY Redis is busy running a script\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-ERR " + b"x" * 5_000 + b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=lambda answer: answer[:10].decode(),
)
def test_whatever_it_answers(answer: bytes) -> None:
    """The spool hears of a store that is away, in one short line."""
    with Impostor(answer) as impostor:
        store = new_store(impostor.url)

        with pytest.raises(SpoolError) as caught:
            store.depth()

        assert str(caught.value).startswith("Redis: ")
        assert len(str(caught.value)) < 250
        assert "\n" not in str(caught.value)
        store.close()


@pytest.mark.parametrize("query", ["nothing=known", "socket_timeout=secret", "db=secret"])
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_options_that_are_wrong(scheme: str, query: str) -> None:
    """An address cannot be checked as a whole before it is used; it shows no value."""
    store = new_store(f"{scheme}://127.0.0.1:1/{'main' if 'sent' in scheme else ''}?{query}")

    with pytest.raises(SpoolError) as caught:
        store.depth()

    assert "secret" not in str(caught.value)
    store.close()


def test_closing_is_not_the_end(server: RedisServer) -> None:
    """Nor does it need a server."""
    store = new_store(server.url)
    store.close()
    put(store, 1)
    store.close()

    assert drained(store) == span(0, 1)
    store.close()
    store.close()


# -- processes -----------------------------------------------------------------------------------

_FORKING = """
import os, sys
from guardagent.spool.redis import RedisStore

def new(owner):
    return RedisStore(sys.argv[1], "fork", max_records=100, max_bytes=10**6, owner=owner)

store = new("parent")
assert "redis" not in sys.modules, "redis is loaded before it is needed"
store.append({"events": [b"parent"]})
child = os.fork()
if not child:
    store.abandon()
    store.append({"events": [b"child"]})
    store.claim(1, 1000, "1-a", 1.0)
    store.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
store.append({"events": [b"parent again"]})
print(sorted(frame.decode() for _, _, frame in store.waiting(10)))
store.close()
"""


def test_a_fork(server: RedisServer) -> None:
    """A child leaves its parent's connections alone and has its own; redis loads when needed."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORKING, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (answer.stderr, answer.returncode) == ("", 0)
    assert answer.stdout == "['child', 'parent', 'parent again']\n"
