"""Which network of many an address lies in: IPv4, IPv6 and IPv4 written as IPv6 (pure)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_pton

__all__ = ["Address", "Networks", "read_address", "read_network"]

#: Bits of the family, 32 or 128, and the number.
Address = tuple[int, int]

#: Longer texts are no addresses; the longest one has 45 characters, and a zone may follow.
_LONGEST = 100
#: The first 96 bits of IPv4 written as IPv6.
_MAPPED = 0xFFFF


def read_address(text: object) -> Address | None:
    """Return the address; None for what is none.

    `::ffff:192.0.2.1` is 192.0.2.1. Brackets, a port and a zone are cut off, as proxies and
    servers write them; an `ipaddress` object will do too.
    """
    try:
        return _parse(text)  # type: ignore[arg-type]  # what is no text raises TypeError
    except (OSError, ValueError, TypeError):
        pass  # not the plain form
    try:
        return _parse(_bare(text if isinstance(text, str) else str(_packed(text))))
    except (OSError, ValueError, TypeError):
        return None


def read_network(text: str) -> tuple[int, int, int]:
    """Return bits, length of the prefix, and number of an address or network.

    Bits to the right of the prefix are ignored; an IPv4 mask (`/255.255.0.0`) is a prefix too.
    IPv4 written as IPv6 is IPv4; a network such as `::/0` is one of IPv6 addresses only.

    Raises:
        ValueError: it is neither, or reaches beyond IPv4 written as IPv6.
    """
    host, slash, mask = text.strip().partition("/")
    try:
        family = AF_INET6 if ":" in host else AF_INET
        packed = inet_pton(family, host)
        bits, value = 8 * len(packed), int.from_bytes(packed, "big")
        length = _prefix(mask, bits) if slash else bits
    except (OSError, ValueError):
        raise ValueError("an IP address or network") from None
    if bits == 32 or not _is_around_mapped(value, min(length, 96)):
        return bits, length, value
    if length >= 96:
        return 32, length - 96, value & 0xFFFFFFFF
    if value >> 128 - length or value >> 32 == _MAPPED:
        # ::ffff:10.0.0.0/8 was to be 10.0.0.0/8, and as it is written would be all of IPv4.
        raise ValueError("an IP address or network; IPv4 as IPv6 has a prefix of 96 or more")
    return bits, length, value


class Networks:
    """A table of addresses and networks; looking one up takes as long for 10 as for 100,000.

    Args:
        entries: addresses and networks as text, any number of times.

    Raises:
        ValueError: an entry is neither; the second argument is its position.
    """

    __slots__ = ("_ranges",)

    def __init__(self, entries: Iterable[str]) -> None:
        found: dict[int, dict[int, str]] = {32: {}, 128: {}}
        for position, entry in enumerate(entries):
            try:
                bits, length, value = read_network(entry)
            except ValueError as error:
                raise ValueError(str(error), position) from None
            first = value >> bits - length << bits - length
            found[bits].setdefault(first << 8 | length, entry)
        #: By bits: where a range begins, and the smallest network it lies in.
        self._ranges = {bits: _flattened(networks, bits) for bits, networks in found.items()}

    def __bool__(self) -> bool:
        return any(len(owners) > 1 or owners[0] for _, owners in self._ranges.values())

    def find(self, address: Address | None) -> str | None:
        """Return the smallest network with the address, as it was given."""
        if address is None:
            return None
        firsts, owners = self._ranges[address[0]]
        return owners[bisect_right(firsts, address[1]) - 1]


def _is_around_mapped(value: int, length: int) -> bool:
    """Tell whether an IPv6 network of that length, at most 96, holds IPv4 written as IPv6."""
    return value >> 128 - length == _MAPPED >> 96 - length


def _flattened(networks: dict[int, str], bits: int) -> tuple[list[int], list[str | None]]:
    """Return ranges side by side; of two networks one holds the other, or they are apart.

    Args:
        networks: by the first address and, in the last eight bits, the length of the prefix: a
            plain number, because sorting and collecting 100,000 tuples takes half a second.
        bits: of an address.
    """
    firsts: list[int] = [0]
    owners: list[str | None] = [None]
    around: list[tuple[int, str | None]] = [(1 << bits, None)]

    def begin(at: int, owner: str | None) -> None:
        if firsts[-1] == at:
            owners[-1] = owner
        else:
            firsts.append(at)
            owners.append(owner)

    for key in sorted(networks):
        first, entry = key >> 8, networks[key]
        while around[-1][0] <= first:
            begin(around.pop()[0], around[-1][1])
        begin(first, entry)
        around.append((first + (1 << bits - (key & 255)), entry))
    while len(around) > 1:
        begin(around.pop()[0], around[-1][1])
    return firsts, owners


def _parse(text: str) -> Address:
    if ":" not in text:
        return 32, int.from_bytes(inet_pton(AF_INET, text), "big")
    value = int.from_bytes(inet_pton(AF_INET6, text), "big")
    return (32, value & 0xFFFFFFFF) if value >> 32 == _MAPPED else (128, value)


def _packed(address: object) -> object:
    """Return an `ipaddress` object; nothing else is written as text."""
    if isinstance(getattr(address, "packed", None), bytes):
        return address
    raise TypeError("not an address")


def _bare(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError("too long for an address")
    text = text.strip()
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket:
            raise ValueError("a bracket is missing")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
    else:
        port = ""
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError("not a port")
    return text.partition("%")[0]


def _prefix(mask: str, bits: int) -> int:
    if mask.isascii() and mask.isdigit() and len(mask) <= 3 and int(mask) <= bits:
        return int(mask)
    if bits == 128:
        raise ValueError("not a prefix")
    value = int.from_bytes(inet_pton(AF_INET, mask), "big")
    for number in (value, value ^ 0xFFFFFFFF):  # a net mask, or a host mask
        hosts = number ^ 0xFFFFFFFF
        if hosts & (hosts + 1) == 0:
            return 32 - hosts.bit_length()
    raise ValueError("not a mask")
