"""What every store promises to the durable spool; each of them runs through all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from guardagent.fields import Kind
from guardagent.spool.frame import HEADER_BYTES, pack, unpack
from guardagent.spool.store import Claim, Store
from tests.scripted import in_threads, key, keys, record, records
from tests.spool.homes import LARGE, LEASE, Home


def frames(count: int, kind: Kind = "events", *, start: int = 0, **fields: Any) -> list[bytes]:
    return [pack(one) for one in records(count, kind, start=start, **fields)]


def put(store: Store, count: int, kind: Kind = "events", **fields: Any) -> Any:
    return store.append({kind: frames(count, kind, **fields)})


def try_claim(
    store: Store,
    limit: int = 100,
    *,
    max_bytes: int = LARGE,
    name: str = "1-a",
    at: float = 1.0,
    held: Any = None,
) -> Claim | None:
    return store.claim(limit, max_bytes, name, at, held)[0]


def claim(store: Store, limit: int = 100, **asked: Any) -> Claim:
    """Claim what must be there."""
    found = try_claim(store, limit, **asked)

    assert found is not None
    return found


def ids(claim: Claim) -> list[Any]:
    return [id_ for id_, _ in claim.entries]


def names(claim: Claim | None) -> list[str]:
    """Return the keys of what was claimed."""
    return keys(unpack(frame) for _, frame in claim.entries) if claim else []


def drained(store: Store, limit: int = 100) -> list[str]:
    """Settle everything that can be claimed; return the keys in their order."""
    found: list[str] = []
    while (one := try_claim(store, limit)) is not None:
        found += names(one)
        store.settle(one.kind, ids(one))
    return found


def span(start: int, stop: int) -> list[str]:
    return [key(number) for number in range(start, stop)]


@pytest.fixture
def store(home: Home) -> Store:
    """One process's store."""
    return home.store()


@pytest.fixture
def other(home: Home) -> Store:
    """Another process's store in the same place."""
    return home.store()


# -- append and claim ----------------------------------------------------------------------------


def test_an_empty_store_has_nothing(store: Store) -> None:
    """Nothing to claim, to expire or to read."""
    assert try_claim(store) is None
    assert (store.depth().records, store.depth().nbytes, store.oldest_at()) == (0, 0, None)
    assert store.extent() == {}
    assert (list(store.waiting(10)), list(store.dead(10)), store.count_dead()) == ([], [], 0)
    assert store.expire(1e12)[0] == 0


def test_frames_come_back_as_they_were(store: Store, other: Store) -> None:
    """Whatever their bytes, in their order, also to another process."""
    odd = [b"\0", b"", b"\xff" * 70_000, b"f 1 2\r\n", pack(record(1))]

    store.append({"events": odd})

    assert [frame for _, frame in claim(other).entries] == odd


def test_an_append_tells_what_is_there(store: Store) -> None:
    """Records and bytes of both kinds, and the span of each."""
    added = store.append({"events": frames(3), "metrics": frames(2, "metrics")})

    assert (added.lost, added.depth.records) == (0, 5)
    assert added.depth.nbytes == 5 * (40 + HEADER_BYTES)
    assert set(added.spans) == {"events", "metrics"}
    assert added.depth == store.depth()


def test_an_append_of_nothing_changes_nothing(store: Store) -> None:
    """An empty list has no span."""
    added = store.append({"events": []})

    assert (added.lost, dict(added.spans), added.depth.records) == (0, {}, 0)


def test_a_large_append_is_whole(store: Store) -> None:
    """However many scripts or statements it takes, the order is kept and the span covers all."""
    added = put(store, 2_500, size=600)
    first, last = added.spans["events"]

    kept = store.waiting(3_000)
    assert keys(unpack(frame) for _, _, frame in kept) == span(0, 2_500)
    assert (kept[0][1], kept[-1][1]) == (first, last)
    assert (added.depth.records, added.depth.nbytes) == (2_500, 2_500 * (600 + HEADER_BYTES))


def test_a_few_large_frames_of_one_kind_are_kept(store: Store) -> None:
    """Parts that are cut for their bytes do not replace each other."""
    store.append({"events": [bytes([n]) * 700_000 for n in range(3)]})

    assert [frame[:1] for _, _, frame in store.waiting(10)] == [b"\0", b"\1", b"\2"]


