"""A rules document is accepted or refused by both alike; what differs is in a table."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from guardagent import DynamicRules
from guardagent.errors import RulesError
from tests.oracle.values import documents


@attrs.frozen
class Difference:
    """One row of the table in docs/rules.rst.

    Args:
        reason: why it stays.
        fields: where it is met.
        example: a value that one side takes.
        holds: tells for any value whether this is the reason.
        taken_here: who takes it; all but one row are stricter than guard-agent.
    """

    reason: str
    fields: str
    example: Any
    holds: Callable[[Any], bool]
    taken_here: bool = False


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return True


def _is_unusable(pattern: str) -> bool:
    """Tell whether a pattern cannot be compiled, or repeats something."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):  # what `re` raises for bad ones
        return True
    return re.search(r"[*+{?]", pattern) is not None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _not_positive(value: Any) -> bool:
    number = _number(value)
    return number is not None and number < 1


def _text(test: Callable[[str], object]) -> Callable[[Any], bool]:
    """Return what tells whether a value is such a text, or holds one."""

    def holds(value: Any) -> bool:
        if isinstance(value, (list, dict)):
            return any(map(holds, value.values() if isinstance(value, dict) else value))
        return isinstance(value, str) and bool(test(value))

    return holds


def _beyond_the_calendar(value: Any) -> bool:
    """Tell whether a time lies outside the years 1 to 9999 only once it is in UTC."""
    return isinstance(value, str) and value[:4] in ("0001", "9999") and len(value) > 19


_ADDRESSES = "ip_blacklist ip_whitelist emergency_whitelist"
_TIMES = "timestamp expires_at"
_WHOLE = (
    "version ttl ip_ban_duration global_rate_limit global_rate_window auto_ban_threshold"
    " auto_ban_duration endpoint_rate_limits"
)

DIFFERENCES = [
    Difference(
        "an entry that is no address and no network would block nobody, unnoticed",
        _ADDRESSES,
        ["203.0.113.300"],
        lambda value: _strings(value) and not all(map(_is_network, value)),
    ),
    Difference(
        "a pattern that cannot be compiled, or may take for ever, would stop every request",
        "suspicious_patterns blocked_user_agents",
        ["(unclosed"],
        lambda value: _strings(value) and any(map(_is_unusable, value)),
    ),
    Difference(
        "a limit of no requests, or within no time, is none",
        "global_rate_limit global_rate_window",
        0,
        _not_positive,
    ),
    Difference(
        "a limit of no requests, or within no time, is none",
        "endpoint_rate_limits",
        {"/login": [5, 0]},
        lambda value: (
            isinstance(value, dict)
            and any(_not_positive(number) for pair in value.values() for number in pair)
        ),
    ),
    Difference(
        "a time is kept in UTC, where it is before the year 1 or after 9999",
        _TIMES,
        "0001-01-01T00:00:00+01:00",
        _beyond_the_calendar,
    ),
    Difference(
        "numbers and times are written in ASCII",
        _TIMES,
        "2026-01-01T00:00:00\N{MINUS SIGN}01:00",
        _text(lambda text: not text.isascii()),
    ),
    Difference(
        "numbers and times are written in ASCII",
        _WHOLE,
        "\N{NO-BREAK SPACE}20",
        _text(lambda text: not text.isascii()),
    ),
    Difference(
        "a number begins with a digit",
        _TIMES,
        ".5",
        _text(re.compile(r"[+-]?\.").match),
    ),
    Difference(
        "a fraction may be left empty",
        _WHOLE,
        "20.",
        _text(lambda text: text.strip().endswith(".")),
        taken_here=True,
    ),
    Difference(
        "digits are separated by one underscore at most, after leading zeros too",
        _WHOLE,
        "0__7",
        _text(lambda text: "__" in text),
    ),
]


def _here(document: dict[str, Any]) -> DynamicRules | None:
    try:
        return DynamicRules.from_mapping(document)
    except RulesError:
        return None


def _there(models: Any, document: dict[str, Any]) -> Any:
    try:
        return models.DynamicRules(**document)
    except ValueError:  # pydantic's ValidationError is one
        return None


def _explains(row: Difference, name: str, value: Any, taken_here: bool) -> bool:
    return name in row.fields.split() and row.taken_here == taken_here and row.holds(value)


def _unexplained(models: Any, document: dict[str, Any]) -> list[str]:
    """Name the fields that only one side takes, for no reason of the table."""
    found = []
    for name, value in document.items():
        here, there = _here({name: value}), _there(models, {name: value})
        if (here is None) != (there is None):
            if not any(_explains(row, name, value, there is None) for row in DIFFERENCES):
                found.append(f"{name}: {value!r}, {'refused' if here is None else 'taken'} here")
    return found


def _is_same(here: Any, there: Any) -> bool:
    """Tell whether both mean the same; a naive time is UTC, and a float may be rounded."""
    if isinstance(here, dt.datetime) and isinstance(there, dt.datetime):
        aware = there if there.tzinfo else there.replace(tzinfo=dt.timezone.utc)
        return abs(here - aware) < dt.timedelta(milliseconds=1)
    return bool(here == there)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=documents())
def test_both_take_and_refuse_the_same_documents(models: Any, document: dict[str, Any]) -> None:
    """Good or bad; and what both take has the same values on both sides."""
    document = json.loads(json.dumps(document))

    assert _unexplained(models, document) == []
    here, there = _here(document), _there(models, document)
    if here is not None and there is not None:
        names = set(models.DynamicRules.model_fields) - {"timestamp"}
        if "timestamp" in document:
            names.add("timestamp")
        for name in names:
            assert _is_same(getattr(here, name), getattr(there, name)), name


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=documents())
def test_one_bad_field_refuses_the_whole(models: Any, document: dict[str, Any]) -> None:
    """On both sides: a document is taken when each of its fields would be."""
    document = json.loads(json.dumps(document))

    assert (_here(document) is not None) == all(
        _here({name: value}) is not None for name, value in document.items()
    )
    assert (_there(models, document) is not None) == all(
        _there(models, {name: value}) is not None for name, value in document.items()
    )


def test_both_know_the_same_fields(models: Any) -> None:
    """With the same defaults."""
    ours = DynamicRules()
    theirs = models.DynamicRules()

    assert {field.name for field in attrs.fields(DynamicRules)} == set(
        models.DynamicRules.model_fields
    )
    for name in set(models.DynamicRules.model_fields) - {"timestamp"}:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{row.fields[:20]}-{row.example!r}")
def test_each_difference_is_one(models: Any, row: Difference) -> None:
    """Every row of the table has an example that one side takes and the other refuses."""
    for name in row.fields.split():
        is_pair = name == "endpoint_rate_limits" and isinstance(row.example, str)
        document = {name: {"/": [row.example, 60]} if is_pair else row.example}

        assert row.holds(document[name])
        assert (_here(document) is not None) is row.taken_here, name
        assert (_there(models, document) is not None) is not row.taken_here, name


def test_what_we_write_theirs_reads(models: Any) -> None:
    """A document that this side writes means the same there."""
    rules = DynamicRules.from_mapping(
        {
            "rule_id": "r",
            "version": 3,
            "expires_at": "2027-01-15T08:00:00Z",
            "ip_blacklist": ["203.0.113.0/24"],
            "blocked_cloud_providers": ["AWS", "GCP"],
            "endpoint_rate_limits": {"/login": [5, 60]},
            "enable_ip_banning": True,
        }
    )

    theirs = models.DynamicRules(**rules.to_mapping())

    for field in attrs.fields(DynamicRules):
        assert getattr(theirs, field.name) == getattr(rules, field.name), field.name
