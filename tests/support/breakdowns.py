"""Answers that are none: hangs, resets, drips, floods and what is not HTTP."""

from __future__ import annotations

import functools
import struct
import zlib

import attrs

from tests.support.wire import PATIENCE, Exchange

__all__ = [
    "AcceptThenReset",
    "CloseBeforeAnswer",
    "CloseInHead",
    "Drip",
    "DripHead",
    "EndlessBody",
    "EndlessContinue",
    "GzipBomb",
    "HangBeforeHeaders",
    "HangInBody",
    "HangInHead",
    "HugeBody",
    "HugeHead",
    "MalformedStatusLine",
    "ResetBeforeAnswer",
    "ResetInBody",
    "ShortBody",
]

_MEGABYTE = 1 << 20


@attrs.frozen
class HangBeforeHeaders:
    """Read the request and never answer."""

    def play(self, exchange: Exchange) -> None:
        exchange.wire.hang()


@attrs.frozen
class HangInHead:
    """Stop in the middle of a header."""

    def play(self, exchange: Exchange) -> None:
        exchange.wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.wire.hang()


@attrs.frozen
class HangInBody:
    """Accept, and stop in the middle of saying so."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {"Content-Length": "64"}, b'{"success":')
        exchange.wire.hang()


@attrs.frozen
class ResetBeforeAnswer:
    """Read the request and reset the connection."""

    def play(self, exchange: Exchange) -> None:
        exchange.wire.reset()


@attrs.frozen
class ResetInBody:
    """Accept, and reset in the middle of saying so."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {"Content-Length": "64"}, b'{"success":')
        exchange.wire.reset()


@attrs.frozen
class AcceptThenReset:
    """Accept, and reset before a word of it reaches the client."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.wire.reset()


@attrs.frozen
class CloseBeforeAnswer:
    """Read the request and close the connection in the ordinary way."""

    def play(self, exchange: Exchange) -> None:
        exchange.wire.close()


@attrs.frozen
class CloseInHead:
    """Close in the middle of a header; what came before it looks like acceptance."""

    def play(self, exchange: Exchange) -> None:
        exchange.wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.wire.close()


@attrs.frozen
class ShortBody:
    """Accept, promise more than is sent, and close."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {"Content-Length": "64"}, b'{"success":')
        exchange.wire.close()


@attrs.frozen
class Drip:
    """Accept, and send the body a byte at a time, so slowly that it never ends."""

    interval: float = 0.1

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {"Content-Length": "60000"})
        for _ in range(int(PATIENCE / self.interval)):
            exchange.wire.pause(self.interval)
            exchange.wire.send(b" ")


@attrs.frozen
class DripHead:
    """Send the head a byte at a time, so slowly that it never ends."""

    interval: float = 0.1

    def play(self, exchange: Exchange) -> None:
        exchange.wire.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(int(PATIENCE / self.interval)):
            exchange.wire.pause(self.interval)
            exchange.wire.send(b"x")


@attrs.frozen
class EndlessContinue:
    """Say "100 Continue" for ever: each is progress, none is an answer."""

    interval: float = 0.1

    def play(self, exchange: Exchange) -> None:
        for _ in range(int(PATIENCE / self.interval)):
            exchange.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange.wire.pause(self.interval)


@attrs.frozen
class EndlessBody:
    """Accept, and send a chunked body that does not end while the client listens."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(16 * 1024):  # a gigabyte
            exchange.wire.send(chunk)


@attrs.frozen
class HugeBody:
    """Accept, or refuse, in far more words than it takes."""

    megabytes: int = 50
    code: int = 200

    def play(self, exchange: Exchange) -> None:
        if self.code == 200:
            exchange.accept()
        length = str(self.megabytes * _MEGABYTE)
        exchange.head(self.code, {"Content-Length": length, "Location": "/elsewhere"})
        spaces = b" " * _MEGABYTE
        for _ in range(self.megabytes):
            exchange.wire.send(spaces)


@attrs.frozen
class GzipBomb:
    """Accept, in a compressed body that unfolds to `megabytes`."""

    megabytes: int = 256

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        body = _bomb(self.megabytes)
        headers = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
        exchange.head(200, headers, body)


@attrs.frozen
class HugeHead:
    """Answer with more headers than any client keeps."""

    count: int = 5_000

    def play(self, exchange: Exchange) -> None:
        exchange.head(200, {f"X-Filler-{n}": "x" * 64 for n in range(self.count)})


@attrs.frozen
class MalformedStatusLine:
    """Answer in a language that is not HTTP."""

    line: bytes = b"SSH-2.0-OpenSSH_9.9\r\n\r\n"

    def play(self, exchange: Exchange) -> None:
        exchange.wire.send(self.line)
        exchange.wire.close()


@functools.cache
def _bomb(megabytes: int) -> bytes:
    zeros = bytes(_MEGABYTE)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    # After a full flush nothing refers back: the same bytes may be repeated.
    unit = deflater.compress(zeros) + deflater.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(megabytes):
        checksum = zlib.crc32(zeros, checksum)
    trailer = struct.pack("<II", checksum, megabytes * _MEGABYTE & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + unit * megabytes + deflater.flush() + trailer
