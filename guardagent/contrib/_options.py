"""What a web shim is told beside the agent's own settings: WebOptions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

import attrs

from guardagent import _settings as check
from guardagent._settings import parse, setting
from guardagent.config import AgentConfig
from guardagent.errors import ConfigError

__all__ = ["Settings", "WebOptions", "environment", "split"]

#: Settings of an agent by their names, not read yet.
Settings = dict[str, Any]

_ENVIRONMENT_PREFIX = "GUARDAGENT_"
_MAX_HOPS = 16
_MAX_ROUTES = 10_000

#: What a path of a place with something to protect has in one of its segments.
_SENSITIVE = (
    "account", "admin", "api-key", "auth", "login", "logout", "mfa", "oauth", "otp", "password",
    "payment", "permission", "register", "role", "session", "signin", "signup", "sso", "token",
    "user",
)  # fmt: skip


def _statuses(name: str, value: Any) -> frozenset[int]:
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (str, bytes)):
        return frozenset(check.integer(100, 599)(name, status) for status in value)
    return frozenset({check.integer(100, 599)(name, value)})


def _words(name: str, value: Any) -> tuple[str, ...]:
    return tuple(word.lower() for word in check.names(name, value))


@attrs.frozen(kw_only=True)
class WebOptions:
    """What of the requests is captured, and whether the dynamic rules are enforced.

    Raises:
        ConfigError: names the field, the form of the value and what is allowed.
    """

    capture_statuses: frozenset[int] = setting(
        _statuses, "Statuses of answers that are events.", (401, 403, 429)
    )
    capture_exceptions: Literal["security", "all", "none"] = setting(
        check.choice("security", "all", "none"),
        "Which unhandled exceptions are events: those of a sensitive path or of a kind that has to "
        "do with security, all, or none.",
        "security",
    )
    sensitive_paths: tuple[str, ...] = setting(
        _words, "Words that make a path sensitive, for ``capture_exceptions``.", _SENSITIVE
    )
    capture_metrics: bool = setting(
        check.flag, "Measure request_count, response_time and error_rate.", True
    )
    max_routes: int = setting(
        check.integer(1, _MAX_ROUTES),
        "Routes that are measured one by one; what comes beyond is measured as ``(other)``.",
        200,
    )
    trusted_proxies: int = setting(
        check.integer(0, _MAX_HOPS),
        "Number of proxies in front of the application, each of which adds the address it sees to "
        "``X-Forwarded-For``. 0: the header is not looked at.",
        0,
    )
    country_header: str | None = setting(
        check.optional(check.clean_text),
        "Header in which a trusted proxy tells the country, such as ``CF-IPCountry``; not looked "
        "at without ``trusted_proxies``.",
        None,
    )
    enforce_rules: bool = setting(
        check.flag, "Refuse what the dynamic rules forbid, with 403 or 429.", False
    )
    without_rules: Literal["allow", "refuse"] = setting(
        check.choice("allow", "refuse"),
        "What ``enforce_rules`` does while no rules are in force: before the first ones, and after "
        "they have expired. ``refuse`` answers with 503.",
        "allow",
    )


_Options = TypeVar("_Options", bound=WebOptions)

_AGENT_SETTINGS = [field.name for field in attrs.fields(AgentConfig)]


def split(cls: type[_Options], *mappings: Mapping[str, Any] | None) -> tuple[Settings, _Options]:
    """Tell a shim's options from the agent's settings; names in any case.

    Args:
        cls: the options of this shim.
        mappings: what is given; the later ones beat the earlier.

    Returns:
        The settings, unread, and the options.

    Raises:
        ConfigError: an unknown name (with the one that was probably meant) or a wrong option.
    """
    own = {field.name: str(field.type) for field in attrs.fields(cls)}
    settings: Settings = {}
    options: dict[str, Any] = {}
    given = {name: value for one in mappings for name, value in _checked(one).items()}
    for name, value in given.items():
        if name in own:
            text = isinstance(value, str)
            options[name] = _parse(name, own[name], value) if text else value
        elif name in _AGENT_SETTINGS:
            settings[name] = value
        else:
            raise _unknown(name, [*own, *_AGENT_SETTINGS])
    return settings, cls(**options)


def environment() -> Settings:
    """Return the agent's settings that `GUARDAGENT_<NAME>` gives, unread."""
    names = {name: _ENVIRONMENT_PREFIX + name.upper() for name in _AGENT_SETTINGS}
    given = {name: os.environ.get(variable, "").strip() for name, variable in names.items()}
    return {name: text for name, text in given.items() if text}


def _checked(mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        kind = type(mapping).__name__
        raise ConfigError(f"GUARDAGENT: given a value of type {kind}, allowed: a mapping")
    return {str(name).lower(): value for name, value in mapping.items()}


def _parse(name: str, annotation: str, text: str) -> Any:
    """Read an option from text, as an ini file has it."""
    if not annotation.startswith(("frozenset", "tuple")):
        return parse(name, annotation, text)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if annotation.startswith("tuple"):
        return parts
    return [int(part) if part.isdecimal() else part for part in parts]


def _unknown(name: str, known: list[str]) -> ConfigError:
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigError(f"{name}: there is no such setting{hint}")
