"""What a body must look like (WIRE.md 2 and 3): pure checks that list everything wrong with it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from guardagent.collector import kinds
from guardagent.collector.kinds import Kind, or_null, shown
from guardagent.events import METRIC_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MAX_PROBLEMS",
    "STATUS_NAMES",
    "batch_problems",
    "envelope_problems",
    "sealed_problems",
    "status_problems",
]

#: How many problems one answer lists; the rest is told as a number.
MAX_PROBLEMS = 20

#: What an agent may say of itself (WIRE.md 3).
STATUS_NAMES = frozenset({"healthy", "degraded", "failed"})


@attrs.frozen
class _Field:
    """One key of an object, what is allowed in it, and whether it must be there."""

    name: str
    kind: Kind
    required: bool = True


def batch_problems(body: object, *, filled: str) -> list[str]:
    """List what is wrong with a batch; an empty list means it can be taken.

    A key that may be null, or that WIRE.md gives a default, may be absent; keys it does not name
    are taken. `filled` is the array that may hold something, "events" or "metrics".
    """
    return _bounded(_in_batch(body, filled))


def envelope_problems(body: object) -> list[str]:
    """List what is wrong with the envelope of a sealed batch (WIRE.md 5)."""
    return _bounded(_in_object(body, _ENVELOPE, "body", ""))


def sealed_problems(payload: object) -> list[str]:
    """List what is wrong with what was sealed: events and metrics, both may hold something."""
    return _bounded(_in_sealed(payload))


def status_problems(body: object) -> list[str]:
    """List what is wrong with a status report; an empty list means it can be taken."""
    return _bounded(_in_object(body, _STATUS, "body", ""))


def _bounded(problems: Iterator[str]) -> list[str]:
    listed = list(islice(problems, MAX_PROBLEMS))
    more = sum(1 for _ in problems)
    return [*listed, f"and {more} more"] if more else listed


def _in_batch(body: object, filled: str) -> Iterator[str]:
    yield from _in_object(body, _BATCH, "body", "")
    if not isinstance(body, dict):
        return
    for name in ("events", "metrics"):
        items = body.get(name)
        if not isinstance(items, list):
            continue
        if items and name != filled:
            yield _problem(name, items, f"an empty array at the address for {filled}")
            continue
        yield from _in_items(name, items)


def _in_sealed(payload: object) -> Iterator[str]:
    yield from _in_object(payload, _SEALED, "payload", "")
    if isinstance(payload, dict):
        for name in ("events", "metrics"):
            items = payload.get(name)
            yield from _in_items(name, items if isinstance(items, list) else [])


def _in_items(name: str, items: list[Any]) -> Iterator[str]:
    for index, item in enumerate(items):
        yield from _in_item(name, index, item)


def _in_item(name: str, index: int, item: Any) -> Iterator[str]:
    where = f"{name}[{index}]"
    if name == "events":
        yield from _in_object(item, _EVENT, where, f"{where}.")
        return
    yield from _in_object(item, _METRIC, where, f"{where}.")
    tags = item.get("tags") if isinstance(item, dict) else None
    if isinstance(tags, dict):
        for tag, value in tags.items():
            if not isinstance(value, str):
                yield _problem(f"{where}.tags[{shown(tag)}]", value, kinds.TEXT.allowed)


def _in_object(value: object, fields: tuple[_Field, ...], where: str, prefix: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _problem(where, value, kinds.OBJECT.allowed)
        return
    for field in fields:
        if field.name in value:
            given = value[field.name]
            if not field.kind.accepts(given):
                yield _problem(prefix + field.name, given, field.kind.allowed)
        elif field.required:
            yield f"{prefix}{field.name}: missing, allowed: {field.kind.allowed}"


def _problem(where: str, given: object, allowed: str) -> str:
    return f"{where}: given {shown(given)}, allowed: {allowed}"


def _optional(kind: Kind, *names: str) -> tuple[_Field, ...]:
    return tuple(_Field(name, kind, required=False) for name in names)


_BATCH = (
    _Field("project_id", kinds.TEXT),
    _Field("events", kinds.LIST),
    _Field("metrics", kinds.LIST),
    _Field("batch_id", kinds.KEY),
    _Field("created_at", kinds.TIME),
    _Field("compressed", kinds.FALSE),
    _Field("agent_version", kinds.TEXT),
    *_optional(or_null(kinds.TEXT), "guard_version", "guard_core_version"),
)

_ENVELOPE = (
    _Field("encrypted_payload", kinds.TEXT),
    _Field("batch_id", kinds.KEY),
    _Field("agent_version", kinds.TEXT),
    *_optional(or_null(kinds.TEXT), "guard_version", "guard_core_version"),
)

_SEALED = (_Field("events", kinds.LIST), _Field("metrics", kinds.LIST))

_EVENT = (
    _Field("idempotency_key", kinds.KEY),
    _Field("timestamp", kinds.TIME),
    _Field("event_type", kinds.NAME),
    *_optional(kinds.TEXT, "ip_address", "action_taken", "reason"),
    *_optional(or_null(kinds.TEXT), "country", "user_agent", "endpoint", "method"),
    *_optional(or_null(kinds.INTEGER), "status_code"),
    *_optional(or_null(kinds.NUMBER), "response_time"),
    *_optional(or_null(kinds.TEXT), "decorator_type", "rule_type"),
    *_optional(or_null(kinds.TEXT), "pattern_matched", "handler_name"),
    *_optional(kinds.OBJECT, "metadata"),
)

_METRIC = (
    # guard-agent sends its metrics without a key; the collector then derives one.
    *_optional(kinds.KEY, "idempotency_key"),
    _Field("timestamp", kinds.TIME),
    _Field("metric_type", kinds.one_of(METRIC_TYPES)),
    _Field("value", kinds.NUMBER),
    *_optional(or_null(kinds.TEXT), "endpoint"),
    *_optional(kinds.OBJECT, "tags"),
)

_STATUS = (
    _Field("timestamp", kinds.TIME),
    _Field("status", kinds.one_of(STATUS_NAMES)),
    _Field("uptime", kinds.NUMBER),
    _Field("events_sent", kinds.INTEGER),
    _Field("events_failed", kinds.INTEGER),
    _Field("buffer_size", kinds.INTEGER),
    *_optional(or_null(kinds.TIME), "last_flush"),
    *_optional(kinds.TEXTS, "errors"),
    # An agent of ours gives an account of its losses as well.
    *_optional(kinds.COUNTS, "dropped"),
)
