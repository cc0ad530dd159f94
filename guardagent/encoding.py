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
from typing import Any, cast
from uuid import UUID, uuid5

import attrs

from guardagent._ids import format_key
from guardagent.errors import EncodeError, TooLargeError
from guardagent.events import TEXT_DEFAULTS
from guardagent.fields import Fields, Kind
from guardagent.plain import INT_MAX, INT_MIN, PLAIN_TYPES, describe, plain, wire_time
from guardagent.redaction import Redactor, with_keys

__all__ = [
    "Encoder",
    "Record",
    "dumps_function",
    "record_key",
]

#: Where values that could not be sent as they were are named.
NOTES = "_guardagent"
_NOTES_KEPT = 20
_SHAPES_KEPT = 1_000

# Signs that a text in an encoded body may hold a credential or a quoted document. Looking for them
# in the body is ten times cheaper than looking into each text, and for a byte given as a number
# five times cheaper than for one given as bytes.
_EQUALS, _AT, _PERCENT, _QUOTE, _BACKSLASH, _COLON, _J = b"=@%'\\:J"
_NBSP = 0xC2  # C2 A0 is a space that does not break
#: The rest of the signs: a space behind "bearer" or "basic", and a colon that is neither JSON's own
#: (those follow a quote) nor a clock's.
_SPACED_SIGN = re.compile(rb" (?:(?<=[rR][eE][rR] )|(?<=[sS][iI][cC] ))")
_COLON_SIGN = re.compile(rb":(?<=[^\"0-9]:)")

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEY_NAMESPACE = UUID(int=0x67756172646167656E740000)
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
    **{name: (str,) if none == "" else (str, type(None)) for name, none in _TEXTS.items()},
    "status_code": (int, type(None)),
    "response_time": (float, type(None)),
    "metadata": (dict,),
    "extra": (type(None),),
}
_NUMBERS = ("status_code", "response_time")
_STATUS_MAX = 999_999
#: Texts that whoever sends a request can make as long as he likes.
_FOREIGN = ("user_agent", "endpoint", "reason", "pattern_matched")
#: Characters of one event that are searched for credentials; about 20 ms at the very worst.
_TEXT_SEARCHED = 65_536
_TOO_MUCH = "[truncated: too much text in one event]"
#: Bytes kept of a mapping that is too large as a whole.
_SMALL = 16_384
_TOO_LARGE = {"[truncated]": "larger than a batch may be"}

_EVENT_FIELDS = {"idempotency_key", "timestamp", *_TEXTS, *_NUMBERS}
_METRIC_FIELDS = {"idempotency_key", "timestamp", "metric_type", "value", "endpoint"}

Dumps = Callable[[Any], bytes]

#: Texts that were made here.
_OURS = {"idempotency_key", "timestamp"}
#: Fields of bounded size once they are cut.
_FIXED = {*_SHAPE, *_OURS, "metric_type", "value"}


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
    0 if _orjson is None else _orjson.OPT_PASSTHROUGH_SUBCLASS | _orjson.OPT_PASSTHROUGH_DATACLASS
)


def _json_encoder() -> Callable[[Any], str]:
    """Return what `JSONEncoder.encode` does, without making its C encoder anew for each call."""
    whole = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C accelerator
        return whole.encode
    ascii_text = json.encoder.encode_basestring_ascii
    held = make(None, whole.default, ascii_text, None, ":", ",", False, False, False)
    return lambda value: "".join(held(value, 0))


