"""Strategies: events, metrics and settings an application may have, rules a backend may send."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import attrs
from hypothesis import strategies as st

from guardagent import DynamicRules, SecurityEvent, SecurityMetric
from guardagent.events import METRIC_TYPES

__all__ = ["documents", "events", "metrics"]

_WORDS = st.text(max_size=20)
_MAYBE_WORDS = st.none() | _WORDS

#: Naive, with any offset, at the very ends of the calendar: whatever an application has.
_MOMENTS = st.datetimes(
    timezones=st.none() | st.timezones() | st.builds(dt.timezone, st.timedeltas(
        min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)
    ))
)  # fmt: skip

#: What people put into metadata; most of it is no JSON.
_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _WORDS
    | st.binary(max_size=20)
    | st.uuids()
    | st.decimals()
    | _MOMENTS
    | st.builds(object)
    | st.frozensets(st.integers(), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers() | st.none() | _WORDS, inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)
_MAPPINGS = st.dictionaries(_WORDS, _ANYTHING, max_size=4)


@st.composite
def events(draw: st.DrawFn) -> SecurityEvent | dict[str, Any]:
    """Draw an event, or a mapping with fields that no event has."""
    fields = {
        "event_type": draw(st.text(min_size=1, max_size=20)),
        "idempotency_key": str(uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))),
        "timestamp": draw(_MOMENTS),
        "ip_address": draw(_WORDS | st.ip_addresses()),
        **{name: draw(_WORDS) for name in ("action_taken", "reason")},
        **{name: draw(_MAYBE_WORDS) for name in ("country", "user_agent", "endpoint", "method")},
        "status_code": draw(st.none() | st.integers()),
        "response_time": draw(st.none() | st.floats() | st.integers()),
        **{name: draw(_MAYBE_WORDS) for name in ("decorator_type", "rule_type")},
        **{name: draw(_MAYBE_WORDS) for name in ("pattern_matched", "handler_name")},
        "metadata": draw(_MAPPINGS),
    }
    if draw(st.booleans()):
        return SecurityEvent(**fields)
    return {**draw(_MAPPINGS), **fields}


@st.composite
def metrics(draw: st.DrawFn) -> SecurityMetric:
    """Draw a metric."""
    return SecurityMetric(
        timestamp=draw(_MOMENTS),
        metric_type=draw(st.sampled_from(sorted(METRIC_TYPES))),
        value=draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)),
        endpoint=draw(_MAYBE_WORDS),
        tags=draw(_MAPPINGS),
    )


#: Any JSON value, most of it wrong for any field.
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=5,
)

_NUMBERS = st.integers(-3, 10**6) | st.integers()
_WHOLE = (
    _NUMBERS
    | _NUMBERS.map(float)
    | _NUMBERS.map(str)
    | st.from_regex(r"[ \n]{0,2}[+-]?[0-9_.\u0660]{1,12} ?", fullmatch=True)
)
_FLAGS = st.sampled_from(
    ["true", "True", "yes", "Y", "on", "1", "off", "F", "n", "", " true", "ja", 0, 1, 2, 0.0, 1.0]
)
_TIMES = (
    _MOMENTS.map(str)
    | _MOMENTS.map(dt.datetime.isoformat)
    | st.dates().map(str)
    | st.floats(-1e12, 1e12)
    | _WHOLE
    | st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][T _][0-2][0-9]:[0-5][0-9](:[0-6][0-9])?([.,][0-9]{0,9})?"
        r"(Z|[+-][0-2][0-9]:?[0-5][0-9])?",
        fullmatch=True,
    )
)
_NETWORKS = st.ip_addresses().map(str) | st.tuples(st.ip_addresses(v=4), st.integers(0, 33)).map(
    lambda pair: f"{pair[0]}/{pair[1]}"
)
_PATHS = st.dictionaries(_WORDS, st.lists(_WHOLE, min_size=1, max_size=3), max_size=3)


def _lists(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(entries, max_size=3) | st.lists(entries | _JSON, max_size=3)


def _field(name: str, kind: str) -> st.SearchStrategy[Any]:
    """Return values for a field: most are near its type, some far from it."""
    if kind == "list[str]" and ("list" in name and "countries" not in name):
        near: st.SearchStrategy[Any] = _lists(_NETWORKS)
    else:
        near = next(values for prefix, values in _NEAR.items() if kind.startswith(prefix))
    return near | near | near | _JSON


_NEAR: dict[str, st.SearchStrategy[Any]] = {
    "list[": _lists(_WORDS),
    "set[": _lists(_WORDS),
    "dict[": _PATHS,
    "dt.datetime": _TIMES,
    "int": _WHOLE,
    "bool": st.booleans() | _FLAGS,
    "str": _WORDS,
}


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Return rules documents, good and bad, of JSON values; some have keys of their own."""
    # Unlike the fields' types these are always text.
    kinds = DynamicRules.__annotations__
    names = [field.name for field in attrs.fields(DynamicRules)]
    fields = {name: _field(name, kinds[name]) for name in names}
    some = st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4)
    known = some.flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )
    return st.builds(
        lambda own, rules: {**own, **rules}, st.dictionaries(_WORDS, _JSON, max_size=1), known
    )
