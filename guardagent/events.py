"""SecurityEvent and SecurityMetric: what an application reports (fields as in WIRE.md 2)."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import attrs

from guardagent import _fields
from guardagent._ids import format_key, new_key
from guardagent.errors import EventError
from guardagent.plain import as_datetime, describe, plain

__all__ = ["METRIC_TYPES", "TEXT_DEFAULTS", "SecurityEvent", "SecurityMetric", "coerce"]

#: The metric names the backend knows; it refuses a batch with any other.
METRIC_TYPES = frozenset(
    {
        "request_count",
        "response_time",
        "error_rate",
        "bandwidth_usage",
        "threat_level",
        "block_rate",
        "cache_hit_rate",
    }
)

#: Characters of a text that may be a number.
_NUMBER_KEPT = 64

_now = partial(dt.datetime.now, dt.timezone.utc)

#: The optional text fields of an event, with what None stands for.
TEXT_DEFAULTS: dict[str, str | None] = {
    "ip_address": "",
    "country": None,
    "user_agent": None,
    "action_taken": "",
    "reason": "",
    "endpoint": None,
    "method": None,
    "decorator_type": None,
    "rule_type": None,
    "pattern_matched": None,
    "handler_name": None,
}


def _field(default: Any = attrs.NOTHING, **options: Any) -> Any:
    return attrs.field(default=default, **options)


@attrs.define(kw_only=True, init=False)
class SecurityEvent:
    """One thing that happened and that an operator wants to know of.

    Mutable until it is captured; `capture` takes a copy of everything in it.

    Args:
        event_type: what happened; any name, the Guard libraries use 39 of their own.
        timestamp: when; aware, or naive and then taken as UTC. Now, unless given.
        status_code: HTTP status of the answer.
        response_time: seconds.
        metadata: anything else, nested or not; see `snapshot` for the bounds.
        extra: fields this class does not have; sent beside the others at the top level.
        idempotency_key: identity of the event over retries, splits and restarts; a new UUID4
            unless given.

    Raises:
        EventError: a field has the wrong type; names the field, what was given and what is allowed.
    """

    _idempotency_key: str | bytes | None = _field(None, repr=False, eq=False)
    timestamp: dt.datetime = _field(factory=_now)
    event_type: str = _field()
    ip_address: str = _field("")
    country: str | None = _field(None)
    user_agent: str | None = _field(None)
    action_taken: str = _field("")
    reason: str = _field("")
    endpoint: str | None = _field(None)
    method: str | None = _field(None)
    status_code: int | None = _field(None)
    response_time: float | None = _field(None)
    decorator_type: str | None = _field(None)
    rule_type: str | None = _field(None)
    pattern_matched: str | None = _field(None)
    handler_name: str | None = _field(None)
    metadata: dict[str, Any] = _field(factory=dict)
    extra: Mapping[str, Any] | None = _field(None)

    def __init__(  # noqa: PLR0913 - the fields of WIRE.md 2
        self,
        *,
        event_type: str,
        idempotency_key: str | bytes | None = None,
        timestamp: dt.datetime | None = None,
        ip_address: str = "",
        country: str | None = None,
        user_agent: str | None = None,
        action_taken: str = "",
        reason: str = "",
        endpoint: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        response_time: float | None = None,
        decorator_type: str | None = None,
        rule_type: str | None = None,
        pattern_matched: str | None = None,
        handler_name: str | None = None,
        metadata: dict[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        # Written out, with one check of all types: an event is built inside somebody's request,
        # and a validator per field would cost it 4 us more.
        if timestamp is None:
            timestamp = _now()
        if metadata is None:
            metadata = {}
        self._idempotency_key = idempotency_key
        self.timestamp = timestamp
        self.event_type = event_type
        self.ip_address = ip_address
        self.country = country
        self.user_agent = user_agent
        self.action_taken = action_taken
        self.reason = reason
        self.endpoint = endpoint
        self.method = method
        self.status_code = status_code
        self.response_time = response_time
        self.decorator_type = decorator_type
        self.rule_type = rule_type
        self.pattern_matched = pattern_matched
        self.handler_name = handler_name
        self.metadata = metadata
        self.extra = extra
        if not (
            type(event_type) is str
            and event_type
            and type(timestamp) is dt.datetime
            and type(ip_address) is str
            and type(action_taken) is str
            and type(reason) is str
            and (country is None or type(country) is str)
            and (user_agent is None or type(user_agent) is str)
            and (endpoint is None or type(endpoint) is str)
            and (method is None or type(method) is str)
            and (status_code is None or type(status_code) is int)
            and (response_time is None or type(response_time) is float)
            and (decorator_type is None or type(decorator_type) is str)
            and (rule_type is None or type(rule_type) is str)
            and (pattern_matched is None or type(pattern_matched) is str)
            and (handler_name is None or type(handler_name) is str)
            and type(metadata) is dict
            and extra is None
            and idempotency_key is None
        ):
            self._check()

    def _check(self) -> None:
        """Convert what is near enough to a field's type, refuse the rest."""
        self.event_type = _fields.name("event_type", self.event_type)
        self.timestamp = _fields.moment("timestamp", self.timestamp)
        for field, default in TEXT_DEFAULTS.items():
            setattr(self, field, _fields.text(field, getattr(self, field), default))
        self.status_code = _fields.integer("status_code", self.status_code)
        self.response_time = _fields.seconds("response_time", self.response_time)
        self.metadata = _fields.mapping("metadata", self.metadata)
        extra = _fields.mapping("extra", self.extra)
        self.extra = extra or None
        for taken in set(extra).intersection(_aliases(SecurityEvent)):
            raise _fields.refusal("extra", taken, "names that are not fields of an event")
        if self._idempotency_key is not None:
            self._idempotency_key = _fields.key("idempotency_key", self._idempotency_key)

    @property
    def idempotency_key(self) -> str:
        """The event's identity, as text; made when first asked for or captured."""
        return _key_text(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> SecurityEvent:
        """Build an event from any mapping with an `event_type`; unknown keys become `extra`.

        More forgiving than the constructor: a value of the wrong type is made to fit, and where
        it cannot be, it is kept as `metadata["<field>_given"]`.

        Raises:
            EventError: not a mapping, or no usable `event_type`.
        """
        return _fit_event(dict(_fields.mapping("event", mapping)))

    @classmethod
    def from_object(cls, source: object) -> SecurityEvent:
        """Build an event from any object with some of the attributes; its others become `extra`.

        Raises:
            EventError: the object has no usable `event_type`.
        """
        return _fit_event(_attributes(source, cls))


@attrs.define(kw_only=True)
class SecurityMetric:
    """One measured number.

    Args:
        metric_type: one of `METRIC_TYPES`.
        value: a finite number; seconds for response_time.
        tags: labels; values are sent as text.

    Raises:
        EventError: a field has the wrong type; names the field, what was given and what is allowed.
    """

    _idempotency_key: str | bytes | None = _field(None, repr=False, eq=False)
    timestamp: dt.datetime = _field(factory=_now)
    metric_type: str = _field()
    value: float = _field()
    endpoint: str | None = _field(None)
    tags: dict[str, str] = _field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if type(self.metric_type) is not str or self.metric_type not in METRIC_TYPES:
            self.metric_type = _fields.one_of("metric_type", self.metric_type, METRIC_TYPES)
        if type(self.value) is not float or not math.isfinite(self.value):
            self.value = _fields.finite("value", self.value)
        if type(self.timestamp) is not dt.datetime:
            self.timestamp = _fields.moment("timestamp", self.timestamp)
        if type(self.endpoint) is not str:
            self.endpoint = _fields.text("endpoint", self.endpoint, None)
        if type(self.tags) is not dict:
            self.tags = _fields.mapping("tags", self.tags)
        if self._idempotency_key is not None:
            self._idempotency_key = _fields.key("idempotency_key", self._idempotency_key)

    @property
    def idempotency_key(self) -> str:
        """The metric's identity, as text; made when first asked for or captured."""
        return _key_text(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> SecurityMetric:
        """Build a metric from any mapping with `metric_type` and `value`; others are left out.

        Raises:
            EventError: not a mapping, an unknown metric or no finite value.
        """
        return _fit_metric(dict(_fields.mapping("metric", mapping)))

    @classmethod
    def from_object(cls, source: object) -> SecurityMetric:
        """Build a metric from any object with its attributes.

        Raises:
            EventError: an unknown metric or no finite value.
        """
        return _fit_metric(_attributes(source, cls))


def coerce(source: object) -> SecurityEvent | SecurityMetric:
    """Build an event or a metric from a mapping or an object that looks like one.

    Raises:
        EventError: it looks like neither.
    """
    if isinstance(source, Mapping):
        known = dict(_fields.mapping("event", source))
        return _fit_event(known) if "event_type" in known else _fit_metric(known)
    if getattr(source, "event_type", None) is not None:
        return SecurityEvent.from_object(source)
    if getattr(source, "metric_type", None) is not None:
        return SecurityMetric.from_object(source)
    raise EventError(
        f"event: given {describe(source)}, allowed: SecurityEvent, SecurityMetric, or a mapping "
        "or object with event_type or metric_type"
    )


def _key_text(owner: SecurityEvent | SecurityMetric) -> str:
    key = owner._idempotency_key
    if key is None:
        key = owner._idempotency_key = new_key()
    return format_key(key) if isinstance(key, bytes) else key


@lru_cache(maxsize=16)
def _aliases(cls: type) -> frozenset[str]:
    return frozenset(field.alias or field.name for field in attrs.fields(cls))


def _attributes(source: object, cls: type) -> dict[str, Any]:
    names = _aliases(cls) - {"extra"}
    found = {name: value for name in names if (value := _attribute(source, name)) is not _ABSENT}
    others = getattr(source, "__dict__", None) or {}
    more = _attribute(source, "model_extra")  # pydantic's name for fields it does not know
    if isinstance(more, Mapping):
        others = {**others, **more}
    more_names = [name for name in others if name not in names and not name.startswith("_")]
    return found | {name: others[name] for name in more_names}


_ABSENT = object()


def _attribute(source: object, name: str) -> Any:
    try:
        return getattr(source, name, _ABSENT)
    except Exception:  # a property of the application's: the event can do without it
        return _ABSENT


def _fit_event(given: dict[Any, Any]) -> SecurityEvent:
    """Make `given` fit the constructor; keep beside it what cannot be made to fit."""
    fitted: dict[str, Any] = {"event_type": _fit_text(given.pop("event_type", None))}
    misfits: dict[str, Any] = {}
    for name in [name for name in given if name in _FITTED]:
        value = given.pop(name)
        try:
            fitted[name] = _FITTERS.get(name, _fit_text)(value)
        except Exception:  # beside what is refused, the value's own class may raise anything
            misfits[f"{name}_given"] = value
    metadata = given.pop("metadata", None)
    fitted["metadata"] = {**_mapping_or(metadata, "metadata_given"), **misfits}
    extra = {**_mapping_or(given.pop("extra", None), "extra_given"), **given}
    taken = _aliases(SecurityEvent).intersection(extra)
    if taken:  # fields of an event are no extra ones; keep what was given all the same
        extra["extra_given"] = {name: extra.pop(name) for name in sorted(taken)}
    return SecurityEvent(**fitted, extra=extra or None)


def _fit_metric(given: dict[Any, Any]) -> SecurityMetric:
    known = {name: value for name, value in given.items() if name in _aliases(SecurityMetric)}
    for name in ("metric_type", "value"):
        if name not in known:
            raise EventError(f"{name}: missing; a metric needs metric_type and value")
    if known.get("endpoint") is not None:
        known["endpoint"] = _fit_text(known["endpoint"])
    if not isinstance(known["value"], (int, float)):
        with suppress(EventError, ValueError):
            known["value"] = _fit_seconds(known["value"])
    return SecurityMetric(**known)


def _fit_text(value: object) -> str | None:
    fitted = plain(value)
    return fitted if fitted is None or type(fitted) is str else str(fitted)


def _fit_number(value: object) -> Any:
    fitted = plain(value)
    if type(fitted) is str and len(fitted) > _NUMBER_KEPT:
        raise ValueError("too long for a number")
    return fitted


def _fit_integer(value: object) -> int | None:
    fitted = _fit_number(value)
    if type(fitted) is float and fitted.is_integer():
        return int(fitted)
    return int(fitted) if type(fitted) is str else _fields.integer("integer", fitted)


def _fit_seconds(value: object) -> float | None:
    fitted = _fit_number(value)
    return float(fitted) if type(fitted) is str else _fields.seconds("number", fitted)


def _mapping_or(value: object, name: str) -> dict[Any, Any]:
    fits = value is None or isinstance(value, Mapping)
    return _fields.mapping(name, value) if fits else {name: value}


#: The fields of an event that are made to fit one by one.
_FITTED = _aliases(SecurityEvent) - {"event_type", "metadata", "extra"}
_FITTERS: dict[str, Any] = {
    "timestamp": as_datetime,
    "status_code": _fit_integer,
    "response_time": _fit_seconds,
    "idempotency_key": partial(_fields.key, "idempotency_key"),
}
