"""What lies in Redis, and what becomes of it when others touch it."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from guardagent.errors import FrameError, SpoolError
from guardagent.spool.frame import HEADER_BYTES, unpack
from guardagent.spool.redis import RedisStore
from guardagent.spool.redis_form import read_id
from tests.scripted import key
from tests.spool.test_store import claim, drained, ids, names, put, span, try_claim
from tests.support.redis_server import RedisServer

_projects = itertools.count()
LARGE = 1 << 30


class Room:
    """A project in a Redis; makes stores for it and looks into its keys."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.project = f"room-{next(_projects)}"
        self._stores: list[RedisStore] = []

    def store(self, **settings: Any) -> RedisStore:
        given = {"max_records": 100_000, "max_bytes": LARGE, "lease": 15.0}
        given["owner"] = f"owner-{len(self._stores)}"
        given["where"] = self.server.url
        store = RedisStore(project=self.project, **{**given, **settings})
        self._stores.append(store)
        return store

    def key(self, name: str) -> str:
        return f"guardagent:{{{self.project}}}:{name}"

    def do(self, command: str, name: str, *args: Any) -> Any:
        return self.server.command(command, self.key(name), *args)

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def room(redis_server: RedisServer) -> Iterator[Room]:
    """A project of one's own in the server that all share."""
    room = Room(redis_server)
    yield room
    room.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[RedisServer]:
    """A server for tests that hurt it, one after the other."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def own(own_server: RedisServer) -> Iterator[Room]:
    """An empty server of one's own."""
    own_server.restart(empty=True)
    room = Room(own_server)
    yield room
    room.close()


def until(condition: Callable[[], Any]) -> Any:
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


# -- the keys ------------------------------------------------------------------------------------


def everything(store: RedisStore) -> None:
    """Do all that can be done."""
    put(store, 30, created_at=1.0)
    put(store, 5, "metrics", start=30)
    store.settle("metrics", ids(claim(store)))
    one = claim(store, 5)
    store.renew({"events": ids(one)})
    store.bury("events", ids(one), "rejected")
    store.give_back({"events": ids(claim(store, 5))})
    store.requeue([letter.id for letter in store.dead(10)])
    store.put("rules", b"{}")
    store.get("rules")
    store.depth()
    store.oldest_at()
    store.waiting(10)
    store.holds("events", 1, 2)
    store.expire(0.5)
    drained(store, 10)
    store.purge()
    store.discard([1])


def test_every_key_is_the_projects(own: Room) -> None:
    """There are few, all with the prefix, and all in one slot of a cluster."""
    everything(own.store())
    put(own.store(), 3)
    claim(own.store())

    found = {name.decode() for name in own.server.command("KEYS", "*")}

    tags = {name[: name.index("}") + 1] for name in found}
    assert tags == {f"guardagent:{{{own.project}}}"}
    assert len(found) <= 6


def test_nothing_looks_through_all_keys(redis_server: RedisServer, room: Room) -> None:
    """Neither KEYS nor SCAN is ever used, nor a script sent twice."""
    heard: list[str] = []
    end = f"end-of-{room.project}"
    with (
        redis.Redis(unix_socket_path=redis_server.socket_path) as client,
        client.monitor() as monitor,
    ):
        everything(room.store())
        everything(room.store())
        redis_server.command("ECHO", end)
        for one in monitor.listen():
            if end in one["command"]:
                break
            if room.project in one["command"] or one["client_type"] == "lua":
                heard.append(one["command"].split()[0].upper())

    assert not {"KEYS", "SCAN", "HSCAN", "HGETALL", "FLUSHALL", "FLUSHDB"} & set(heard)
    assert {"EVALSHA", "XADD", "XREADGROUP", "XCLAIM", "XACK", "XDEL"} <= set(heard)
    assert heard.count("EVAL") <= 20


def test_projects_do_not_see_each_other(redis_server: RedisServer, room: Room) -> None:
    """Whatever they do."""
    mine, theirs = room.store(), Room(redis_server)
    other = theirs.store()
    put(mine, 3)
    put(other, 2, start=10)
    mine.put("rules", b"mine")

    assert drained(other) == span(10, 12)
    assert other.get("rules") is None
    other.purge()
    theirs.close()
    assert drained(mine) == span(0, 3)


