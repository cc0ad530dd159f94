"""Whose request it is, where proxies stand in between."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["client_address"]

#: Characters of an address: IPv6 with a zone, brackets and a port.
_LONGEST = 100


def client_address(peer: str, forwarded: str | None, proxies: int) -> str:
    """Return the address that the outermost trusted proxy saw.

    Each of the trusted proxies adds, at the right end, the address it was asked by. So the entry
    `proxies` from the right is the client's, and whatever stands left of it was written by the
    client itself. Where there are fewer entries, somebody came past the proxies: then only the
    peer's own address is certain.

    Args:
        peer: the address at the other end of the connection.
        forwarded: the header X-Forwarded-For, its lines joined with commas.
        proxies: how many trusted proxies there are.
    """
    if not proxies or not forwarded:
        return peer
    entries = forwarded.rsplit(",", proxies)
    if len(entries) < proxies:
        return peer
    # With as many entries as proxies nothing was split off at the left: -n is the first one.
    return _address(entries[-proxies]) or peer


def _address(entry: str) -> str | None:
    """Read an address as proxies write it: also with a port, also in brackets."""
    text = entry.strip().strip('"')
    if len(text) > _LONGEST:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
