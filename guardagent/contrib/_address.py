"""Whose request it is, where proxies stand in between."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["client_address"]

#: Characters of an address: IPv6 with a zone, brackets and a port.
_LONGEST = 100


def client_address(peer: object, forwarded: str | None, proxies: int) -> str:
    """Return the address that the outermost trusted proxy saw.

    Each of the trusted proxies adds, at the right end, the address it was asked by. So the entry
    `proxies` from the right is the client's, and whatever stands left of it was written by the
    client itself. Where there are fewer entries, somebody came past the proxies: then only the
    peer's own address is certain.

    Args:
        peer: the address at the other end of the connection, as the server has it: servers on a
            unix socket have its path, in bytes too, or nothing.
        forwarded: the header X-Forwarded-For, its lines joined with commas.
        proxies: how many trusted proxies there are.
    """
    own = peer.decode("latin-1") if isinstance(peer, bytes) else peer
    own = own if isinstance(own, str) else ""
    if not proxies or not forwarded:
        return own
    entries = forwarded.rsplit(",", proxies)
    if len(entries) < proxies:
        return own
    # With as many entries as proxies nothing was split off at the left: -n is the first one.
    return _address(entries[-proxies]) or own


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