def test_ids_come_from_the_servers_clock(room: Room) -> None:
    """So none is used twice, not even by a server that has lost the newest records."""
    store = room.store()
    before, _ = room.server.command("TIME")

    first, last = put(store, 3).spans["events"]

    assert (last - first, first >> 64) == (2, pytest.approx(int(before) * 1_000, abs=60_000))


def test_nothing_is_left_of_what_was_settled(room: Room) -> None:
    """No lease, no name of a batch, no byte counted."""
    store = room.store()
    put(store, 50)
    put(store, 50, "metrics")

    drained(store, 7)

    assert room.do("XLEN", "events") == room.do("XLEN", "metrics") == 0
    assert room.do("XPENDING", "events", "agents")["pending"] == 0
    assert room.do("HLEN", "batches") == 0
    assert store.depth().nbytes == 0


def test_dead_letters_are_bounded(room: Room) -> None:
    """The oldest are forgotten."""
    store = room.store()
    for start in range(0, 10_200, 600):
        put(store, 600, start=start)
        store.bury("events", ids(claim(store, 600)), "rejected")

    assert store.count_dead() == len(store.dead(20_000)) == 10_000
    assert key(200).encode() in store.dead(1)[0].frame


# -- consumers -----------------------------------------------------------------------------------


def consumers(room: Room) -> set[bytes]:
    # Through a script: versions of redis-py differ in what they make of this answer.
    script = "return redis.call('XINFO', 'CONSUMERS', KEYS[1], 'agents')"
    return {one[1] for one in room.server.command("EVAL", script, 1, room.key("events"))}


def test_who_closes_leaves_the_group(room: Room) -> None:
    """Unless it holds something: its lease must run out, not vanish."""
    one, other, third = room.store(owner="one"), room.store(owner="other"), room.store(owner="x")
    put(one, 4)
    one.settle("events", ids(claim(one, 2)))
    claim(other, 2)

    one.close()
    other.close()

    assert consumers(room) == {b"other"}
    assert third.depth().records == 2


def test_who_never_claims_is_no_consumer(room: Room) -> None:
    """As are the processes that only put in."""
    store = room.store()
    put(store, 3)

    store.close()

    assert consumers(room) == set()


def test_consumers_of_the_dead_are_forgotten(room: Room) -> None:
    """Those that hold nothing; without a lease to look at nobody misses them."""
    for n in range(3):
        store = room.store(owner=f"dead-{n}")
        put(store, 1)
        store.settle("events", ids(claim(store)))
        store._link.close()  # as of a process that is killed
    put(room.store(owner="busy"), 1)
    claim(room.store(owner="busy"))
    late = room.store(owner="late", lease=0.001, forget_after=0.001)
    held: list[Any] = []

    def has_nothing_to_do() -> bool:
        found = try_claim(late, held={"events": held})
        held.extend(ids(found) if found else ())
        return found is None

    until(lambda: has_nothing_to_do() and consumers(room) <= {b"late", b"busy"})


def test_what_was_left_to_this_release_is_taken(room: Room) -> None:
    """By an older one that could not read it: at once, as what is given back."""
    store = room.store()
    put(store, 2)
    for id_ in ids(claim(room.store())):
        given = ("agents", "later-1", 0, f"{id_ >> 64}-{id_ & 0xFFFF}", "IDLE", 604_800_000)
        room.do("XCLAIM", "events", *given)
    room.do("HDEL", "state", "swept")

    assert names(claim(store)) == span(0, 2)


# -- others --------------------------------------------------------------------------------------


def test_foreign_entries_stop_nothing(room: Room) -> None:
    """They come back as what no record can be, and count no bytes."""
    store = room.store()
    put(store, 1)
    room.do("XADD", "events", "*", "who", "knows")
    room.do("XADD", "events", "*", "f", "two", "g", "fields")
    room.do("XADD", "events", "*", "f", "short")
    put(store, 1, start=1)

    one = claim(store)

    damaged = []
    for id_, frame in one.entries:
        try:
            unpack(frame)
        except FrameError:
            damaged.append(id_)
    assert len(one.entries) == 5
    assert damaged == ids(one)[1:4]
    assert store.bury("events", damaged, "corrupt")[0] == 3
    gone, depth = store.settle("events", ids(one))
    assert (gone, depth.records, depth.nbytes, store.count_dead()) == (2, 0, 0, 3)


