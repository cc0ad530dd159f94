"""What `guardagent rules watch` says of each change, and how changes are put in words."""

from __future__ import annotations

from typing import Any

import pytest

from guardagent import DynamicRules
from guardagent.cli.changes import changes
from guardagent.cli.places import Kept, PlaceError
from guardagent.cli.watcher import Watcher


class _Script:
    """A place that holds one thing after the other."""

    def __init__(self, *held: Any) -> None:
        self._held = iter(held)
        self.tags: list[str] = []

    def get(self, tag: str = "") -> Kept | None:
        """Return what comes next."""
        self.tags.append(tag)
        one = next(self._held)
        if isinstance(one, Exception):
            raise one
        return None if one is None else Kept(one, f"tag-{len(self.tags)}")


def _lines(*held: Any) -> list[list[str]]:
    watcher = Watcher(_Script(*held))  # type: ignore[arg-type]
    return [[line.split(" ", 1)[1] for line in watcher.look()] for _ in held]


def test_only_changes_are_said() -> None:
    """What is still the same is asked for by its tag."""
    script = _Script({"rule_id": "r"}, None, {"rule_id": "r", "version": 2, "ttl": 5}, None)
    watcher = Watcher(script)  # type: ignore[arg-type]

    said = [len(watcher.look()) for _ in range(4)]

    assert said == [1, 0, 1, 0]
    assert script.tags == ["", "tag-1", "tag-1", "tag-3"]


def test_a_failure_is_said_once_and_so_is_its_end() -> None:
    """However long it lasts."""
    gone = PlaceError("nobody there")

    assert _lines({}, gone, gone, None, gone) == [
        ["no rules: agents keep those they have"],
        ["nobody there"],
        [],
        ["it can be read again"],
        ["nobody there"],
    ]


def test_what_agents_make_of_it_is_said() -> None:
    """A bad document, an older version, another document under the same version."""
    assert _lines(
        {"rule_id": "r", "version": 2, "ttl": 5},
        {"rule_id": "r", "version": "x"},
        {"rule_id": "r", "version": 1},
        {"rule_id": "r", "version": 2, "ttl": 6},
        {"rule_id": "s", "version": 1, "ttl": 6},
    ) == [
        ["r version 2: ttl: 300 -> 5"],
        ["refused by agents: version: given 'x' (str), allowed: a whole number"],
        ["r version 1 comes after version 2: agents keep that one"],
        [
            "r version 2 is another now, under the same version: it may be overlooked",
            "r version 2: ttl: 5 -> 6",
        ],
        ["s version 1: nothing differs"],
    ]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({}, {"version": 9, "rule_id": "x"}, []),
        ({"message": "a"}, {"message": "b\n"}, ['message: "a" -> "b\\n"']),
        (
            {"endpoint_rate_limits": {"/a": [1, 2], "/b": [3, 4]}},
            {"endpoint_rate_limits": {"/a": [1, 2], "/b": [5, 4]}},
            ["endpoint_rate_limits: +/b 5 in 4 s, -/b 3 in 4 s"],
        ),
        (
            {},
            {"blocked_countries": [f"C{n}" for n in range(8)]},
            ["blocked_countries: +C0, +C1, +C2, +C3, +C4, +3 more"],
        ),
        (
            {"blocked_countries": ["DE", "FR"]},
            {"blocked_countries": ["FR", "DE"]},
            ["blocked_countries: another order, or twice the same"],
        ),
        ({}, {"blocked_countries": ["\x1b[31m"]}, ["blocked_countries: +\ufffd[31m"]),
    ],
)
def test_changes_in_words(old: Any, new: Any, lines: list[str]) -> None:
    """A line for each field, short, and harmless for a terminal."""
    assert changes(DynamicRules.from_mapping(old), DynamicRules.from_mapping(new)) == lines
