"""Addresses of Redis: what is understood, and what is refused without showing it."""

from __future__ import annotations

import pytest

from guardagent.errors import ConfigError
from guardagent.spool.redis import RedisStore
from guardagent.spool.redis_address import Address
from guardagent.spool.redis_form import read_id, slices, write_id, write_keys, write_runs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://", Address("server", "redis://localhost:6379/0", (("localhost", 6379),))),
        ("redis://h/", Address("server", "redis://h:6379/0", (("h", 6379),))),
        (" rediss://u:p@h:1/2?a=b ", Address("server", "rediss://u:p@h:1/2?a=b", (("h", 1),))),
        ("redis://[::1]:7/3", Address("server", "redis://[::1]:7/3", (("::1", 7),))),
        ("unix:///run/r.sock?db=2", Address("server", "unix:///run/r.sock?db=2")),
        (
            "redis+sentinel://:pw@a,b:7/main/4?x=y",
            Address("sentinel", "redis://:pw@a:26379/4?x=y", (("a", 26379), ("b", 7)), "main"),
        ),
        (
            "rediss+sentinel://a/my%20own",
            Address("sentinel", "rediss://a:26379/0", (("a", 26379),), "my own"),
        ),
        (
            "redis+cluster://a:1,b",
            Address("cluster", "redis://a:1/0", (("a", 1), ("b", 6379))),
        ),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    """Hosts, ports, database and service are taken out; the rest is redis-py's to read."""
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("http://secret", "scheme"),
        ("redis+other://secret", "scheme"),
        ("unix+cluster://secret", "scheme"),
        ("unix://", "path"),
        ("unix://secret@", "path"),
        ("redis://:secret@h:none", "port"),
        ("redis://:secret@h:70000", "port"),
        ("redis://:secret@a,b", "several hosts"),
        ("redis://:secret@h/one", "database"),
        ("redis+sentinel://:secret@h", "service"),
        ("redis+sentinel://:secret@h/main/x", "database"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(text: str, what: str) -> None:
    """The setting, the part that is wrong and the forms that are allowed."""
    with pytest.raises(ConfigError, match=what) as caught:
        RedisStore(text, None, max_records=1, max_bytes=1, owner="o")

    assert str(caught.value).startswith("spool: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("sign", ["#", "/", "?", "[", "]", "\n", "\t", " ", "\u2100"])
@pytest.mark.parametrize("scheme", ["redis", "rediss+cluster", "redis+sentinel", "unix"])
def test_a_password_that_breaks_off_is_refused(scheme: str, sign: str) -> None:
    """A part of it would be taken for the port, and named when nobody answers there."""
    with pytest.raises(ConfigError, match="%23") as caught:
        Address.parse(f"{scheme}://user:2024{sign}secret@host/main/0")

    assert "2024" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    """Neither of an address nor of a store."""
    store = RedisStore("redis://:secret@h", None, max_records=1, max_bytes=1, owner="o")

    assert "secret" not in repr(store)


def test_projects_never_share_keys() -> None:
    """Whatever their names hold, and also one without a name."""
    names = [None, "", "none", "%none", "a", "a{", "a}", "a%7B", "a%", "a}:events", "ä\ud800"]

    keys = [key for name in names for key in write_keys(name)]

    assert len(set(keys)) == len(keys)
    assert {key.count(b"{") + key.count(b"}") for key in keys} == {2}


def test_ids_are_ordered_numbers() -> None:
    """As the ids of a stream are."""
    texts = [
        b"0-1",
        b"1-0",
        b"1-9",
        b"1-10",
        b"1795479000000-0",
        b"1795479000000-18446744073709551615",
    ]

    ids = [read_id(text) for text in texts]

    assert ids == sorted(ids)
    assert [write_id(id_).encode() for id_ in ids] == texts


def test_runs_of_ids() -> None:
    """First and last of each, in order."""
    ids = [read_id(text) for text in (b"5-3", b"5-1", b"5-2", b"7-0", b"9-1", b"9-0")]

    assert write_runs(ids) == "5-1 5-3 7-0 7-0 9-0 9-1"
    assert write_runs([]) == ""


def test_slices_are_bounded() -> None:
    """By number and by bytes; none is empty."""
    frames = [b"x" * size for size in (5, 5, 20, 1, 1, 1, 1)]

    cut = [[len(frame) for frame in part] for part in slices(frames, 3, 10)]

    assert cut == [[5, 5], [20], [1, 1, 1], [1]]
    assert list(slices([], 3, 10)) == []