def test_foreign_dead_letters_are_not_shown(room: Room) -> None:
    """They count, and nothing else comes of them."""
    store = room.store()
    room.do("XADD", "dead", "*", "who", "knows")
    room.do("XADD", "dead", "*", "k", "events", "r", "x", "t", "never", "f", "x")
    put(store, 1)
    store.bury("events", ids(claim(store)), "rejected")

    assert [letter.reason for letter in store.dead(10)] == ["rejected"]
    assert store.count_dead() == 3
    assert store.census().dead == {"rejected": 1, "foreign": 1, "x": 1}


def test_the_tally_of_the_dead_is_mended(room: Room) -> None:
    """Whoever cuts the stream, or the notes."""
    store = room.store()
    put(store, 6)
    store.bury("events", ids(claim(store, 4)), "rejected")
    store.bury("events", ids(claim(store, 2)), "too_large")
    found = []

    for command in (
        ("XTRIM", "dead", "MAXLEN", 3),
        ("HSET", "state", "dead", b"\xff{"),
        ("DEL", "state"),
        ("DEL", "dead"),
    ):
        room.do(*command)
        found.append(store.census().dead)

    assert found == [{"rejected": 1, "too_large": 2}] * 3 + [{}]


def test_ids_of_any_form_can_be_settled(room: Room) -> None:
    """Whoever adds may choose them."""
    store = room.store()
    store.depth()
    for id_ in ("0-7", "5-18446744073709551615", "6-0"):
        room.do("XADD", "events", id_, "f", "x")

    one = claim(store)

    assert ids(one) == [7, read_id(b"5-18446744073709551615"), read_id(b"6-0")]
    assert store.settle("events", ids(one))[0] == 3


def test_deleted_records_do_not_stop_a_takeover(room: Room) -> None:
    """Their leases go, and what is left comes."""
    store, other = room.store(lease=0.001), room.store(lease=0.001)
    put(store, 6)
    first = ids(claim(store, 3))
    held = [*first, *ids(claim(store, 3, held={"events": first}))]
    for id_ in (*held[:3], held[4]):
        room.do("XDEL", "events", f"{id_ >> 64}-{id_ & 0xFFFF}")

    taken = until(lambda: try_claim(other))

    assert (names(taken), taken.batch_id) == ([key(3), key(5)], None)
    assert room.do("XPENDING", "events", "agents")["pending"] == 2


def test_damaged_notes_cost_only_the_names(room: Room) -> None:
    """Whatever stands in the hash of batches."""
    for note in (
        b"",
        b"\xff",
        b"1-1 x 1-a 1.0",
        b"9-9 0 1-a 1.0",
        b"9-9 3 1-a nan",
        b"9-9 3 \xff inf",
    ):
        store, other = room.store(lease=0.001), room.store(lease=0.001)
        put(store, 3)
        first = ids(claim(store))[0]
        room.do("HSET", "batches", f"events:{first >> 64}-{first & 0xFFFF}", note)

        taken = until(lambda other=other: try_claim(other))

        assert (len(taken.entries), taken.batch_id) == (3, None)
        other.settle("events", ids(taken))


def test_scripts_are_sent_again(room: Room) -> None:
    """A server that was restarted knows none."""
    store = room.store()
    put(store, 2)

    room.server.command("SCRIPT", "FLUSH")

    assert drained(store) == span(0, 2)


def test_a_lost_group_begins_anew(room: Room) -> None:
    """With everything that is in the stream: nobody can say what was leased."""
    store = room.store()
    put(store, 3)
    generation = store.depth().generation
    claim(store, 2)

    room.server.command("XGROUP", "DESTROY", room.key("events"), "agents")
    store.renew({"events": [1]})

    assert names(claim(store)) == span(0, 3)
    assert store.depth().generation != generation


def test_a_lost_state_is_counted_anew(room: Room) -> None:
    """What the streams hold is still there."""
    store = room.store()
    put(store, 5, size=100)
    put(store, 1, "metrics", size=50)
    before = store.depth()

    room.do("DEL", "state")

    after = store.depth()
    assert (after.records, after.nbytes) == (before.records, before.nbytes)
    assert after.nbytes == 5 * (100 + HEADER_BYTES) + 50 + HEADER_BYTES
    assert after.generation != before.generation
    assert len(drained(store)) == 6