def test_claims_are_in_order_and_limited(store: Store) -> None:
    """Each takes the next ones."""
    put(store, 5)

    claims = [names(try_claim(store, 2)) for _ in range(4)]

    assert claims == [span(0, 2), span(2, 4), span(4, 5), []]


def test_a_claim_keeps_to_the_bytes_of_the_bodies(store: Store) -> None:
    """With a comma each; the first is handed out whatever its size."""
    put(store, 5, size=100)

    assert names(try_claim(store, max_bytes=202)) == span(0, 2)
    assert names(try_claim(store, max_bytes=201)) == span(2, 3)
    assert names(try_claim(store, max_bytes=1)) == span(3, 4)


def test_the_kind_that_waits_longest_is_first(store: Store) -> None:
    """By the moment at which its oldest record was made."""
    put(store, 1, "events", start=0, created_at=2.0)
    put(store, 1, "metrics", start=1, created_at=1.0)
    put(store, 1, "events", start=2, created_at=0.5)

    claims = [claim(store), claim(store)]

    assert [one.kind for one in claims] == ["metrics", "events"]
    assert names(claims[1]) == [key(0), key(2)]


def test_each_record_is_claimed_once(home: Home) -> None:
    """Four processes that put in and take out at the same time never meet over a record."""
    stores = [home.store() for _ in range(4)]

    def work(number: int) -> list[str]:
        found: list[str] = []
        for turn in range(4):
            put(stores[number], 25, start=1_000 * number + 25 * turn)
            one = try_claim(stores[number], 20)
            if one is not None:  # one that is ready sooner may have taken all
                found += names(one)
                assert stores[number].settle("events", ids(one))[0] == len(one.entries)
        return found + drained(stores[number])

    found = [name for some in in_threads(4, work) for name in some]

    assert Counter(found) == Counter(key(1_000 * n + m) for n in range(4) for m in range(100))
    assert (stores[0].depth().records, stores[0].depth().nbytes) == (0, 0)


# -- settle and bury -----------------------------------------------------------------------------


def test_settled_records_are_gone(store: Store, other: Store) -> None:
    """They are counted once, whoever settles them."""
    put(store, 3)
    one = claim(store)

    gone, depth = store.settle("events", ids(one)[:2])

    assert (gone, depth.records, depth.nbytes) == (2, 1, 40 + HEADER_BYTES)
    assert other.settle("events", ids(one))[0] == 1
    assert store.settle("events", ids(one))[0] == 0
    assert store.depth().records == 0


def test_settling_nothing(store: Store) -> None:
    """No ids: nothing happens."""
    put(store, 1)

    gone, depth = store.settle("events", [])

    assert (gone, depth.records) == (0, 1)


def test_settling_in_parts_and_out_of_order(store: Store) -> None:
    """Only what is named goes, whatever lies between."""
    put(store, 10)
    mine = ids(claim(store))

    gone, depth = store.settle("events", [mine[7], mine[0], mine[1], mine[4]])

    assert (gone, depth.records) == (4, 6)
    left = keys(unpack(frame) for _, _, frame in store.waiting(10))
    assert left == [key(n) for n in (2, 3, 5, 6, 8, 9)]


def test_buried_records_are_dead_letters(home: Home, store: Store) -> None:
    """With kind, reason, time and frame; they count no longer as records."""
    put(store, 2, "metrics")
    one = claim(store)

    gone, depth = store.bury("metrics", ids(one), "rejected")

    assert (gone, depth.records, store.count_dead()) == (2, 0, 2)
    letters = store.dead(10)
    assert [letter.frame for letter in letters] == [frame for _, frame in one.entries]
    assert {(letter.kind, letter.reason) for letter in letters} == {("metrics", "rejected")}
    assert letters[0].buried_at == pytest.approx(home.clock.now())
    assert store.bury("metrics", ids(one), "rejected")[0] == 0


def test_dead_letters_in_pages(store: Store) -> None:
    """Those after the last of the page before."""
    put(store, 5)
    store.bury("events", ids(claim(store)), "rejected")

    first = store.dead(3)
    second = store.dead(3, after=first[-1].id)

    assert keys(unpack(letter.frame) for letter in (*first, *second)) == span(0, 5)


