"""What `capture` takes out of an event: everything, copied, through functions cattrs generates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
from cattrs.fns import identity
from cattrs.gen import make_dict_unstructure_fn, override

from guardagent.events import SecurityEvent, SecurityMetric
from guardagent.plain import converter
from guardagent.snapshot import snapshot

__all__ = ["Fields", "Kind", "event_fields", "metric_fields"]

Kind = Literal["events", "metrics"]
Fields = dict[str, Any]


def _overrides(cls: type, **hooks: Callable[[Any], Any]) -> dict[str, Any]:
    # Each field is taken as it is: conversion happens later, on the agent's thread.
    return {
        field.name: override(unstruct_hook=hooks.get(field.name, identity), rename=field.alias)
        for field in attrs.fields(cls)
    }


def _optional(extra: Any) -> Fields | None:
    return None if extra is None else snapshot(extra)


#: Take everything out of an event, copied; the larger part of a capture.
event_fields: Callable[[SecurityEvent], Fields] = make_dict_unstructure_fn(
    SecurityEvent,
    converter,
    **_overrides(SecurityEvent, metadata=snapshot, extra=_optional),
)
#: Take everything out of a metric, copied.
metric_fields: Callable[[SecurityMetric], Fields] = make_dict_unstructure_fn(
    SecurityMetric, converter, **_overrides(SecurityMetric, tags=snapshot)
)
