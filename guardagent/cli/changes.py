"""What differs between two rules documents, in words. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from guardagent.cli.tally import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guardagent import DynamicRules

__all__ = ["changes"]

#: Entries of a list that are named; the others are told as a number.
_NAMED = 5

#: They change with everything else.
_STAMPS = ("rule_id", "version", "timestamp")


def changes(old: DynamicRules, new: DynamicRules) -> list[str]:
    """Return a line for each field that differs: "ip_blacklist: +203.0.113.9"."""
    before, after = old.to_mapping(), new.to_mapping()
    return [
        f"{name}: {', '.join(_difference(before[name], value))}"
        for name, value in after.items()
        if name not in _STAMPS and before[name] != value
    ]


def _difference(old: Any, new: Any) -> Iterator[str]:
    if isinstance(new, list) and isinstance(old, list):
        yield from _entries(old, new)
    elif isinstance(new, dict) and isinstance(old, dict):
        yield from _entries(_lines(old), _lines(new))
    else:
        yield f"{_shown(old)} -> {_shown(new)}"


def _entries(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    before, after = set(old), set(new)
    if before == after:
        yield "another order, or twice the same"
    yield from _some("+", [entry for entry in dict.fromkeys(new) if entry not in before])
    yield from _some("-", [entry for entry in dict.fromkeys(old) if entry not in after])


def _some(sign: str, entries: Sequence[str]) -> Iterator[str]:
    for entry in entries[:_NAMED]:
        yield sign + printable(entry, 60)
    if len(entries) > _NAMED:
        yield f"{sign}{len(entries) - _NAMED} more"


def _lines(limits: Mapping[str, Sequence[int]]) -> list[str]:
    return [f"{path} {requests} in {window} s" for path, (requests, window) in limits.items()]


def _shown(value: object) -> str:
    return printable(json.dumps(value), 60)
