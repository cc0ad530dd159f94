"""What makes a body trustworthy on its way: the signature, and gzip beside it. Pure."""

from __future__ import annotations

import hashlib
import hmac
import zlib

__all__ = ["compress", "sign"]

_GZIP = 16 + zlib.MAX_WBITS


def sign(secret: str, body: bytes) -> str:
    """Return the value of X-Payload-Signature for a body before compression (WIRE.md 4)."""
    return "v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def compress(body: bytes) -> bytes | None:
    """Return the body as gzip, the same bytes for the same body; None when that fails.

    Level 1 takes a quarter of the time of the default and leaves 10% more bytes.
    """
    try:
        # zlib's own header holds no time, unlike the one of `gzip.compress` by default.
        press = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        return press.compress(body) + press.flush()
    except (zlib.error, MemoryError):
        return None  # an uncompressed batch is better than none (FIELD N6)
