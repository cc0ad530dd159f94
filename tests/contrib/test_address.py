"""Whose request it is: only what trusted proxies wrote is believed."""

from __future__ import annotations

import pytest

from guardagent.contrib._address import client_address

PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        (None, 1, PROXY),
        ("", 1, PROXY),
        ("198.51.100.7", 0, PROXY),
        ("198.51.100.7", 1, "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", 1, "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7, 10.0.0.2", 2, "198.51.100.7"),
        ("198.51.100.7,10.0.0.2", 2, "198.51.100.7"),
        ("198.51.100.7", 2, PROXY),
        ("198.51.100.7:4711", 1, "198.51.100.7"),
        ("[2001:db8::7]:4711", 1, "2001:db8::7"),
        ('"[2001:db8::7]"', 1, "2001:db8::7"),
        ("2001:db8::7", 1, "2001:db8::7"),
        ("unknown", 1, PROXY),
        ("203.0.113.9, ", 1, PROXY),
        ("203.0.113.9, <script>", 1, PROXY),
        ("1" * 100_000, 1, PROXY),
        (",".join(["203.0.113.9"] * 10_000) + ",198.51.100.7", 1, "198.51.100.7"),
    ],
)
def test_client_address(forwarded: str | None, proxies: int, address: str) -> None:
    """The entry so many from the right counts; what is no address, or missing, does not."""
    assert client_address(PROXY, forwarded, proxies) == address


@pytest.mark.parametrize(
    ("peer", "address"),
    [(None, ""), (b"/run/web.sock", "/run/web.sock"), (("10.0.0.1", 80), ""), (4711, "")],
)
def test_peers_without_an_address(peer: object, address: str) -> None:
    """Whatever a server tells instead of an address, the answer is text."""
    assert client_address(peer, None, 0) == address


@pytest.mark.parametrize("written", ["127.0.0.1", "203.0.113.9, 127.0.0.1", ", , ,"])
def test_client_cannot_choose_its_address(written: str) -> None:
    """Whatever a client writes into the header stands left of what the proxy adds."""
    assert client_address(PROXY, f"{written}, 198.51.100.7", 1) == "198.51.100.7"
