"""DynamicRules: what comes back from the backend (fields, types and defaults of WIRE.md 7)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from guardagent.errors import RulesError
from guardagent.plain import as_datetime, describe, wire_time

__all__ = ["DynamicRules"]

_now = partial(dt.datetime.now, dt.timezone.utc)


@attrs.frozen(kw_only=True)
class DynamicRules:
    """One version of the rules; a value that is replaced as a whole, never changed.

    Durations and windows are seconds. Read one with `from_mapping`.
    """

    rule_id: str = "default-rule"
    version: int = 1
    timestamp: dt.datetime = attrs.field(factory=_now)
    expires_at: dt.datetime | None = None
    ttl: int = 300
    ip_blacklist: list[str] = attrs.field(factory=list)
    ip_whitelist: list[str] = attrs.field(factory=list)
    ip_ban_duration: int = 3600
    blocked_countries: list[str] = attrs.field(factory=list)
    whitelist_countries: list[str] = attrs.field(factory=list)
    blocked_cloud_providers: set[str] = attrs.field(factory=set)
    blocked_user_agents: list[str] = attrs.field(factory=list)
    suspicious_patterns: list[str] = attrs.field(factory=list)
    global_rate_limit: int | None = None
    global_rate_window: int | None = None
    endpoint_rate_limits: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    enable_penetration_detection: bool | None = None
    enable_ip_banning: bool | None = None
    enable_rate_limiting: bool | None = None
    enable_rate_limit_auto_ban: bool | None = None
    auto_ban_threshold: int | None = None
    auto_ban_duration: int | None = None
    emergency_mode: bool = False
    emergency_whitelist_only: bool = False
    emergency_whitelist: list[str] = attrs.field(factory=list)
    message: str | None = None

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> DynamicRules:
        """Read a rules document; unknown keys are ignored.

        Raises:
            RulesError: not a mapping, or a value is wrong: the whole document is refused, and
                each bad field is named with what was given and what is allowed.
        """
        if not isinstance(document, Mapping):
            raise RulesError(f"rules: given {describe(document)}, allowed: a mapping")
        try:
            return _converter.structure(dict(document), cls)
        except ClassValidationError as error:
            raise RulesError("; ".join(_complaints(error))) from None

    def to_mapping(self) -> dict[str, Any]:
        """Return the document as JSON has it: the inverse of `from_mapping`."""
        document: dict[str, Any] = _converter.unstructure(self)
        return document


def _complaints(error: ClassValidationError) -> list[str]:
    return [f"{note.name}: {exception}" for exception, note in error.group_exceptions()[0]]


def _refuse(value: object, allowed: str) -> ValueError:
    return ValueError(f"given {describe(value)}, allowed: {allowed}")


def _text(value: Any, _type: Any) -> str:
    if isinstance(value, str):
        return value
    raise _refuse(value, "text")


def _whole(value: Any, _type: Any) -> int:
    """Read a whole number; as lax as the backend's own reader (20, "20", 20.0)."""
    try:
        if isinstance(value, str):
            return int(value.strip())
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    except ValueError:
        pass  # refused below, like everything that is no number
    raise _refuse(value, "a whole number")


def _positive(value: Any, _type: Any) -> int | None:
    number = None if value is None else _whole(value, int)
    if number is not None and number < 1:
        raise _refuse(value, "1 or more, or None")
    return number


_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("false", "0", "no", "off", "f", "n"), False),
}


def _truth(value: Any, _type: Any) -> bool:
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise _refuse(value, "true or false")


def _moment(value: Any, _type: Any) -> dt.datetime:
    try:
        moment = as_datetime(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)
        return aware.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError):
        raise _refuse(value, "ISO 8601 text or unix seconds") from None


def _texts(value: Any, _type: Any) -> list[str]:
    if not isinstance(value, (list, tuple, set)):
        raise _refuse(value, "a list of texts")
    return [_text(item, str) for item in value]


def _pairs(value: Any, _type: Any) -> dict[str, tuple[int, int]]:
    if not isinstance(value, Mapping):
        raise _refuse(value, "a mapping of path to [requests, window]")
    return {_text(path, str): _pair(pair) for path, pair in value.items()}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return _whole(value[0], int), _whole(value[1], int)
    raise _refuse(value, "a pair of whole numbers")


_converter = cattrs.Converter(detailed_validation=True)
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(int, _whole)
_converter.register_structure_hook(bool, _truth)
_converter.register_structure_hook(dt.datetime, _moment)
_converter.register_structure_hook_func(lambda kind: kind == list[str], _texts)
_converter.register_structure_hook_func(
    lambda kind: kind == set[str], lambda value, _type: set(_texts(value, _type))
)
_converter.register_structure_hook_func(lambda kind: kind == dict[str, tuple[int, int]], _pairs)
_converter.register_unstructure_hook(dt.datetime, wire_time)
_converter.register_unstructure_hook_func(lambda kind: kind == set[str], sorted)
_converter.register_unstructure_hook_func(lambda kind: kind == tuple[int, int], list)
_converter.register_structure_hook(
    DynamicRules,
    make_dict_structure_fn(
        DynamicRules,
        _converter,
        auto_ban_threshold=override(struct_hook=_positive),
        auto_ban_duration=override(struct_hook=_positive),
    ),
)
