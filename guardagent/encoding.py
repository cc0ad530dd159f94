"""From a captured value to bytes: encoded once, soon after capture, and never again.

Owns: the wire form of single values (WIRE.md 2) and `Record`. In: the fields taken out of an
event or metric. Out: a `Record` whose body is one strict JSON object. Pure.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable
from typing import Any

import attrs

from guardagent._ids import format_key
from guardagent.errors import EncodeError, TooLargeError
from guardagent.events import TEXT_DEFAULTS
from guardagent.fields import Fields, Kind
from guardagent.plain import PLAIN_TYPES, describe, plain, wire_time
from guardagent.redaction import Redactor

__all__ = [
    "Encoder",
    "Record",
    "dumps_function",
    "record_key",
]

#: Where values that could not be sent as they were are named.
NOTES = "_guardagent"
_NOTES_KEPT = 20
_NAME_KEPT = 256

#: Everything but the signs that a text in an encoded body may hold a credential or a quoted
#: document. Deleting it from the body in one go is ten times cheaper than looking into each text.
_NO_SIGN = bytes(set(range(256)) - set(b"=@%\\"))
#: The rest of the signs: a space behind ":", "bearer" or "basic".
_SPACED_SIGN = re.compile(rb" (?:(?<=: )|(?<=[rR][eE][rR] )|(?<=[sS][iI][cC] ))")

_KEY_STARTS = len('{"idempotency_key":"')


@attrs.define(eq=False, weakref_slot=False)
class Record:
    """One encoded event or metric.

    Args:
        kind: which list of the batch it belongs to.
        body: its JSON object, UTF-8.
        created_at: unix seconds of its encoding, for `max_event_age`.
    """

    kind: Kind
    body: bytes
    created_at: float


def record_key(body: bytes) -> str:
    """Return the idempotency key; every body begins with it."""
    return body[_KEY_STARTS : body.index(b'"', _KEY_STARTS)].decode("ascii")


_TEXTS: dict[str, str | None] = {"event_type": "", **TEXT_DEFAULTS}
_SHAPE: dict[str, tuple[type, ...]] = {
    **{name: (str, type(None)) for name in _TEXTS},
    "status_code": (int, type(None)),
    "response_time": (float, type(None)),
}

Dumps = Callable[[Any], bytes]

#: Fields of bounded size once they are cut.
_FIXED = {*_SHAPE, "idempotency_key", "timestamp", "metric_type", "value"}


def _load_orjson() -> Any:
    try:
        import orjson
    except ImportError:  # the extra `fast` is not installed
        return None
    return orjson


_orjson = _load_orjson()


def dumps_function(name: str | None = None) -> Dumps:
    """Return the encoder to use: "orjson" or "json"; the fastest installed one by default."""
    return _dumps_json if _orjson is None or name == "json" else _dumps_orjson


def _dumps_orjson(value: Any) -> bytes:
    # Copied, because orjson leaves its whole buffer, 8 KiB at least, behind the bytes it returns.
    return b"%b" % _orjson.dumps(value, None, _ORJSON_OPTIONS)


def _dumps_json(value: Any) -> bytes:
    return _json_encode(value).encode("ascii")


_ORJSON_OPTIONS = (
    0
    if _orjson is None
    else _orjson.OPT_PASSTHROUGH_SUBCLASS
    | _orjson.OPT_PASSTHROUGH_DATACLASS
)
_json_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


class Encoder:
    """Turns fields into records: redacted, cut to size, strict JSON.

    Used by one thread at a time.

    Args:
        redactor: the configuration's secrets and bounds.
        max_bytes: no record's body is larger; one that cannot be cut to fit is refused.
        dumps: from `dumps_function`.
    """

    def __init__(self, redactor: Redactor, max_bytes: int, dumps: Dumps | None = None) -> None:
        self._redactor = redactor
        self._max_bytes = max_bytes
        self._dumps = dumps or dumps_function()
        self._writes_times = self._dumps is _dumps_orjson
        self._notes: dict[str, str] = {}
        self._shapes: set[tuple[type, ...]] = set()

    def event(self, fields: Fields, created_at: float) -> Record:
        """Encode an event's fields, which are changed on the way.

        Raises:
            TooLargeError: it stays too large however much is cut.
            EncodeError: it cannot be written at all.
        """
        self._notes.clear()
        self._identify(fields)
        extra = fields.pop("extra", None)
        shape = tuple(map(type, fields.values()))
        seconds = fields["response_time"]
        if not (shape in self._shapes or self._learn(shape, fields)) or (
            seconds is not None and not math.isfinite(seconds)
        ):
            self._repair(fields)
        metadata = fields["metadata"]
        if metadata and not self._is_clean(metadata):
            fields["metadata"] = self._tree(metadata)
        self._add_notes(fields)
        if extra:
            fields.update((k, v) for k, v in self._tree(dict(extra)).items() if k not in fields)
        return Record("events", self._write(fields), created_at)

    def metric(self, fields: Fields, created_at: float) -> Record:
        """Encode a metric's fields, which are changed on the way.

        Raises:
            EncodeError: its value or type was spoilt after it was built.
            TooLargeError: it stays too large however much is cut.
        """
        self._notes.clear()
        self._identify(fields)
        value = plain(fields["value"])
        if type(value) not in (int, float) or type(fields["metric_type"]) is not str:
            raise EncodeError(f"value: given {describe(fields['value'])}, allowed: a finite number")
        fields["value"] = value
        tags = self._tree(fields["tags"])
        fields["tags"] = {name: _tag(tag) for name, tag in tags.items()}
        fields["endpoint"] = self._text("endpoint", fields["endpoint"], None)
        return Record("metrics", self._write(fields), created_at)

    def _identify(self, fields: Fields) -> None:
        key = fields["idempotency_key"]
        if type(key) is bytes:
            fields["idempotency_key"] = format_key(key)
        moment = fields["timestamp"]
        try:
            # orjson writes such a time in the same form, twenty times faster.
            if not (self._writes_times and moment.tzinfo is dt.timezone.utc and moment.microsecond):
                fields["timestamp"] = wire_time(moment)
        except (AttributeError, TypeError, OverflowError, ValueError) as error:
            raise EncodeError(f"timestamp: given {describe(moment)}") from error

    def _learn(self, shape: tuple[type, ...], fields: Fields) -> bool:
        """Tell whether every field has its type; remember the shape so that it is asked once."""
        fits = all(type(fields[name]) in kinds for name, kinds in _SHAPE.items())
        if fits and len(self._shapes) < 1_000:
            self._shapes.add(shape)
        return fits

    def _is_clean(self, metadata: Fields) -> bool:
        """Tell whether a flat mapping can be sent as it is; texts are looked into later."""
        if not self._redactor.shown.issuperset(metadata):
            hides = self._redactor.hides
            if not all(type(name) is str and name.isascii() and not hides(name) for name in metadata):
                return False
        for value in metadata.values():
            kind = type(value)
            if kind not in PLAIN_TYPES or (kind is float and not math.isfinite(value)):
                return False
        return True

    def _write(self, fields: Fields) -> bytes:
        try:
            body = self._dumps(fields)
        except (TypeError, ValueError, RecursionError):
            body = b""
        if not body or _has_sign(body) or self._has_long_text(body, fields):
            body = self._write_with_care(fields)
        if len(body) > self._max_bytes:
            body = self._shrink(fields)
        return body

    def _has_long_text(self, body: bytes, fields: Fields) -> bool:
        if len(body) <= self._redactor.max_text_bytes:
            return False
        short = self._redactor.short
        values = [*fields.values(), *(fields.get("metadata") or {}).values()]
        return any(type(value) is str and len(value) > short for value in values)

    def _write_with_care(self, fields: Fields) -> bytes:
        for name, value in fields.items():
            if name in _SHAPE or type(value) is str and name not in ("idempotency_key", "timestamp"):
                fields[name] = self._leaf(name, value)
            elif type(value) in (dict, list):
                fields[name] = self._tree(value)
        self._add_notes(fields)
        try:
            return self._dumps(fields)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"cannot be written as JSON ({type(error).__name__})") from error

    def _repair(self, fields: Fields) -> None:
        """Give fields that were changed after construction their type back."""
        for name, default in _TEXTS.items():
            fields[name] = self._text(name, fields[name], default)
        for name in ("status_code", "response_time"):
            value = plain(fields[name])
            kinds = (int,) if name == "status_code" else (int, float)
            if type(value) not in kinds:
                if fields[name] is not None:
                    self._note(name, fields[name])
                value = None
            fields[name] = value
        if type(fields["metadata"]) is not dict:
            fields["metadata"] = {}

    def _text(self, name: str, value: Any, default: str | None) -> str | None:
        if value is None:
            return default
        if type(value) is not str:
            value = str(plain(value))
        return self._redactor.text(value)

    def _shrink(self, fields: Fields) -> bytes:
        """Give up metadata and extra fields, which alone can be large, before giving up the event."""
        large = "metadata" if "event_type" in fields else "tags"
        kept = {name: value for name, value in fields.items() if name in _FIXED}
        kept[large] = {"[truncated]": "larger than a batch may be"}
        body = self._dumps(kept)
        if len(body) > self._max_bytes:
            raise TooLargeError(f"{len(body)} bytes, allowed: {self._max_bytes}")
        return body

    def _tree(self, tree: Any) -> Any:
        return self._redactor.tree(_text_keys(tree, self._redactor), self._leaf)

    def _leaf(self, name: str, value: Any) -> Any:
        kind = type(value)
        if kind is not str:
            given = value
            value = plain(value)
            if value is None and given is not None:
                self._note(name, given)
        return self._redactor.text(value) if type(value) is str else value

    def _add_notes(self, fields: Fields) -> None:
        if self._notes and "metadata" in fields:
            fields["metadata"][NOTES] = dict(self._notes)

    def _note(self, name: str, given: Any) -> None:
        if len(self._notes) < _NOTES_KEPT:
            self._notes[name] = describe(given)


def _has_sign(body: bytes) -> bool:
    signs = body.translate(None, _NO_SIGN)
    if signs and (signs.strip(b"\\") or b'\\"' in body or b"\\ud" in body):
        return True
    return _SPACED_SIGN.search(body) is not None


def _tag(value: Any) -> str:
    if type(value) is str:
        return value
    if value is None or type(value) in (bool, dict, list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _text_keys(value: Any, redactor: Redactor) -> Any:
    """Give every mapping text keys, as JSON wants them, without losing an item to a clash."""
    if type(value) is list:
        return [_text_keys(item, redactor) for item in value]
    if type(value) is not dict:
        return value
    named: Fields = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _key_text(key, redactor)
        name = name[:_NAME_KEPT]
        while name in named:
            name += "_"
        named[name] = _text_keys(item, redactor)
    return named


def _key_text(key: Any, redactor: Redactor) -> str:
    if type(key) is tuple:
        return "(" + ", ".join(str(plain(part)) for part in key[:8]) + ")"
    written = plain(key)
    return redactor.text(written if type(written) is str else json.dumps(written))
