"""Addresses of Redis: one server, the primary that sentinels know, or a cluster."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import attrs

from guardagent.errors import ConfigError

__all__ = ["Address"]

_FORMS = (
    "redis://[user:password@]host:port/db, rediss:// for TLS, unix:///path/of.sock?db=0,"
    " redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port"
)
#: What ends the part with the password before its time, or is left out by some who read it.
_BREAKS = re.compile(r"[#\s\x00-\x1f\x7f]")
_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}


@attrs.frozen
class Address:
    """Where Redis is, and as whom to go there.

    Args:
        url: in the form that redis-py reads, of the first of the hosts.
        hosts: all of them.
        service: the name under which the sentinels know the primary.
    """

    kind: Literal["server", "sentinel", "cluster"]
    url: str = attrs.field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            ConfigError: it is none; the message shows no part of it, for any may be the password.
        """
        scheme, _, rest = text.strip().partition("://")
        scheme, _, suffix = scheme.lower().partition("+")
        if suffix not in ("", "sentinel", "cluster") or (scheme == "unix" and suffix):
            raise _wrong("a scheme that is not known")
        if scheme not in ("redis", "rediss", "unix"):
            raise _wrong("a scheme that is not known")
        _refuse_broken(rest)
        place, mark, query = rest.partition("?")
        if scheme == "unix":
            if not place.rpartition("@")[2]:
                raise _wrong("no path")
            return cls("server", f"unix://{rest}")
        return cls._of_hosts(scheme, suffix or "server", place, mark + query)

    @classmethod
    def _of_hosts(cls, scheme: str, kind: Any, place: str, query: str) -> Address:
        netloc, _, path = place.partition("/")
        user, at, names = netloc.rpartition("@")
        hosts = tuple(_host(name, _PORTS[kind]) for name in names.split(","))
        if kind == "server" and len(hosts) > 1:
            raise _wrong("several hosts")
        service = ""
        if kind == "sentinel":
            service, _, path = path.partition("/")
            if not service:
                raise _wrong("no name of a service")
        if path and not (path.isascii() and path.isdecimal()):
            raise _wrong("a database that is not a number")
        host, port = hosts[0]
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{user}{at}{shown}:{port}/{path or 0}{query}"
        return cls(kind, url, hosts, unquote(service))


def _refuse_broken(rest: str) -> None:
    """Refuse an address of whose password only a part would be taken for it."""
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    is_broken = bool(_BREAKS.search(rest)) or "@" in rest[len(netloc) :]
    try:
        urlsplit(f"//{netloc.rpartition('@')[0]}@host")
    except ValueError:  # shows what it cannot read
        is_broken = True
    if is_broken:
        raise _wrong(
            "a character that ends the user, password or host too early, where # has to be written"
            " %23, / %2F, ? %3F, [ %5B, ] %5D, a space %20, and @ behind the host %40"
        )


def _host(name: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{name}")
        found = parts.port if parts.port is not None else port
    except ValueError:
        raise _wrong("a port that is not a number from 0 to 65535") from None
    return parts.hostname or "localhost", found


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"spool: given an address with {what}, allowed: {_FORMS}")