def test_dead_letters_are_bounded_in_bytes(home: Home) -> None:
    """By a tenth of what the records may take: the oldest give way, but never the newest."""
    store = home.store(max_bytes=100_000)
    for start in range(0, 40, 4):
        put(store, 4, start=start, size=1_000)
        store.bury("events", ids(claim(store)), f"reason-{start // 20}")
    many = keys(unpack(letter.frame) for letter in store.dead(100))
    census = store.census()
    put(store, 1, start=40, size=50_000)
    store.bury("events", ids(claim(store)), "too_large")

    assert many == span(31, 40)
    assert (census.dead, census.dead_bytes) == ({"reason-1": 9}, 9 * (1_000 + HEADER_BYTES))
    assert keys(unpack(letter.frame) for letter in store.dead(100)) == [key(40)]


def test_a_census_counts_the_dead(store: Store) -> None:
    """By reason, whatever becomes of them."""
    before = store.census()
    put(store, 6)
    store.bury("events", ids(claim(store, 2)), "rejected")
    store.bury("events", ids(claim(store, 3)), "too_large")
    letters = [letter.id for letter in store.dead(10)]

    store.requeue(letters[:1])
    store.discard(letters[1:3])
    census = store.census()

    assert (before.dead, before.dead_bytes) == ({}, 0)
    assert (census.dead, census.dead_bytes) == ({"too_large": 2}, 2 * (40 + HEADER_BYTES))


def test_a_page_is_bounded_in_bytes(store: Store) -> None:
    """Whoever reads all of it needs no more memory for large records than for small ones."""
    for start in range(0, 24, 4):
        put(store, 4, start=start, size=700_000)
    pages = [store.waiting(500)]
    while pages[-1]:
        pages.append(store.waiting(500, after=pages[-1][-1][:2]))
    while (one := try_claim(store)) is not None:
        store.bury("events", ids(one), "rejected")
    dead = store.dead(500)
    rest = store.dead(500, after=dead[-1].id)

    read = [keys(unpack(frame) for _, _, frame in page) for page in pages]
    assert [name for page in read for name in page] == span(0, 24)
    assert max(map(len, read)) < 16
    assert 0 < len(dead) < 16
    assert keys(unpack(letter.frame) for letter in (*dead, *rest)) == span(0, 24)


def test_dead_letters_live_again(store: Store) -> None:
    """As the newest records; those that are not there are not counted."""
    put(store, 3)
    store.bury("events", ids(claim(store)), "rejected")
    put(store, 1, start=9)
    letters = [letter.id for letter in store.dead(10)]

    assert store.requeue([*letters[:2], letters[0]]) == 2

    assert drained(store) == [key(9), key(0), key(1)]
    assert (store.count_dead(), store.discard(letters), store.count_dead()) == (1, 1, 0)


def test_a_purge_leaves_only_the_dead(store: Store, other: Store) -> None:
    """What was leased is gone, too, and its ids are never used again."""
    put(store, 6)
    store.bury("events", ids(claim(store, 1)), "rejected")
    leased = claim(store, 2)

    assert other.purge() == 5

    assert (other.depth().records, other.depth().nbytes, other.count_dead()) == (0, 0, 1)
    put(other, 5, start=10)
    assert store.settle("events", ids(leased))[0] == 0
    assert drained(other) == span(10, 15)


# -- leases --------------------------------------------------------------------------------------


def test_what_a_dead_process_held_is_taken_over(home: Home, store: Store, other: Store) -> None:
    """Before what is new, once its lease is over, under the name it had."""
    put(store, 3)
    claim(store, name="7-first", at=7.5)
    put(store, 2, start=3)

    home.pass_time(LEASE + 1)
    taken = claim(other)

    assert names(taken) == span(0, 3)
    assert (taken.batch_id, taken.created_at) == ("7-first", 7.5)
    assert names(claim(other)) == span(3, 5)
    assert try_claim(home.store()) is None


def test_an_extent_parts_what_is_there_from_what_comes(store: Store, other: Store) -> None:
    """From the first to the last of each kind, leased or not; nothing later is in it."""
    put(store, 1, "metrics")
    added = put(store, 3)
    held = [claim(store), claim(store)]
    extent = other.extent()
    later = put(other, 2).spans["events"]
    before = {kind for kind, span in extent.items() if store.holds(kind, *span)}
    for one in held:
        store.settle(one.kind, ids(one))

    assert before == {"events", "metrics"}
    assert extent["events"] == added.spans["events"]
    assert not [kind for kind, span in extent.items() if store.holds(kind, *span)]
    assert store.extent() == {"events": later}


