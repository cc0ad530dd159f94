"""Captures while name resolution hangs, and leaves."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from parts import build, capture, report

asked = threading.Event()
resolve = socket.getaddrinfo


def hang(*args: Any, **kwargs: Any) -> Any:
    asked.set()
    threading.Event().wait(60.0)
    return resolve(*args, **kwargs)


socket.getaddrinfo = hang
agent = build()
keys = capture(agent, 5)
asked.wait(10.0)
started = time.monotonic()
keys += capture(agent, 1_000)
report(held_up=time.monotonic() - started, captured=keys, flushed=agent.flush(timeout=0.2))
