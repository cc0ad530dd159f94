"""The form in which a record lies in a durable spool: a short header and the body.

Owns: the header's layout and its version. In: records, or bytes that were read back. Out: bytes,
or a body that is certain to be the one that was written. Pure.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

from guardagent.encoding import Record
from guardagent.errors import FrameError

__all__ = ["HEADER_BYTES", "VERSION", "later_version", "made_at", "pack", "unpack", "weight"]

#: Version, unix seconds of the encoding, checksum of the body; big-endian.
_HEADER = struct.Struct(">BdI")
HEADER_BYTES = _HEADER.size
#: The only version so far. Later ones, up to this one, are for later releases to read; a first byte
#: beyond is damage.
VERSION, _VERSION_MOST = 1, 15
_TIME = struct.Struct(">d")

_pack = _HEADER.pack
_unpack = _HEADER.unpack_from


def pack(record: Record) -> bytes:
    """Return the frame of a record."""
    body = record.body
    return _pack(VERSION, record.created_at, crc32(body)) + body


def unpack(frame: Any) -> bytes:
    """Return the body of a frame.

    Raises:
        FrameError: it was damaged, or is of a version this release does not know.
    """
    if not isinstance(frame, bytes):  # whoever can write there can write anything
        raise FrameError("a record is not made of bytes")
    if len(frame) <= HEADER_BYTES:
        raise FrameError(f"{len(frame)} bytes are too short for a record")
    version, _, checksum = _unpack(frame)
    if version != VERSION:
        raise FrameError(f"version {version} of a record is not known, only {VERSION}")
    body: bytes = frame[HEADER_BYTES:]
    if crc32(body) != checksum:
        raise FrameError("the checksum of a record does not agree with it")
    return body


def later_version(frame: Any) -> int:
    """Return the version of a frame that only a later release can read; 0 of any other."""
    if isinstance(frame, bytes) and frame and VERSION < frame[0] <= _VERSION_MOST:
        return frame[0]
    return 0


def made_at(frame: Any) -> float:
    """Return the unix seconds of a frame's encoding; infinity when it cannot be told."""
    if not isinstance(frame, bytes) or len(frame) < HEADER_BYTES or frame[0] != VERSION:
        return float("inf")
    moment: float = _TIME.unpack_from(frame, 1)[0]
    return moment if moment == moment else float("inf")  # noqa: PLR0124 - NaN is not itself


def weight(frame: Any) -> int:
    """Return the bytes of the body in a batch, the comma included."""
    return len(frame) - HEADER_BYTES + 1 if isinstance(frame, bytes) else 0
