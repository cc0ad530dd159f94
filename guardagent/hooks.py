"""The application's `before_send`, between fields and the values it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guardagent.events import SecurityEvent, SecurityMetric
from guardagent.fields import Fields, Kind, named, take_event, take_metric

__all__ = ["event_hook"]

_Hook = Callable[[Kind, Fields], Fields | None]


def event_hook(before_send: Callable[[Any], Any] | None) -> _Hook | None:
    """Return the hook as the drain calls it: fields in, fields or None out.

    Raises (when called):
        TypeError: the application's function returned something else than it may.
    """
    if before_send is None:
        return None

    def hook(kind: Kind, fields: Fields) -> Fields | None:
        given = before_send(_value(kind, fields))
        if given is None:
            return None
        if kind == "events" and isinstance(given, SecurityEvent):
            kept = named(take_event(given))
        elif kind == "metrics" and isinstance(given, SecurityMetric):
            kept = named(take_metric(given))
        else:
            raise TypeError(f"before_send returned {type(given).__name__}")
        # Identity and time belong to the event from its capture on, whatever the hook made of it.
        return {**kept, **{name: fields[name] for name in ("idempotency_key", "timestamp")}}

    return hook


def _value(kind: Kind, fields: Fields) -> SecurityEvent | SecurityMetric:
    cls: type[SecurityEvent | SecurityMetric]
    cls = SecurityEvent if kind == "events" else SecurityMetric
    value: SecurityEvent | SecurityMetric = cls.__new__(cls)
    for name, item in fields.items():
        # Set one by one: fields may have been spoilt after construction, which would refuse them.
        setattr(value, "_idempotency_key" if name == "idempotency_key" else name, item)
    return value
