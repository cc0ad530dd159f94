"""Ports on loopback for servers that must be told theirs."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]

#: Below the ports that the system gives to outgoing connections, one of which could otherwise take
#: a port while its server is down.
_PORTS = range(10_000, 30_000)


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(_PORTS)  # tests seed the other one, all alike
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
