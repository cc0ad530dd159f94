"""From a captured value to bytes: encoded once, soon after capture, and never again.

Owns: the wire form of single values (WIRE.md 2) and `Record`. In: the fields taken out of an
event or metric. Out: a `Record` whose body is one strict JSON object. Pure.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID, uuid5

import attrs

from guardagent._ids import UUID_TEXT, format_key
from guardagent.errors import EncodeError, TooLargeError
from guardagent.events import TEXT_DEFAULTS
from guardagent.fields import Fields, Item, Kind, named
from guardagent.plain import describe, plain, wire_time
from guardagent.quick import STATUS_MAX, Quick
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
_NUMBERS = ("status_code", "response_time")
#: Characters of one event that are searched for credentials; about 20 ms at the very worst.
_TEXT_SEARCHED = 65_536
_TOO_MUCH = "[truncated: too much text in one event]"
#: Bytes kept of a mapping that is too large as a whole.
_SMALL = 16_384
_TOO_LARGE = {"[truncated]": "larger than a batch may be"}

_EVENT_FIELDS = {"idempotency_key", "timestamp", *_TEXTS, *_NUMBERS}
_METRIC_FIELDS = {"idempotency_key", "timestamp", "metric_type", "value", "endpoint"}

Dumps = Callable[[Any], bytes]


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
        self._quick = Quick(
            redactor, max_bytes, self._dumps, writes_times=self._dumps is _dumps_orjson
        ).encode
        self._notes: dict[str, str] = {}
        self._allowance = _TEXT_SEARCHED

    def record(self, item: Item, created_at: float) -> Record:
        """Encode what was captured.

        Raises:
            TooLargeError: it stays too large however much is cut.
            EncodeError: it cannot be written at all, or it is a metric whose value or type was
                spoilt after it was built.
        """
        kind = item[0]
        body = self._quick(item) if kind == "events" else None
        if body is None:
            self._notes.clear()
            self._allowance = _TEXT_SEARCHED
            fields = named(item)
            self._identify(fields, created_at)
            body = self._event(fields) if kind == "events" else self._metric(fields)
        return Record(kind, body, created_at)

    def _event(self, fields: Fields) -> bytes:
        return self._fit(self._careful(fields), "metadata")

    def _metric(self, fields: Fields) -> bytes:
        value = plain(fields["value"])
        if type(value) not in (int, float) or type(fields["metric_type"]) is not str:
            raise EncodeError(f"value: given {describe(fields['value'])}, allowed: a finite number")
        fields["value"] = value
        if fields["endpoint"] is not None:
            fields["endpoint"] = self._text(fields["endpoint"])
        tags = self._tree(fields["tags"])
        fields["tags"] = {name: self._tag(tag) for name, tag in tags.items()}
        return self._fit(fields, "tags")

    def _identify(self, fields: Fields, created_at: float) -> None:
        key = fields["idempotency_key"]
        if type(key) is bytes:
            fields["idempotency_key"] = format_key(key)
        elif not UUID_TEXT.fullmatch(key):
            # The backend refuses a whole batch for one key that is no UUID; the same text always
            # gives the same one.
            fields["idempotency_key"] = str(uuid5(_KEY_NAMESPACE, key))
            self._note("idempotency_key", key)
        moment = fields["timestamp"]
        try:
            fields["timestamp"] = wire_time(moment)
        except Exception:  # out of range, spoilt, or a tzinfo of the application's that raises
            self._note("timestamp", moment)
            made = dt.datetime.fromtimestamp(created_at, dt.timezone.utc)
            fields["timestamp"] = wire_time(made)

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
        if type(number) in kinds and (name != "status_code" or 0 <= number <= STATUS_MAX):
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