def test_a_lease_holds_until_it_is_over(home: Home, store: Store, other: Store) -> None:
    """Nobody gets what somebody holds."""
    put(store, 3)
    claim(store)

    home.pass_time(LEASE - 5)

    assert try_claim(other) is None
    assert try_claim(store) is None


def test_a_slow_but_living_process_keeps_what_it_holds(
    home: Home, store: Store, other: Store
) -> None:
    """As long as it renews, lease after lease."""
    put(store, 3)
    put(store, 2, "metrics")
    held = {one.kind: ids(one) for one in (claim(store), claim(store))}

    for _ in range(4):
        home.pass_time(LEASE - 5)
        store.renew(held)

        assert try_claim(other) is None


def test_a_renewal_takes_nothing_back(home: Home, store: Store, other: Store) -> None:
    """What another has taken over stays there, even for the first one's next lease."""
    put(store, 3)
    held = ids(claim(store))
    home.pass_time(LEASE + 1)
    claim(other)

    store.renew({"events": held})
    home.pass_time(LEASE - 5)
    other.renew({"events": held})
    home.pass_time(LEASE - 5)

    assert try_claim(home.store()) is None


def test_a_renewal_tells_what_is_still_held(home: Home, store: Store, other: Store) -> None:
    """Not what another has taken over, nor what is gone."""
    put(store, 6)
    put(store, 1, "metrics")
    first, second, third = (claim(store, 2) for _ in range(3))
    home.pass_time(LEASE + 1)
    claim(other, 2)
    store.settle("events", ids(third))
    everything = [*ids(first), *ids(second), *ids(third)]

    mine, depth = store.renew({"events": everything})

    assert {kind: list(some) for kind, some in mine.items() if some} == {"events": ids(second)}
    assert depth.records == 5


def test_ones_own_is_not_taken_over(home: Home, store: Store) -> None:
    """After a suspend a lease looks expired; its holder still has the records in hand."""
    put(store, 3)
    held = ids(claim(store))

    home.pass_time(LEASE + 1)

    assert try_claim(store, held={"events": held}) is None


def test_a_claim_that_nobody_heard_of_comes_back(home: Home, store: Store) -> None:
    """Its answer was lost: to whoever made it, too, beside what that one holds."""
    put(store, 6)
    held = ids(claim(store, 2))
    unheard = claim(store, 2, name="7-first")

    home.pass_time(LEASE + 1)
    found = [try_claim(store, 2, held={"events": held}) for _ in range(3)]

    assert [names(one) for one in found] == [span(2, 4), span(4, 6), []]
    assert found[0] is not None
    assert found[0].batch_id == "7-first"
    assert ids(found[0]) == ids(unheard)


def test_what_is_left_of_a_lease_has_no_name(home: Home, store: Store, other: Store) -> None:
    """Other records are another batch."""
    put(store, 4)
    held = ids(claim(store, name="7-first"))
    store.settle("events", held[:1])

    home.pass_time(LEASE + 1)
    taken = claim(other)

    assert (names(taken), taken.batch_id) == (span(1, 4), None)


def test_what_is_given_back_is_there_at_once(store: Store, other: Store) -> None:
    """For others, and for whoever gave it."""
    put(store, 4)
    one = claim(store, 2)
    rest = claim(store, 2)

    store.give_back({one.kind: ids(one)})
    taken = claim(other)
    other.give_back({"events": ids(taken)})

    assert names(taken) == span(0, 2)
    assert names(claim(store)) == span(0, 2)
    assert store.settle("events", ids(rest))[0] == 2


def test_who_holds_nothing_renews_nothing(store: Store, other: Store) -> None:
    """Nor gives anything back."""
    put(store, 2)
    claim(store)

    other.renew({})
    other.give_back({"events": []})

    assert try_claim(other) is None


def test_only_what_one_holds_is_given_back(home: Home, store: Store, other: Store) -> None:
    """Not what another has taken over meanwhile."""
    put(store, 2)
    held = ids(claim(store))
    home.pass_time(LEASE + 1)
    claim(other)

    store.give_back({"events": held})

    assert try_claim(home.store()) is None