_json_encode = _json_encoder()


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
        self._allowance = _TEXT_SEARCHED
        self._shapes: set[tuple[type, ...]] = set()

    def event(self, fields: Fields, created_at: float) -> Record:
        """Encode an event's fields, which are changed on the way.

        Raises:
            TooLargeError: it stays too large however much is cut.
            EncodeError: it cannot be written at all.
        """
        self._notes.clear()
        self._allowance = _TEXT_SEARCHED
        self._identify(fields, created_at)
        body = None if self._notes else self._quick(fields)
        if body is None:
            body = self._fit(self._careful(fields), "metadata")
        return Record("events", body, created_at)

    def metric(self, fields: Fields, created_at: float) -> Record:
        """Encode a metric's fields, which are changed on the way.

        Raises:
            EncodeError: its value or type was spoilt after it was built.
            TooLargeError: it stays too large however much is cut.
        """
        self._notes.clear()
        self._allowance = _TEXT_SEARCHED
        self._identify(fields, created_at)
        value = plain(fields["value"])
        if type(value) not in (int, float) or type(fields["metric_type"]) is not str:
            raise EncodeError(f"value: given {describe(fields['value'])}, allowed: a finite number")
        fields["value"] = value
        if fields["endpoint"] is not None:
            fields["endpoint"] = self._text(fields["endpoint"])
        tags = self._tree(fields["tags"])
        fields["tags"] = {name: self._tag(tag) for name, tag in tags.items()}
        return Record("metrics", self._fit(fields, "tags"), created_at)

    def _identify(self, fields: Fields, created_at: float) -> None:
        key = fields["idempotency_key"]
        if type(key) is bytes:
            fields["idempotency_key"] = format_key(key)
        elif not _UUID.fullmatch(key):
            # The backend refuses a whole batch for one key that is no UUID; the same text always
            # gives the same one.
            fields["idempotency_key"] = str(uuid5(_KEY_NAMESPACE, key))
            self._note("idempotency_key", key)
        moment = fields["timestamp"]
        # orjson writes such a time in the same form, twenty times faster.
        if not (
            self._writes_times
            and type(moment) is dt.datetime
            and moment.tzinfo is dt.timezone.utc
            and moment.microsecond
        ):
            try:
                fields["timestamp"] = wire_time(moment)
            except Exception:  # out of range, spoilt, or a tzinfo of the application's that raises
                self._note("timestamp", moment)
                made = dt.datetime.fromtimestamp(created_at, dt.timezone.utc)
                fields["timestamp"] = wire_time(made)

    def _quick(self, fields: Fields) -> bytes | None:
        """Encode an event that needs no care, the usual one; None for any other."""
        shape = tuple(map(type, fields.values()))
        if not (shape in self._shapes or self._learn(shape, fields)):
            return None
        code, seconds = fields["status_code"], fields["response_time"]
        if (
            (code is not None and not 0 <= code <= _STATUS_MAX)
            or (seconds is not None and not math.isfinite(seconds))
            or not self._is_clean(fields["metadata"])
        ):
            return None
        bound = self._redactor.max_text_bytes
        for name in _FOREIGN:
            text = fields[name]
            if text is not None and len(text) > bound:
                return None  # before it is written whole, only to be cut
        extra = fields.pop("extra")
        try:
            body = self._dumps(fields)
        except (TypeError, ValueError):  # a lone surrogate
            body = b""
        # A colon for each key and three in the timestamp: any other stands in a text.
        colons = len(fields) + len(fields["metadata"]) + 3
        if (
            not body
            or len(body) > self._max_bytes
            or _has_sign(body, colons)
            or (len(body) > bound and self._has_long_text(fields))
        ):
            fields["extra"] = extra
            return None
        return body

    def _learn(self, shape: tuple[type, ...], fields: Fields) -> bool:
        """Tell whether every field has its type; remember the shape so that it is asked once."""
        fits = all(type(fields[name]) in kinds for name, kinds in _SHAPE.items())
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

    def _has_long_text(self, fields: Fields) -> bool:
        short = self._redactor.short
        values = [*fields.values(), *fields["metadata"].values()]
        return any(type(value) is str and len(value) > short for value in values)

    def _careful(self, fields: Fields) -> Fields:
        """Return every field as it can be sent, each looked at once."""
        made = {name: fields[name] for name in ("idempotency_key", "timestamp")}
        for name, none in _TEXTS.items():
            value = fields[name]
            made[name] = none if value is None else self._text(value)
            if name == "method":
                made |= {number: self._number(number, fields[number]) for number in _NUMBERS}
        metadata = self._tree(fields["metadata"])
        made["metadata"] = metadata if type(metadata) is dict else {}
        extra = self._tree(fields.get("extra") or {})
        for name, value in extra.items():
            made[name if name not in made else f"{name}_given"] = value
        if self._notes:
            made["metadata"][NOTES] = dict(self._notes)
        return made

    def _number(self, name: str, given: Any) -> float | None:
        """Return a number the backend takes, or None with a note of what it was."""
        number = plain(given)
        kinds = (int,) if name == "status_code" else (int, float)
        if type(number) in kinds and (name != "status_code" or 0 <= number <= _STATUS_MAX):
            return cast("float", number)
        if given is not None:
            self._note(name, given)
        return None

    def _fit(self, fields: Fields, large: str) -> bytes:
        """Encode; give up what alone can be large (metadata, tags, extra) before the event."""
        body = self._write(fields)
        if len(body) > self._max_bytes:
            known = _METRIC_FIELDS if large == "tags" else _EVENT_FIELDS
            kept = {name: value for name, value in fields.items() if name in known}
            body = self._write({**kept, large: self._small_part(fields[large])})
        if len(body) > self._max_bytes:
            raise TooLargeError(f"{len(body)} bytes, allowed: {self._max_bytes}")
        return body

    def _small_part(self, mapping: Fields) -> Fields:
        """Return what is small of a mapping that is too large as a whole."""
        room = min(_SMALL, self._max_bytes // 8)
        kept: Fields = {}
        for name, value in mapping.items():
            size = len(self._write({name: value}))
            if size <= room:
                room -= size
                kept[name] = value
        return {**kept, **_TOO_LARGE}

    def _write(self, fields: Fields) -> bytes:
        try:
            return self._dumps(fields)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"cannot be written as JSON ({type(error).__name__})") from error

    def _text(self, value: Any) -> str:
        if type(value) is not str:
            value = plain(value)
            value = "" if value is None else str(value)
        return self._look_into(value)

    def _look_into(self, text: str) -> str:
        """Redact a text, while the event's allowance lasts: an attacker may send a thousand."""
        self._allowance -= min(len(text), self._redactor.max_text_bytes)
        return self._redactor.text(text) if self._allowance >= 0 else _TOO_MUCH

    def _tag(self, value: Any) -> str:
        if type(value) is str:
            return value
        if value is None or type(value) in (bool, dict, list):
            return self._look_into(json.dumps(value, ensure_ascii=False))
        return str(value)

    def _tree(self, tree: Any) -> Any:
        named = with_keys(tree, self._key)
        return self._redactor.tree(named, self._leaf) if type(named) in (dict, list) else named

    def _key(self, key: Any) -> str:
        """Write a mapping's key as text, as JSON wants it."""
        if type(key) is tuple:
            key = "(" + ", ".join(str(plain(part)) for part in key[:8]) + ")"
        written = key if type(key) is str else plain(key)
        return self._redactor.key(written if type(written) is str else json.dumps(written))

    def _leaf(self, name: str, given: Any) -> Any:
        value = given if type(given) is str else plain(given)
        if value is None and given is not None:
            self._note(name, given)
        return self._look_into(value) if type(value) is str else value

    def _note(self, name: str, given: Any) -> None:
        if len(self._notes) < _NOTES_KEPT:
            self._notes[name] = describe(given)


def _has_sign(body: bytes, colons: int) -> bool:
    """Tell whether a text in the body may hold a credential; `colons` are those of JSON itself."""
    return (
        _EQUALS in body
        or _AT in body
        or _PERCENT in body
        or _QUOTE in body
        or _BACKSLASH in body
        or _NBSP in body
        or _SPACED_SIGN.search(body) is not None
        or (body.count(_COLON) != colons and _COLON_SIGN.search(body) is not None)
        or (_J in body and b"eyJ" in body)
    )
