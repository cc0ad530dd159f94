"""Chance: idempotency keys, drawn a block at a time to save system calls, and jitter."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from itertools import chain, repeat

__all__ = ["UUID_TEXT", "KeySource", "chance", "format_key", "new_key"]

#: The 8-4-4-4-12 form.
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_BLOCK = 64
_KEEP = int.from_bytes(b"\xff" * 6 + b"\x0f\xff\x3f" + b"\xff" * 7, "big")
_BITS = int.from_bytes(b"\x00" * 6 + b"\x40\x00\x80" + b"\x00" * 7, "big")
_SPLIT = struct.Struct("16s" * _BLOCK)
_REPEAT = sum(1 << (128 * n) for n in range(_BLOCK))
_KEEP_ALL, _BITS_ALL = _KEEP * _REPEAT, _BITS * _REPEAT


class KeySource:
    """Hands out 16 random bytes each, already marked as a UUID4 (RFC 9562).

    One per process: a forked child must make its own, or it would repeat the parent's keys.
    """

    __slots__ = ("take",)

    def __init__(self) -> None:
        #: Return a key never returned before. One call of a C iterator, so threads and signal
        #: handlers may race for it; at worst a block of unused keys is thrown away.
        self.take: Callable[[], bytes] = chain.from_iterable(map(_block, repeat(None))).__next__


def _block(_: None) -> tuple[bytes, ...]:
    number = int.from_bytes(os.urandom(16 * _BLOCK), "big") & _KEEP_ALL | _BITS_ALL
    return _SPLIT.unpack(number.to_bytes(16 * _BLOCK, "big"))


def new_key() -> bytes:
    """Return a single key; safe in any process at any time."""
    return ((int.from_bytes(os.urandom(16), "big") & _KEEP) | _BITS).to_bytes(16, "big")


def format_key(key: bytes) -> str:
    """Write 16 bytes in the 8-4-4-4-12 form."""
    text = key.hex("-", 2)
    return f"{text[:4]}{text[5:29]}{text[30:34]}{text[35:]}"


def chance() -> float:
    """Return a random number from 0 to below 1; `random` itself takes 20 ms to import."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
