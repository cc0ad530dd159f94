"""Copies: independent of what happens later, bounded, and made without asking the copied."""

from __future__ import annotations

import ctypes
import itertools
import threading
import tracemalloc
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent import snapshot as module
from guardagent.snapshot import MAX_DEPTH, MAX_ITEMS, snapshot

quickly = settings(max_examples=60, deadline=None, database=None)


class Pair(NamedTuple):
    left: int
    right: str


def items_in(value: Any) -> int:
    """Everything in a tree, however nested."""
    if isinstance(value, dict):
        return len(value) + sum(items_in(item) for item in value.values())
    if isinstance(value, list):
        return len(value) + sum(items_in(item) for item in value)
    return 0


def depth_of(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((depth_of(item) for item in inner), default=0)


# ------------------------------------------------------------------------------------------- copies


def test_a_flat_mapping_is_copied() -> None:
    """The common case: plain values under text keys."""
    given = {"text": "a", "int": 1, "float": 1.5, "bool": True, "none": None}

    copied = snapshot(given)
    given["text"] = "b"
    given["more"] = 1

    assert copied == {"text": "a", "int": 1, "float": 1.5, "bool": True, "none": None}


@pytest.mark.parametrize("given", [None, {}])
def test_nothing_is_an_empty_dict(given: Any) -> None:
    """An event without metadata has an empty one."""
    copied = snapshot(given)

    assert copied == {}
    assert copied is not given


@pytest.mark.parametrize(
    ("given", "copied"),
    [
        ({"a": 1}, {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (MappingProxyType({"a": [1]}), {"a": [1]}),
        ([1, [2]], [1, [2]]),
        ((1, (2,)), [1, [2]]),
        (Pair(1, "r"), [1, "r"]),
        ({1}, [1]),
        (frozenset({1}), [1]),
        (deque([1, 2]), [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_become_dicts_and_lists(given: Any, copied: Any) -> None:
    """Each container of the standard library becomes what JSON has for it."""
    got = snapshot({"given": given})["given"]

    assert got == copied
    assert type(got) is type(copied)


@pytest.mark.parametrize("kind", [OrderedDict, defaultdict, MappingProxyType, UserDict, ChainMap])
def test_the_outermost_mapping_may_be_of_any_kind(kind: Any) -> None:
    """What the constructor of an event takes, a later assignment may hold too."""
    given = kind(None, {"a": [1]}) if kind is defaultdict else kind({"a": [1]})

    assert snapshot(given) == {"a": [1]}


@pytest.mark.parametrize(
    ("given", "kept"),
    [([1], [1]), ((1,), [1]), ("text", "text"), (5, 5), ({1}, [1]), (bytearray(b"a"), b"a")],
)
def test_what_is_no_mapping_is_kept_in_one(given: Any, kept: Any) -> None:
    """A field that was spoilt after construction costs nothing."""
    assert snapshot(given) == {"given": kept}


def test_nested_changes_are_not_seen() -> None:
    """No container of the copy belongs to anybody else."""
    given: dict[str, Any] = {"list": [{"a": 1}], "deque": deque([[1]]), "bytes": bytearray(b"a")}

    copied = snapshot(given)
    given["list"][0]["a"] = 2
    given["list"].append(3)
    given["deque"][0].append(2)
    given["bytes"][0] = 0

    assert copied == {"list": [{"a": 1}], "deque": [[1]], "bytes": b"a"}


def test_keys_are_kept_as_they_are() -> None:
    """Keys become text later, when there is time."""
    given = {1: [], (1, 2): [], None: [], b"x": [], "s": []}

    assert list(snapshot(given)) == [1, (1, 2), None, b"x", "s"]


# ------------------------------------------------------------------------------------------ buffers


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_buffers_are_copied(kind: Any) -> None:
    """Their memory may be written to later."""
    memory = bytearray(b"abc")

    copied = snapshot({"buffer": kind(memory)})
    memory[0] = 0

    assert copied == {"buffer": b"abc"}


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize(
    "buffer",
    [
        released(),
        memoryview(ctypes.c_int(1)),
        memoryview(b"abcd").cast("B", (2, 2)),
        memoryview(b"abcdefgh").cast("d"),
        memoryview(b"abcdef")[::2],
    ],
    ids=["released", "scalar", "matrix", "floats", "stride"],
)
def test_an_odd_buffer_costs_only_itself(buffer: memoryview) -> None:
    """No kind of memory makes a capture fail."""
    copied = snapshot({"buffer": buffer, "other": 1})

    assert list(copied) == ["buffer", "other"]
    assert copied["other"] == 1


@pytest.mark.parametrize("kind", [bytearray, bytes, str, memoryview])
def test_a_large_value_is_not_copied_whole(kind: Any) -> None:
    """No more than 64 KiB of a value can ever be sent, and no more is kept."""
    large = "x" * 10_000_000 if kind is str else kind(b"x" * 10_000_000)

    copied = snapshot({"large": large, "nested": [large]})

    assert len(copied["large"]) <= 2**16 + 64 or copied["large"] is large
    assert len(copied["nested"][0]) <= 2**16 + 64 or copied["nested"][0] is large


# ------------------------------------------------------------------------------------------- bounds


def test_depth_is_bounded() -> None:
    """What lies too deep becomes a marker."""
    given: dict[str, Any] = {}
    inner = given
    for _ in range(100):
        inner["next"] = {}
        inner = inner["next"]

    copied = snapshot(given)

    assert depth_of(copied) == MAX_DEPTH
    assert "[nested too deeply]" in str(copied)


@pytest.mark.parametrize("wrap", [lambda v: {"v": v}, lambda v: [v], lambda v: deque([v])])
def test_depth_is_bounded_in_every_container(wrap: Any) -> None:
    """Lists count as well as mappings."""
    value: Any = 1
    for _ in range(50):
        value = wrap(value)

    assert depth_of(snapshot({"value": value})) == MAX_DEPTH


@pytest.mark.parametrize("count", [MAX_ITEMS, MAX_ITEMS + 1, 50_000])
@pytest.mark.parametrize("value", [1, []], ids=["flat", "nested"])
def test_size_is_bounded(count: int, value: Any) -> None:
    """Of a large mapping the first items are kept, and the number of the others is told."""
    copied = snapshot({str(n): value for n in range(count)})

    kept = min(count, MAX_ITEMS)
    assert list(copied)[:kept] == [str(n) for n in range(kept)]
    assert list(copied.items())[kept:] == (
        [("[truncated]", f"{count - kept} more items")] if count > kept else []
    )


def test_size_is_bounded_in_lists() -> None:
    """A long list ends with the number of items that are missing."""
    copied = snapshot({"list": list(range(5_000))})

    assert copied["list"][:2] == [0, 1]
    assert copied["list"][-1] == f"[truncated: {5_000 - (MAX_ITEMS - 1)} more items]"


def test_one_allowance_for_the_whole_tree() -> None:
    """Many small containers are no way around the bound."""
    copied = snapshot({str(n): list(range(100)) for n in range(500)})

    markers = 1 + 500
    assert items_in(copied) <= MAX_ITEMS + markers


@pytest.mark.parametrize("width", [1, 2, 50])
def test_cycles_end(width: int) -> None:
    """A container that holds itself, even many times, is copied in bounded work."""
    cycle: list[Any] = []
    cycle.extend([cycle] * width)
    mapping: dict[str, Any] = {"list": cycle}
    mapping["self"] = mapping

    copied = snapshot(mapping)

    assert depth_of(copied) <= MAX_DEPTH
    assert items_in(copied) <= 4 * MAX_ITEMS


def peak_of(value: Any) -> int:
    """Bytes that a snapshot takes at its highest point."""
    tracemalloc.start()
    try:
        snapshot(value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [list, tuple, set, deque, dict.fromkeys])
def test_work_does_not_grow_with_the_size(kind: Any) -> None:
    """A hundred times the items take no more memory: only what is kept is touched."""
    small, large = ({"nested": kind(range(size))} for size in (3_000, 300_000))

    assert peak_of(large) < 2 * peak_of(small)


# ------------------------------------------------------------------------------------ other threads


def test_a_mapping_that_another_thread_changes() -> None:
    """A capture never fails because somebody else is writing at the same time."""
    shared: dict[str, Any] = {"nested": {}}
    stop = threading.Event()

    def write() -> None:
        for n in itertools.count():
            shared[str(n % 300)] = n
            shared["nested"][str(n % 200)] = [n]
            shared.pop(str((n * 7) % 300), None)
            shared["nested"].pop(str((n * 7) % 200), None)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [snapshot(shared) for _ in range(300)]
    finally:
        stop.set()
        writer.join()

    assert {type(copied["nested"]) for copied in copies} <= {dict, str}


class Flaky:
    """Reads like a mapping that changes its size the first few times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.reads = 0

    def items(self, value: dict[Any, Any]) -> Any:
        self.reads += 1
        if self.reads <= self.failures:
            raise RuntimeError("dictionary changed size during iteration")
        return dict.items(value)


@pytest.mark.parametrize("failures", [1, 4])
def test_a_changing_mapping_is_read_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few attempts are made; only free-threaded Python and finalizers can need them."""
    reader = Flaky(failures)
    monkeypatch.setattr(module, "_READERS", ((dict, (dict.__len__, reader.items)),))

    assert snapshot({"a": {"b": 1}}) == {"a": {"b": 1}}


def test_a_mapping_that_keeps_changing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After that a marker stands in its place, and the work has an end."""
    reader = Flaky(10**9)

    class Busy(dict):  # type: ignore[type-arg]
        pass

    readers = ((Busy, (dict.__len__, reader.items)), (dict, (dict.__len__, dict.items)))
    monkeypatch.setattr(module, "_READERS", readers)

    assert snapshot({"busy": Busy(a=1), "b": 1}) == {"busy": "[changed while it was read]", "b": 1}
    assert reader.reads < 10


# ----------------------------------------------------------------------------- nothing foreign runs


@pytest.mark.parametrize(
    "base", [dict, list, tuple, set, frozenset, deque, bytearray, OrderedDict, object]
)
def test_no_code_of_a_foreign_class_runs(base: type) -> None:
    """Overridden methods of a container are not called: a lazy one must not start a query."""
    calls: list[str] = []

    def noting(name: str) -> Any:
        def method(*_args: object, **_kwargs: object) -> Any:
            calls.append(name)
            raise RuntimeError(name)

        return method

    names = ("__iter__", "__len__", "__getitem__", "__bool__", "__eq__", "__repr__", "__contains__")
    names += ("__getattribute__", "__bytes__", "__copy__", "__deepcopy__", "__reduce_ex__")
    names += ("items", "keys", "values", "copy", "get", "__class__", "__dict__")
    body = {name: noting(name) for name in names} | {"__class__": property(noting("__class__"))}
    value = type("Lazy", (base,), body)()

    copied = snapshot({"value": value})

    assert calls == []
    assert list(copied) == ["value"]


def test_a_stranger_is_kept_as_it_is() -> None:
    """Of an unknown object only the type is ever sent; it is not copied."""
    stranger = object()

    assert snapshot({"a": stranger})["a"] is stranger


def test_a_foreign_mapping_inside_is_not_read() -> None:
    """Only the outermost mapping may be of any class."""
    inner = UserDict(a=1)

    assert snapshot({"inner": inner})["inner"] is inner


class Broken(UserDict):  # type: ignore[type-arg]
    """A mapping whose own code fails, as that of a closed session does."""

    def __iter__(self) -> Any:
        raise LookupError("the session is closed")


def test_a_mapping_that_cannot_be_read_costs_only_itself() -> None:
    """Its class is named."""
    assert snapshot(Broken(a=1)) == {"given": "<Broken>"}


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": v}, lambda v: {"a": [v]}])
def test_a_view_of_a_broken_mapping_costs_only_itself(wrap: Any) -> None:
    """A read-only view of a foreign mapping runs that mapping's code."""
    copied = snapshot(wrap(MappingProxyType(Broken(a=1))))

    assert type(copied) is dict


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers() | st.none() | st.tuples(st.integers())
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=30,
)


@quickly
@given(st.dictionaries(keys, trees, max_size=5))
def test_a_small_tree_is_copied_whole(tree: dict[Any, Any]) -> None:
    """Within the bounds a copy of dicts and lists is equal to the original."""
    copied = snapshot(tree)

    if depth_of(tree) <= MAX_DEPTH:
        assert copied == tree
    assert copied is not tree
