"""From the bytes of a request to the JSON value in it, within bounds (WIRE.md 4)."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from guardagent.collector.answers import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_signature", "inflate", "parse_json", "read_body", "write_json"]

_CHUNK_BYTES = 65_536
#: An agent's batch is one.
_MEMBERS_MAX = 1_000
_GZIP = 16 + zlib.MAX_WBITS  # zlib's way of asking for gzip's own header and checksum

#: Content-Encoding by what it asks for.
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_body(environ: Mapping[str, Any], *, max_bytes: int) -> bytes:
    """Read a request's body and undo its gzip: the bytes the sender signed.

    Raises:
        Refused: no usable length (411, 400), over `max_bytes` before or after gzip (413), broken
            gzip (400), an encoding other than gzip (415), or the sender stopped half-way (408).
    """
    encoding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding not in _ENCODINGS:
        allowed = f"Content-Encoding: given {encoding[:60]!r}, allowed: gzip, identity"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, [allowed])
    length = _length(environ)
    if length > max_bytes:
        raise _too_large(f"{length} bytes", max_bytes)
    data = _read(environ["wsgi.input"], length)
    return inflate(data, max_bytes=max_bytes) if _ENCODINGS[encoding] else data


def inflate(data: bytes, *, max_bytes: int) -> bytes:
    """Undo gzip, of any number of members, without ever holding more than `max_bytes` of it.

    Raises:
        Refused: not gzip, cut off, of very many members, or larger than `max_bytes` when inflated.
    """
    inflated = bytearray()
    member, members = zlib.decompressobj(_GZIP), 1
    # Piece by piece: what is left behind a member is copied, which for a whole body of them would
    # take the square of its length.
    for start in range(0, len(data), _CHUNK_BYTES):
        piece = data[start : start + _CHUNK_BYTES]
        while piece:
            if member.eof:
                member, members = zlib.decompressobj(_GZIP), members + 1
            if members > _MEMBERS_MAX:
                raise _bad(f"body: gzip of more than {_MEMBERS_MAX} members")
            try:
                inflated += member.decompress(piece, max_bytes + 1 - len(inflated))
            except zlib.error as error:
                raise _bad(f"body: not gzip: {error}") from error
            if len(inflated) > max_bytes:
                raise _too_large("more when inflated", max_bytes)
            piece = member.unused_data
    if not member.eof:
        raise _bad("body: not gzip: it ends in the middle")
    return bytes(inflated)


def check_signature(raw: bytes, given: str, *, secret: bytes) -> None:
    """Compare `X-Payload-Signature` with the one this body must have.

    Raises:
        Refused: it is missing or another (401).
    """
    expected = "v1=" + hmac.new(secret, raw, hashlib.sha256).hexdigest()
    # WSGI hands headers over as latin-1; compared as bytes, since str must be ASCII for it.
    if not hmac.compare_digest(given.encode("latin-1"), expected.encode("latin-1")):
        what = "given another value" if given else "missing"
        reason = f"X-Payload-Signature: {what}, allowed: v1=<hex HMAC-SHA256 of the body>"
        raise Refused(HTTPStatus.UNAUTHORIZED, [reason])


def parse_json(raw: bytes) -> Any:
    """Parse strict JSON.

    Raises:
        Refused: not UTF-8, not JSON, nested too deep, NaN, or a number beyond all floats (400).
    """
    try:
        return json.loads(
            raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except UnicodeDecodeError as error:
        raise _bad(f"body: not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise _bad(f"body: not JSON: {error}") from error
    except RecursionError as error:
        raise _bad("body: nested too deep") from error


def write_json(value: object) -> str:
    """Write what was parsed, without spaces and in ASCII.

    Raises:
        Refused: nested so deep that it could be read and cannot be written (400).
    """
    try:
        return json.dumps(value, separators=(",", ":"))
    except RecursionError as error:
        raise _bad("body: nested too deep") from error


def _length(environ: Mapping[str, Any]) -> int:
    text = environ.get("CONTENT_LENGTH") or ""
    if not text or "HTTP_TRANSFER_ENCODING" in environ:
        reason = "Content-Length: missing; a body in chunks is not taken"
        raise Refused(HTTPStatus.LENGTH_REQUIRED, [reason])
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _bad("Content-Length: allowed: a number of bytes")
    return int(text)


def _read(stream: _Readable, length: int) -> bytes:
    chunks: list[bytes] = []
    left = length
    while left:
        try:
            chunk = stream.read(min(left, _CHUNK_BYTES))
        except TimeoutError as error:
            raise _cut_off(length - left, length) from error
        if not chunk:
            raise _cut_off(length - left, length)
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _cut_off(received: int, length: int) -> Refused:
    # 408 and not 400: an agent sends the batch again instead of giving it up.
    reason = f"body: {received} bytes came of the {length} that Content-Length promised"
    return Refused(HTTPStatus.REQUEST_TIMEOUT, [reason])


def _too_large(given: str, max_bytes: int) -> Refused:
    reason = f"body: given {given}, allowed: {max_bytes} bytes"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [reason])


def _bad(reason: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, [reason])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON has")


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:60]} is beyond all numbers")
    return number