def test_who_comes_late_settles_all_the_same(home: Home, store: Store, other: Store) -> None:
    """The backend has accepted them: the other's settling counts none of them."""
    put(store, 3)
    held = ids(claim(store))
    home.pass_time(LEASE + 1)
    claim(other)

    assert store.settle("events", held)[0] == 3
    assert other.settle("events", held)[0] == 0
    home.pass_time(LEASE + 1)
    assert try_claim(home.store()) is None


# -- later releases ------------------------------------------------------------------------------


def _later(count: int, version: int = 2, **fields: Any) -> list[bytes]:
    return [bytes([version]) + frame[1:] for frame in frames(count, **fields)]


def test_records_of_a_later_release_are_left_to_it(
    home: Home, store: Store, other: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling upgrade relays of both releases run; the older one destroys nothing."""
    for start in range(0, 12, 4):
        put(store, 2, start=start)
        store.append({"events": _later(2, start=start + 2)})

    found = drained(store) + drained(other)
    home.pass_time(LEASE + 1)

    assert found == [key(n) for n in range(12) if n % 4 < 2]
    assert try_claim(store) is None
    assert (store.census().later, store.depth().records, store.count_dead()) == (6, 6, 0)
    assert [line.levelname for line in caplog.records].count("WARNING") == 1
    assert [unpack(b"\x01" + frame[1:]) for _, _, frame in store.waiting(10)] == [
        one.body for start in (2, 6, 10) for one in records(2, start=start)
    ]
    assert (other.purge(), other.census().later) == (6, 0)


def test_many_records_of_a_later_release(home: Home, store: Store) -> None:
    """They do not keep the others from coming, nor what the dead held from being taken over."""
    for start in range(0, 3_000, 100):
        store.append({"events": _later(100, start=start)})
    put(store, 5, start=3_000)
    dead = home.store()
    for _ in range(5):
        if (held := try_claim(dead)) is not None:
            break

    home.pass_time(LEASE + 1)

    assert names(held) == span(3_000, 3_005)
    assert names(claim(store)) == span(3_000, 3_005)
    assert store.census().later == 3_000


# -- bounds and age ------------------------------------------------------------------------------


def test_the_oldest_of_both_kinds_give_way(home: Home) -> None:
    """Whichever was made first."""
    store = home.store(max_records=4)
    put(store, 2, "metrics", created_at=1.0)
    put(store, 2, "events", start=2, created_at=2.0)

    lost = put(store, 3, "events", start=4, created_at=3.0).lost

    assert lost == 3
    assert drained(store) == span(3, 7)


def test_the_oldest_give_way_to_bytes(home: Home) -> None:
    """A frame's header counts."""
    store = home.store(max_bytes=3 * (100 + HEADER_BYTES))

    added = put(store, 300, size=100)

    assert (added.lost, added.depth.records) == (297, 3)
    assert added.depth.nbytes == 3 * (100 + HEADER_BYTES)
    assert drained(store) == span(297, 300)


def test_what_is_leased_does_not_give_way(home: Home, other: Store) -> None:
    """Neither one's own nor others'; then the newcomers do."""
    store = home.store(max_records=4)
    put(store, 4)
    mine, theirs = claim(store, 2), claim(other, 2)

    lost = put(store, 3, start=4).lost

    assert lost == 3
    assert store.settle("events", [*ids(mine), *ids(theirs)])[0] == 4


def test_nobody_gives_way_when_the_spool_may_grow(home: Home) -> None:
    """Whoever appends asks for room first."""
    store = home.store(max_records=2, when_full="grow")

    added = put(store, 5)

    assert (added.lost, added.depth.records) == (0, 5)


def test_old_records_expire(store: Store, other: Store) -> None:
    """Of both kinds, those that nobody holds."""
    put(store, 3, created_at=1.0)
    claim(store, 1)
    put(store, 2, start=3, created_at=9.0)
    put(store, 1, "metrics", start=5, created_at=1.0)

    gone, depth = other.expire(5.0)

    assert (gone, depth.records) == (3, 3)
    assert drained(other) == span(3, 5)
    assert other.expire(5.0)[0] == 0


def test_many_expire_at_once(store: Store) -> None:
    """However many there are."""
    put(store, 7_000, created_at=1.0)
    put(store, 1, start=7_000, created_at=9.0)

    gone, depth = store.expire(5.0)

    assert (gone, depth.records, depth.nbytes) == (7_000, 1, 40 + HEADER_BYTES)


def test_only_the_front_is_looked_at(store: Store) -> None:
    """A backlog is in order, nearly: what hides behind a young record waits until that is gone."""
    put(store, 600, created_at=9.0)
    put(store, 2, start=600, created_at=1.0)

    assert store.expire(5.0)[0] == 0
    assert store.expire(10.0)[0] == 602


def test_a_record_without_an_age_hides_none(store: Store) -> None:
    """It cannot expire; what lies behind it does."""
    store.append({"events": [b"damaged", *frames(3, created_at=1.0)]})

    assert (store.expire(5.0)[0], store.depth().records) == (3, 1)


def test_the_oldest_is_known(store: Store) -> None:
    """Leased or not, of either kind."""
    put(store, 1, created_at=5.0)
    put(store, 1, "metrics", created_at=3.0)
    claim(store)

    assert store.oldest_at() == 3.0


# -- history and news ----------------------------------------------------------------------------


def test_news_do_not_wait_for_history(home: Home, store: Store, other: Store) -> None:
    """While a long backlog drains, every other claim takes what came after that began."""
    now = home.clock.now()
    put(store, 100, created_at=now - 60)
    turns = [names(claim(store, 10))]
    put(store, 30, start=100, created_at=now)

    turns += [names(claim((store, other)[n % 2], 10)) for n in range(5)]

    assert turns[0] == span(0, 10)
    assert {turn[0] for turn in turns[1:]} >= {key(100), key(10)}
    assert sorted(name for turn in turns for name in turn if name >= key(100)) in (
        span(100, 120),
        span(100, 130),
    )


def _outage(home: Home, store: Store, start: int, count: int, kind: Kind = "events") -> int:
    """Put ten in each second; return the number of the next one."""
    for number in range(start, start + count, 10):
        put(store, 10, kind, start=number, created_at=home.clock.now())
        home.clock.advance(1.0)
    return start + count


def _claims_until(stores: Sequence[Store], name: str) -> int:
    """Settle claim after claim until that record comes; return how many it took."""
    for n in range(1_000):
        one = claim(stores[n % len(stores)], 10)
        stores[0].settle(one.kind, ids(one))
        if name in names(one):
            return n
    pytest.fail("it never came")


def test_news_do_not_wait_for_a_second_outage(home: Home, store: Store) -> None:
    """What was news when the first one ended is history by now."""
    end = _outage(home, store, 0, 600)
    for _ in range(4):
        one = claim(store, 10)
        store.settle(one.kind, ids(one))
    end = _outage(home, store, end, 600)
    put(store, 1, start=end, created_at=home.clock.now())

    assert _claims_until([store], key(end)) < 40


def test_news_do_not_wait_when_somebody_starts_in_an_outage(
    home: Home, store: Store, other: Store
) -> None:
    """Its first claim comes to nothing, and leaves no mark on what comes after."""
    end = _outage(home, store, 0, 600)
    held = [claim(store, 10), claim(other, 10)]
    end = _outage(home, store, end, 600)
    put(store, 1, start=end, created_at=home.clock.now())
    for one, by in zip(held, (store, other), strict=True):
        by.settle(one.kind, ids(one))

    assert _claims_until([store, other], key(end)) < 80


def test_news_of_one_kind_do_not_wait_for_history_of_the_other(home: Home, store: Store) -> None:
    """It is by turns for both kinds together."""
    end = _outage(home, store, 0, 600)
    claim(store, 10)
    put(store, 1, "metrics", start=end, created_at=home.clock.now())

    assert _claims_until([store], key(end)) < 40


def test_what_is_held_of_former_news_is_leased_once(home: Home, store: Store, other: Store) -> None:
    """It lies within what has become history, and neither expires nor gives way there."""
    end = _outage(home, store, 0, 300)
    held = [claim(other, 10) for _ in range(4)]
    kept = {name for one in held for name in names(one)}
    end = _outage(home, store, end, 600)
    other.renew({"events": [id_ for one in held for id_ in ids(one)]})
    taken = [*names(claim(store, 10)), *names(claim(store, 10))]
    bounded = home.store(max_records=600)
    lost = put(bounded, 1, start=end, created_at=home.clock.now()).lost

    expired = store.expire(home.clock.now() - 50)[0]
    found = drained(store, 10)

    assert lost == 301
    assert lost + expired + len(found) + len(kept) + len(taken) == 901
    assert set(found) >= set(span(400, 901)) - kept - set(taken)
    assert not set(found) & kept
    assert not set(taken) & kept
    assert len(set(found)) == len(found)
    assert other.settle("events", [id_ for one in held for id_ in ids(one)])[0] == 40


def test_history_and_news_come_to_an_end(home: Home, store: Store, other: Store) -> None:
    """Each record comes once, and then all is as before."""
    now = home.clock.now()
    put(store, 95, created_at=now - 60)
    found = names(claim(store, 10))
    put(store, 45, start=95, created_at=now)

    found += drained(other, 10)
    put(store, 10, start=140, created_at=now)

    assert sorted(found[10:]) == span(10, 140)
    assert drained(store, 10) == span(140, 150)


def test_a_short_backlog_keeps_its_order(home: Home, store: Store) -> None:
    """A few batches are no history."""
    now = home.clock.now()
    put(store, 30, created_at=now - 60)
    first = names(claim(store, 10))
    put(store, 10, start=30, created_at=now)

    assert [*first, *drained(store, 10)] == span(0, 40)


def test_history_gives_way_and_expires_first(home: Home) -> None:
    """It is older than the news, also when those are what the next claim takes."""
    now = home.clock.now()
    store = home.store(max_records=100)
    put(store, 100, created_at=now - 60)
    store.settle("events", ids(claim(store, 10)))
    put(store, 10, start=100, created_at=now)

    lost = put(store, 5, start=110, created_at=now).lost
    expired = store.expire(now - 10)[0]

    assert (lost, expired) == (5, 85)
    assert sorted(drained(store)) == span(100, 115)


def test_history_of_a_dead_process_is_taken_over(home: Home, store: Store, other: Store) -> None:
    """A lease is a lease, whatever it was taken from."""
    now = home.clock.now()
    put(store, 100, created_at=now - 60)
    held = [*names(claim(store, 10)), *names(claim(store, 10))]

    home.pass_time(LEASE + 1)
    taken = [*names(claim(other, 10)), *names(claim(other, 10))]

    assert taken == held


# -- questions -----------------------------------------------------------------------------------


def test_a_span_is_held_until_all_of_it_is_settled(store: Store, other: Store) -> None:
    """Whoever settles it."""
    first, last = put(store, 4).spans["events"]
    put(store, 1, start=4)
    mine = ids(claim(other, 4))

    held = [store.holds("events", first, last)]
    for id_ in mine:
        other.settle("events", [id_])
        held.append(store.holds("events", first, last))

    assert held == [True, True, True, True, False]
    assert not store.holds("metrics", first, last)


def test_what_waits_can_be_read(store: Store) -> None:
    """In pages, leased records included, and nothing changes by it."""
    store.append({"events": frames(4), "metrics": frames(3, "metrics", start=4)})
    claim(store, 2)

    pages: list[Sequence[Any]] = [store.waiting(3)]
    while pages[-1]:
        pages.append(store.waiting(3, after=pages[-1][-1][:2]))

    assert [len(page) for page in pages] == [3, 1, 3, 0]
    assert keys(unpack(frame) for page in pages for _, _, frame in page) == span(0, 7)
    assert store.depth().records == 7


def test_values_are_kept_by_name(store: Store, other: Store) -> None:
    """For all processes; the last one put counts."""
    store.put("rules", b"\0first")
    store.put("rules", b"\xff\0second")

    assert (other.get("rules"), other.get("else")) == (b"\xff\0second", None)


def test_everything_is_there_after_closing(home: Home, store: Store) -> None:
    """A store can be used again, and another finds what it left."""
    put(store, 3)
    store.put("rules", b"kept")
    generation = store.depth().generation

    store.close()
    again = home.store()

    assert (again.depth().records, again.get("rules")) == (3, b"kept")
    assert again.depth().generation == store.depth().generation == generation