def test_a_lost_state_costs_no_history(room: Room) -> None:
    """The group has gone ahead of it; what nobody holds comes, and only that."""
    store, other = room.store(), room.store()
    put(store, 100, created_at=1.0)
    held = names(claim(store, 10))
    put(store, 10, start=100)
    held += names(claim(store, 10))

    room.do("DEL", "state")

    assert held == [*span(0, 10), *span(100, 110)]
    assert drained(other, 10) == span(10, 100)


def test_a_server_that_lost_everything_begins_anew(own: Room) -> None:
    """Without an error, and with another generation; what was leased is nobody's now."""
    store, other = own.store(), own.store()
    put(store, 5)
    held = ids(claim(store, 3))
    store.put("rules", b"kept")
    generation = store.depth().generation

    own.server.restart(empty=True)
    put(other, 2, start=10)

    assert store.settle("events", held)[0] == 0
    assert store.depth().generation != generation
    assert (store.get("rules"), drained(store)) == (None, span(10, 12))


def test_a_server_that_is_killed_keeps_what_it_had(own: Room) -> None:
    """Leases too."""
    store, other = own.store(), own.store()
    put(store, 5)
    held = ids(claim(store, 3))
    before = store.depth()

    own.server.restart()

    assert (store.depth(), names(claim(other))) == (before, span(3, 5))
    assert store.settle("events", held)[0] == 3


# -- a server that refuses -----------------------------------------------------------------------


def test_a_full_server_can_be_drained(own: Room) -> None:
    """It takes nothing in; what it has can be claimed, buried, given back, taken over, settled."""
    store, other = own.store(lease=0.001), own.store()
    put(store, 30)
    claim(other, 5)
    own.server.command("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(SpoolError, match="OutOfMemory"):
        put(store, 1)
    taken = until(lambda: try_claim(store, 5))
    store.bury("events", ids(taken), "rejected")
    store.give_back({"events": ids(claim(store, 5))})
    left = drained(own.store(), 10)

    assert sorted([*names(taken), *left]) == span(0, 30)
    assert store.count_dead() == 5
    own.server.command("CONFIG", "SET", "maxmemory", "0")
    assert put(store, 1).depth.records == 1


def test_a_long_backlog_drains_from_a_full_server(own: Room) -> None:
    """The divide between history and news is drawn although notes are refused."""
    store = own.store()
    put(store, 100, created_at=1.0)
    own.server.command("CONFIG", "SET", "maxmemory", "1")

    assert sorted(drained(store, 10)) == span(0, 100)
    own.server.command("CONFIG", "SET", "maxmemory", "0")


def test_a_replica_refuses(own: Room) -> None:
    """And the connections are let go, for the next ones may lead to the new primary."""
    store = own.store(where=f"{own.server.url}?client_name=spool")
    put(store, 3)
    own.server.command("REPLICAOF", "127.0.0.1", "1")
    assert is_connected(own.server, "spool")

    with pytest.raises(SpoolError, match="ReadOnly"):
        put(store, 1)

    until(lambda: not is_connected(own.server, "spool"))
    own.server.command("REPLICAOF", "NO", "ONE")
    assert put(store, 1, start=3).depth.records == 4


def is_connected(server: RedisServer, name: str) -> bool:
    return re.search(rf"name\W+{name}\b", repr(server.command("CLIENT", "LIST"))) is not None


def test_a_key_of_another_type_is_an_error(room: Room) -> None:
    """Somebody else's key of that name is not touched."""
    room.do("SET", "events", "mine")

    with pytest.raises(SpoolError, match="WRONGTYPE"):
        put(room.store(), 1)

    assert room.do("GET", "events") == b"mine"


def test_threads_share_a_store(room: Room) -> None:
    """Appending, claiming and asking at the same time."""
    store = room.store()
    found: list[str] = []
    done = threading.Event()

    def take() -> None:
        while not done.is_set() or store.depth().records:
            found.extend(drained(store, 20))

    taker = threading.Thread(target=take)
    taker.start()
    for n in range(20):
        put(store, 25, start=25 * n, created_at=time.time())
    done.set()
    taker.join(20)

    assert found == span(0, 500)
