"""Checks of single settings: each names the field, the form of the value and what is allowed."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from guardagent.errors import ConfigError
from guardagent.plain import describe

__all__ = ["clean_text", "endpoint", "parse", "sealing_key", "secret", "setting"]

_ADDRESS = re.compile(r"[!-~]+")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def setting(
    check: Callable[[str, Any], Any],
    doc: str,
    default: Any = attrs.NOTHING,
    *,
    secret: bool = False,
    hashable: bool = True,
    shown: Callable[[Any], str] | None = None,
) -> Any:
    """Declare a field whose value goes through `check(name, value)`; `doc` is for the manual.

    `shown` writes the value for `repr`.
    """

    def convert(value: Any, field: Any) -> Any:
        try:
            return check(field.name, value)
        except _Refused as refused:
            hidden = secret or (isinstance(value, str) and ("@" in value or "?" in value))
            given = f"a value of type {type(value).__name__}" if hidden else describe(value)
            raise ConfigError(f"{field.name}: given {given}, allowed: {refused}") from None

    return attrs.field(
        default=default,
        converter=attrs.Converter(convert, takes_field=True),
        metadata={"doc": doc},
        hash=None if hashable else False,
        repr=_hidden if secret else shown or True,
    )


class _Refused(Exception):
    """What would have been allowed."""


def _hidden(value: object) -> str:
    return "None" if value is None else "'***'"


def integer(low: int, high: int) -> Callable[[str, Any], int]:
    """Allow whole numbers from `low` to `high`."""

    def check(_name: str, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        raise _Refused(f"a whole number from {low} to {high}")

    return check


def number(low: float, high: float) -> Callable[[str, Any], float]:
    """Allow finite numbers from `low` to `high`."""

    def check(_name: str, value: Any) -> float:
        # NaN compares as neither, and so does not pass.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise _Refused(f"a number from {low:g} to {high:g}")

    return check


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Allow None too."""

    def allow(name: str, value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(name, value)
        except _Refused as refused:
            raise _Refused(f"{refused}, or None") from None

    return allow


def flag(_name: str, value: Any) -> bool:
    """Allow True and False."""
    if isinstance(value, bool):
        return value
    raise _Refused("True or False")


def choice(*names: str) -> Callable[[str, Any], str]:
    """Allow one of the names."""

    def check(_name: str, value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise _Refused("one of " + ", ".join(names))

    return check


def clean_text(_name: str, value: Any) -> str:
    """Allow what can stand in an HTTP header: printable ASCII; spaces around it are dropped."""
    if isinstance(value, str):
        text = value.strip()
        if text and text.isascii() and text.isprintable():
            return text
    raise _Refused("printable ASCII text that is not empty")


def secret_text(_name: str, value: Any) -> str:
    """Allow any text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise _Refused("text that is not empty")


def secret(
    check: Callable[[str, Any], str], none: str = "None"
) -> Callable[[str, Any], str | Callable[[], str] | Path | None]:
    """Allow a secret, a callable that returns it, the path of a file that holds it, and None."""

    def allow(name: str, value: Any) -> Any:
        if value is None or callable(value) or isinstance(value, Path):
            return value
        try:
            return check(name, value)
        except _Refused as refused:
            raise _Refused(f"{refused}; or a callable, a pathlib.Path, or {none}") from None

    return allow


def endpoint(_name: str, value: Any) -> str:
    """Allow http and https addresses; a trailing "/" or "/api/v1" is dropped (WIRE.md 1)."""
    from urllib.parse import urlsplit  # 2 ms that only a configuration has to pay

    refused = _Refused("an http or https address such as https://guard.example.com")
    if not isinstance(value, str):
        raise refused
    text = value.strip().rstrip("/").removesuffix("/api/v1").rstrip("/")
    try:
        parts = urlsplit(text)
        bad = parts.port == 0 or parts.username or parts.password or parts.query or parts.fragment
    except ValueError:
        raise refused from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or bad
        or not _ADDRESS.fullmatch(text)
    ):
        raise refused
    return text


def names(_name: str, value: Any) -> list[str]:
    """Allow a list of names."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if all(isinstance(item, str) and item.strip() for item in value):
            return list(value)
    raise _Refused("a list of names")


def function(_name: str, value: Any) -> Any:
    """Allow a callable."""
    if callable(value):
        return value
    raise _Refused("a callable")


def existing_path(_name: str, value: Any) -> str:
    """Allow the path of a file or folder that is there."""
    if isinstance(value, (str, Path)) and os.fspath(value):
        with contextlib.suppress(OSError, ValueError):  # too long, or with a NUL in it
            if Path(value).exists():
                return os.fspath(value)
    raise _Refused("the path of an existing file or folder")


def certificate(name: str, value: Any) -> str | tuple[str, str]:
    """Allow one path (certificate and key) or a pair of them."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return existing_path(name, value[0]), existing_path(name, value[1])
    return existing_path(name, value)


def proxies(_name: str, value: Any) -> dict[str, str]:
    """Allow a mapping of scheme to proxy address, as requests takes it."""
    if isinstance(value, Mapping):
        if all(isinstance(item, str) for pair in value.items() for item in pair):
            return dict(value)
    raise _Refused("a mapping of scheme to proxy address")


def spool(_name: str, value: Any) -> Any:
    """Allow the address of a spool, or a client of redis-py; a file's path becomes absolute."""
    if _is_redis_client(value):
        return value
    if isinstance(value, str):
        text = value.strip()
        scheme, _, rest = text.partition(":")
        if text in ("memory:", "memory://", "memory"):
            return "memory://"
        if scheme in _REDIS_SCHEMES and rest.startswith("//") and len(rest) > 2:
            return text
        if scheme == "sqlite" and rest.startswith("///") and rest.strip("/"):
            return f"sqlite:///{_file_to_be(rest[3:])}"
    raise _Refused(
        "memory://, sqlite:///relative/path, sqlite:////absolute/path, redis://host:port/0,"
        " rediss://, unix:///path/of.sock, redis+sentinel://, redis+cluster://, or a client of"
        " redis-py"
    )


_REDIS_SCHEMES = {
    *("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster"),
}


def _file_to_be(name: str) -> str:
    if "\0" in name:
        raise _Refused("the path of a file")
    path = Path(name)
    path = path if path.is_absolute() else Path.cwd() / path
    try:
        if path.is_dir():
            raise _Refused(f"the path of a file; {path} is a folder")
        if not path.parent.is_dir():
            raise _Refused(
                f"a path in a folder that exists; {path.parent} does not (four slashes begin an"
                " absolute path)"
            )
    except OSError:  # too long, for one
        raise _Refused("the path of a file") from None
    return os.fspath(path)


def _is_redis_client(value: Any) -> bool:
    # Whoever has made a client has imported it; another thread may be in the middle of that.
    redis = sys.modules.get("redis")
    kinds = (getattr(redis, "Redis", None), getattr(redis, "RedisCluster", None))
    return isinstance(value, tuple(kind for kind in kinds if kind is not None))


def spool_shown(value: Any) -> str:
    """Write a spool's address without what may be a password."""
    if not isinstance(value, str):
        return f"<{type(value).__name__}>"
    scheme, _, rest = value.partition("://")
    if scheme in _REDIS_SCHEMES:
        place, _, query = rest.partition("?")
        # An @ behind the mark may be that of a password with a mark in it.
        rest = "" if "@" in query and "@" not in place else place.rpartition("@")[2]
    return repr(f"{scheme}://{rest}")


def encryption_key(_name: str, value: Any) -> str:
    """Allow what `sealing_key` reads."""
    found = sealing_key(value) if isinstance(value, str) else None
    if found is None:
        raise _Refused("32 bytes in base64")
    return found


def sealing_key(text: str) -> str | None:
    """Return the one form of 32 bytes in either alphabet, padded or not (WIRE.md 5); or None."""
    with contextlib.suppress(ValueError):
        plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        if len(key) == 32:
            return base64.urlsafe_b64encode(key).decode("ascii")
    return None


def parse(name: str, annotation: str, text: str) -> Any:
    """Read a setting from text (environment, ini files) by its annotated type.

    Raises:
        ConfigError: the text cannot be read as that type.
    """
    word = text.strip()
    kind = annotation.partition(" | ")[0]
    if word == "" and annotation.endswith("None"):
        return None
    try:
        if kind == "bool":
            return _parse_flag(word)
        if kind == "int":
            return int(word)
        if kind == "float":
            return float(word)
        if kind.startswith("list"):
            return [part.strip() for part in word.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"{name}: given {describe(text)}, allowed: {kind}") from None
    return text


def _parse_flag(word: str) -> bool:
    if word.lower() in _TRUE | _FALSE:
        return word.lower() in _TRUE
    raise ValueError(word)
