"""The usual event from capture to bytes by the shortest way: nothing in it to hide, cut or correct.

Owns: how such an event is told from one that needs care. In: the item of a capture. Out: the bytes
that `encoding` would make of it with care, or None. Pure.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from typing import Any

import attrs

from guardagent._ids import UUID_TEXT, format_key
from guardagent.events import TEXT_DEFAULTS, SecurityEvent
from guardagent.fields import Fields, Item
from guardagent.plain import INT_MAX, INT_MIN, PLAIN_TYPES, wire_time
from guardagent.redaction import Redactor

__all__ = ["STATUS_MAX", "Quick"]

STATUS_MAX = 999_999
_SHAPES_KEPT = 1_000

_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "idempotency_key": (bytes, str),
    "timestamp": (dt.datetime,),
    "event_type": (str,),
    **{name: (str,) if none == "" else (str, _NONE) for name, none in TEXT_DEFAULTS.items()},
    "status_code": (int, _NONE),
    "response_time": (float, _NONE),
    "metadata": (dict,),
    "extra": (_NONE,),
}
#: What the values of an event may be, in their order in an item.
_SHAPE = tuple(_KINDS[field.name.lstrip("_")] for field in attrs.fields(SecurityEvent))

# Signs that a text in an encoded body may hold a credential or a quoted document. Looking for them
# in the body is ten times cheaper than looking into each text, and for a byte given as a number
# five times cheaper than for one given as bytes. What `redaction` learns to find has a sign here.
_EQUALS, _AT, _PERCENT, _QUOTE, _BACKSLASH, _COLON, _J, _K, _PLUS = b"=@%'\\:JK+"
#: The rest of the signs: a space, as it is or in a query, behind "bearer" or "basic" ...
_SPACED_SIGN = re.compile(rb" (?:(?<=[rR][eE][rR] )|(?<=[sS][iI][cC] ))")
_PLUS_SIGN = re.compile(rb"\+(?:(?<=[rR][eE][rR]\+)|(?<=[sS][iI][cC]\+))")
#: ... and what begins each of Unicode's other spaces.
_WIDE_SIGN = re.compile(rb"[\xc2\xe1-\xe3]")
#: Where the plus of the timestamp is, the first that can be.
_ZONE = len('{"idempotency_key":"","timestamp":"2026-11-28T12:00:00.000000') + 36
#: JSON's own colons, but for those of the metadata: one for each key, and three in the timestamp.
_COLONS = 17 + 3


class Quick:
    """Encodes the events that need no care.

    Used by one thread at a time.

    Args:
        redactor: the configuration's secrets and bounds.
        max_bytes: a larger body needs care.
        dumps: writes JSON.
        writes_times: `dumps` writes a UTC time as the wire has it, twenty times faster.
    """

    def __init__(
        self,
        redactor: Redactor,
        max_bytes: int,
        dumps: Callable[[Any], bytes],
        *,
        writes_times: bool,
    ) -> None:
        self._redactor = redactor
        self._max_bytes = max_bytes
        self._dumps = dumps
        self._writes_times = writes_times
        self._shapes: set[tuple[type, ...]] = set()

    def encode(self, item: Item) -> bytes | None:
        """Return the body of an event; None for one that needs care."""
        values = item[1]
        shape = tuple(map(type, values))
        if not (shape in self._shapes or self._learn(shape)):
            return None
        (
            key,
            moment,
            event_type,
            ip_address,
            country,
            user_agent,
            action_taken,
            reason,
            endpoint,
            method,
            status_code,
            response_time,
            decorator_type,
            rule_type,
            pattern_matched,
            handler_name,
            _,
            _,
        ) = values
        metadata = item[2]
        bound = self._redactor.max_text_bytes
        # The texts that whoever sends a request can make as long as he likes are looked at before
        # they are written whole, only to be cut.
        if (
            (status_code is not None and not 0 <= status_code <= STATUS_MAX)
            or (response_time is not None and not math.isfinite(response_time))
            or len(reason) > bound
            or (user_agent is not None and len(user_agent) > bound)
            or (endpoint is not None and len(endpoint) > bound)
            or (pattern_matched is not None and len(pattern_matched) > bound)
            or not self._is_clean(metadata)
            or not (type(key) is bytes or UUID_TEXT.fullmatch(key))
        ):
            return None
        try:
            if not (self._writes_times and moment.tzinfo is dt.timezone.utc and moment.microsecond):
                moment = wire_time(moment)
            body = self._dumps(
                {
                    "idempotency_key": format_key(key) if type(key) is bytes else key,
                    "timestamp": moment,
                    "event_type": event_type,
                    "ip_address": ip_address,
                    "country": country,
                    "user_agent": user_agent,
                    "action_taken": action_taken,
                    "reason": reason,
                    "endpoint": endpoint,
                    "method": method,
                    "status_code": status_code,
                    "response_time": response_time,
                    "decorator_type": decorator_type,
                    "rule_type": rule_type,
                    "pattern_matched": pattern_matched,
                    "handler_name": handler_name,
                    "metadata": metadata,
                }
            )
        except Exception:  # a lone surrogate, or a tzinfo of the application's that raises
            return None
        if (
            len(body) > self._max_bytes
            or _has_sign(body, _COLONS + len(metadata))
            or (len(body) > bound and self._has_long_text(values, metadata))
        ):
            return None
        return body

    def _learn(self, shape: tuple[type, ...]) -> bool:
        """Tell whether every value has its type; remember the shape so that it is asked once."""
        fits = len(shape) == len(_SHAPE) and all(map(_is_one_of, shape, _SHAPE))
        if fits and len(self._shapes) < _SHAPES_KEPT:
            self._shapes.add(shape)
        return fits

    def _is_clean(self, metadata: Fields) -> bool:
        """Tell whether a flat mapping can be sent as it is; texts are looked into later."""
        redactor = self._redactor
        if not redactor.shown.issuperset(metadata):
            for name in metadata:
                if type(name) is not str or redactor.hides(name) or name not in redactor.shown:
                    return False
        bound = redactor.max_text_bytes
        for value in metadata.values():
            kind = type(value)
            if kind is str:
                if len(value) > bound:
                    return False
            elif kind is int:
                if not INT_MIN <= value <= INT_MAX:
                    return False
            elif kind not in PLAIN_TYPES or (kind is float and not math.isfinite(value)):
                return False
        return True

    def _has_long_text(self, values: tuple[Any, ...], metadata: Fields) -> bool:
        short = self._redactor.short
        texts = [one for one in (*values, *metadata.values()) if type(one) is str]
        return any(len(text) > short for text in texts)


def _is_one_of(kind: type, kinds: tuple[type, ...]) -> bool:
    return kind in kinds


def _has_sign(body: bytes, colons: int) -> bool:
    """Tell whether a text in the body may hold a credential; `colons` are those of JSON itself."""
    return (
        _EQUALS in body
        or _AT in body
        or _PERCENT in body
        or _QUOTE in body
        or _BACKSLASH in body
        or _SPACED_SIGN.search(body) is not None
        or (body.rfind(_PLUS) > _ZONE and _PLUS_SIGN.search(body) is not None)
        or not (body.isascii() or _WIDE_SIGN.search(body) is None)
        or body.count(_COLON) != colons
        or (_J in body and b"eyJ" in body)
        or (_K in body and b"PRIVATE KEY-----" in body)
    )
