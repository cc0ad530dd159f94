"""What one process holds of a shared spool."""

from __future__ import annotations

from guardagent.spool.holding import Holding, Place
from guardagent.spool.protocol import Batch
from tests.scripted import in_threads, key, keys, records


def batch(
    count: int, *, start: int = 0, kind: str = "events", created_at: float = 10.0, of: str = "one"
) -> Batch:
    ids = list(range(start, start + count))
    bodies = [one.body for one in records(count, start=start)]
    return Batch(
        kind=kind,  # type: ignore[arg-type]
        bodies=bodies,
        created_at=created_at,
        position=Place(ids, of),
    )


def out(holding: Holding) -> Batch:
    one = holding.next()

    assert one is not None
    return one


def test_it_holds_nothing_at_first() -> None:
    """And hands nothing out."""
    holding = Holding()

    assert (len(holding), holding.next(), holding.ids(), holding.clear()) == (0, None, {}, {})


def test_batches_come_out_in_the_order_of_the_claim() -> None:
    """Each once; what is out is held still."""
    holding = Holding()
    holding.add([batch(2), batch(3, start=2)])

    found = [keys(out(holding).bodies) for _ in range(2)]

    assert found == [[key(0), key(1)], [key(2), key(3), key(4)]]
    assert (holding.next(), len(holding)) == (None, 5)
    assert holding.ids() == {"events": [0, 1, 2, 3, 4]}


def test_what_came_back_is_first() -> None:
    """Before the rest of a claim, unchanged."""
    holding = Holding()
    holding.add([batch(2), batch(2, start=2)])
    first = out(holding)

    holding.release(first)

    assert out(holding) is first
    assert len(holding) == 4


def test_a_removed_batch_is_gone() -> None:
    """Only what is out can be removed, once."""
    holding = Holding()
    given = batch(3)
    holding.add([given])
    before = holding.remove(given)
    out(holding)

    assert (before, holding.remove(given), holding.remove(given)) == (False, True, False)
    assert (len(holding), holding.ids()) == (0, {})


def test_what_is_gone_does_not_come_back() -> None:
    """Neither whole nor in halves."""
    holding = Holding()
    holding.add([batch(4)])
    gone = out(holding)
    holding.remove(gone)

    holding.release(gone)
    holding.split(gone)

    assert (holding.next(), len(holding)) == (None, 0)


def test_halves_know_their_places() -> None:
    """Their ids are those of their records, in the same store."""
    holding = Holding()
    holding.add([batch(5), batch(1, start=5)])

    holding.split(out(holding))
    halves = [out(holding) for _ in range(2)]

    assert [one.position for one in halves] == [Place([0, 1], "one"), Place([2, 3, 4], "one")]
    assert [keys(one.bodies)[0] for one in halves] == [key(0), key(2)]
    assert len(holding) == 6


def test_old_batches_that_came_back_are_let_go() -> None:
    """What is being sent, and what is young, stays; so does the count."""
    holding = Holding()
    old, sending = batch(2), batch(1, start=2, kind="metrics")
    holding.add([old, sending, batch(3, start=3, created_at=20.0)])
    holding.release(out(holding))
    assert out(holding) is old
    holding.release(old)
    assert out(holding) is old
    holding.release(old)

    gone = holding.expired(15.0)

    assert gone == [old, sending]
    assert (len(holding), keys(out(holding).bodies)[0]) == (3, key(3))


def test_what_is_out_does_not_expire() -> None:
    """Its answer settles it."""
    holding = Holding()
    holding.add([batch(2)])
    out(holding)

    assert holding.expired(15.0) == []
    assert len(holding) == 2


def test_all_can_be_let_go() -> None:
    """With the ids of both kinds, what is out included."""
    holding = Holding()
    holding.add([batch(2), batch(2, start=2), batch(1, start=4, kind="metrics")])
    sending = out(holding)

    held = holding.clear()

    assert {kind: sorted(ids) for kind, ids in held.items()} == {
        "events": [0, 1, 2, 3],
        "metrics": [4],
    }
    assert (len(holding), holding.next(), holding.remove(sending)) == (0, None, False)


def test_batches_of_another_store_are_known() -> None:
    """They cannot be settled where they came from."""
    holding = Holding()
    holding.add([batch(1, of="one")])
    states = [holding.is_older_than("one"), holding.is_older_than("two")]

    holding.remove(out(holding))
    states.append(holding.is_older_than("two"))

    assert states == [False, True, False]


def test_what_is_anothers_now_is_let_go() -> None:
    """At once if it is here, and when it comes back if it is out; with word of what is left."""
    holding = Holding()
    holding.add([batch(2, start=2 * n) for n in range(4)])
    sending, returned = out(holding), out(holding)
    holding.release(returned)

    rest = holding.forgo({"events": {0, 1, 2}}, "one")
    states = [holding.has(sending), len(holding)]
    again = holding.forgo({"events": {0, 1}}, "one")
    holding.release(sending)

    assert (rest, again) == ({"events": [3]}, {"events": []})
    assert states == [False, 6]
    assert [out(holding).position.ids for _ in range(2)] == [[4, 5], [6, 7]]
    assert (holding.next(), len(holding)) == (None, 4)


def test_what_is_anothers_now_is_not_halved() -> None:
    """A refusal of its size changes nothing any more; its acceptance settles it."""
    holding = Holding()
    holding.add([batch(4), batch(2, start=4)])
    first, second = out(holding), out(holding)
    holding.forgo({"events": set(range(6))}, "one")

    holding.split(first)

    assert (holding.next(), holding.remove(first), holding.remove(second)) == (None, False, True)
    assert len(holding) == 0


def test_what_another_store_says_is_not_heard() -> None:
    """It knows nothing of what came from the one before it."""
    holding = Holding()
    holding.add([batch(2)])

    assert holding.forgo({"events": {0, 1}}, "two") == {}
    assert len(holding) == 2


def test_threads_share_it() -> None:
    """Each batch is handed to one of them at a time, and the count stays right."""
    holding = Holding()
    holding.add([batch(2, start=2 * n) for n in range(200)])

    def work(_number: int) -> int:
        mine = 0
        while (one := holding.next()) is not None:
            if one.attempts == 0:
                one.attempts = 1
                holding.release(one)
            elif holding.remove(one):
                mine += len(one)
        return mine

    assert sum(in_threads(4, work)) == 400
    assert len(holding) == 0
