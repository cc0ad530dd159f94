"""The application's `before_send`, between what was captured and the values it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guardagent.events import SecurityEvent, SecurityMetric
from guardagent.fields import Item, named, take_event, take_metric

__all__ = ["event_hook"]

_Hook = Callable[[Item], Item | None]


def event_hook(before_send: Callable[[Any], Any] | None) -> _Hook | None:
    """Return the hook as the drain calls it: what was captured in, the same or None out.

    Raises (when called):
        TypeError: the application's function returned something else than it may.
    """
    if before_send is None:
        return None

    def hook(item: Item) -> Item | None:
        kind, captured, _, _ = item
        given = before_send(_value(item))
        if given is None:
            return None
        if kind == "events" and isinstance(given, SecurityEvent):
            _, values, mapping, extra = take_event(given)
        elif kind == "metrics" and isinstance(given, SecurityMetric):
            _, values, mapping, extra = take_metric(given)
        else:
            raise TypeError(f"before_send returned {type(given).__name__}")
        # Identity and time belong to the event from its capture on, whatever the hook made of it:
        # the first two values.
        return kind, captured[:2] + values[2:], mapping, extra

    return hook


def _value(item: Item) -> SecurityEvent | SecurityMetric:
    cls: type[SecurityEvent | SecurityMetric]
    cls = SecurityEvent if item[0] == "events" else SecurityMetric
    value: SecurityEvent | SecurityMetric = cls.__new__(cls)
    for name, given in named(item).items():
        # Set one by one: fields may have been spoilt after construction, which would refuse them.
        setattr(value, "_idempotency_key" if name == "idempotency_key" else name, given)
    return value
