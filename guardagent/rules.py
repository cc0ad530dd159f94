"""DynamicRules: what comes back from the backend (fields, types and defaults of WIRE.md 7)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container, Mapping
from functools import cached_property, partial
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from guardagent import _lax
from guardagent.decisions import CHECKS, UNASKED, Decision, Judge, made_ready
from guardagent.errors import RulesError
from guardagent.plain import describe, wire_time

__all__ = ["DynamicRules"]

_now = partial(dt.datetime.now, dt.timezone.utc)

#: Entries of a field; together with the bound on a document they bound time and memory.
_NETWORKS_MAX = 250_000
_AGENTS_MAX = 5_000
_PATTERNS_MAX = 1_000
_PATHS_MAX = 10_000
_MOST = {
    "ip_blacklist": _NETWORKS_MAX,
    "ip_whitelist": _NETWORKS_MAX,
    "emergency_whitelist": _NETWORKS_MAX,
    "blocked_countries": 1_000,
    "whitelist_countries": 1_000,
    "blocked_cloud_providers": 1_000,
    "blocked_user_agents": _AGENTS_MAX,
    "suspicious_patterns": _PATTERNS_MAX,
}


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
        """Read a rules document, and make it ready for `decide`; unknown keys are ignored.

        Raises:
            RulesError: not a mapping, or a value is wrong: the whole document is refused, and
                each bad field is named with what was given and what is allowed.
        """
        if not isinstance(document, Mapping):
            raise RulesError(f"rules: given {describe(document)}, allowed: a mapping")
        try:
            rules = _converter.structure(dict(document), cls)
        except ClassValidationError as error:
            bad = _complaints(error)
            raise RulesError("; ".join([*bad.values(), *_unusable(document, bad)])) from None
        rules.judge  # noqa: B018 - made here, so that no request has to wait for it
        return rules

    def to_mapping(self) -> dict[str, Any]:
        """Return the document as JSON has it: the inverse of `from_mapping`."""
        document: dict[str, Any] = _converter.unstructure(self)
        return document

    @cached_property
    def judge(self) -> Judge:
        """The rules made ready for `decide`: a second for 100,000 networks, once.

        `from_mapping` makes it, and tells by it whether the rules can be used.
        """
        return Judge(self)

    def decide(
        self,
        *,
        ip: str | None = None,
        path: str | None = None,
        method: str | None = None,
        user_agent: str | None = None,
        country: str | None = UNASKED,
        cloud_provider: str | None = None,
    ) -> Decision:
        """Tell whether a request is let in; pure, and safe on every thread.

        The limits are a matter of counting: see `guardagent.limits`. Whether the rules have
        expired is the agent's to know.

        Args:
            ip: the client's address; an unknown one is on no list.
            path: with the query, as it came; decoded here.
            method: no rule of the protocol looks at it.
            user_agent: None when the client sent none, which counts as an empty one.
            country: the code of the client's country; None when it is not known, which
                `whitelist_countries` does not let in. Leave it out where countries are not looked
                up: no rule about them is applied then.
            cloud_provider: whose address it is, with the region if known ("AWS:eu-west-1").

        Raises:
            RulesError: rules not made by `from_mapping` hold what is no address or expression.
        """
        return self.judge.decide(ip, path, user_agent, country, cloud_provider)


def _complaints(error: ClassValidationError) -> dict[str, str]:
    notes = error.group_exceptions()[0]
    return {note.name: f"{note.name}: {exception}" for exception, note in notes}


def _unusable(document: Mapping[str, Any], known: Container[str]) -> list[str]:
    """Name what else is bad in a document some of whose fields are."""
    names = [name for name in CHECKS if name in document and name not in known]
    return made_ready({name: _lax.texts(document[name], _MOST[name]) for name in names})[1]


def _entries(name: str) -> Callable[[Any, Any], Any]:
    def read(value: Any, kind: Any) -> Any:
        entries = _lax.texts(value, _MOST[name])
        return set(entries) if kind == set[str] else entries

    return read


_converter = cattrs.Converter(detailed_validation=True)
_converter.register_structure_hook(str, _lax.text)
_converter.register_structure_hook(int, _lax.whole)
_converter.register_structure_hook(bool, _lax.flag)
_converter.register_structure_hook(dt.datetime, _lax.moment)
_converter.register_structure_hook_func(
    lambda kind: kind == dict[str, tuple[int, int]],
    lambda value, _type: _lax.pairs(value, _PATHS_MAX),
)
_converter.register_unstructure_hook(dt.datetime, wire_time)
_converter.register_unstructure_hook_func(lambda kind: kind == set[str], sorted)
_converter.register_unstructure_hook_func(lambda kind: kind == tuple[int, int], list)
_hooks: dict[str, Any] = {name: override(struct_hook=_entries(name)) for name in _MOST}
for _name in ("global_rate_limit", "global_rate_window", "auto_ban_threshold", "auto_ban_duration"):
    _hooks[_name] = override(struct_hook=_lax.positive)
_converter.register_structure_hook(
    DynamicRules, make_dict_structure_fn(DynamicRules, _converter, **_hooks)
)
