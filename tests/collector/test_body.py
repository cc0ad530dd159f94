"""Request bodies: lengths, gzip, signatures and JSON."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import io
import zlib
from random import Random
from typing import Any

import pytest

from guardagent.collector.answers import Refused
from guardagent.collector.body import check_signature, inflate, parse_json, read_body, write_json


def _environ(data: bytes, **headers: str) -> dict[str, Any]:
    return {"CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data), **headers}


def _refused(environ: dict[str, Any], max_bytes: int = 1_000) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        read_body(environ, max_bytes=max_bytes)
    (reason,) = caught.value.errors
    return caught.value.status, reason


class _Stalled(io.RawIOBase):
    """A stream that gives some bytes and then nothing in time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        data, self._data = self._data[:size], b""
        if not data:
            raise TimeoutError
        return data


@pytest.mark.parametrize("encoding", ["", "identity", "Identity "])
def test_a_plain_body_is_read_up_to_its_length(encoding: str) -> None:
    """Bytes after the promised length belong to the next request."""
    environ = _environ(b"1234", HTTP_CONTENT_ENCODING=encoding)
    environ["wsgi.input"] = io.BytesIO(b"1234GET /")

    assert read_body(environ, max_bytes=4) == b"1234"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP"])
def test_gzip_is_undone(encoding: str) -> None:
    """A compressed body comes out as it was signed."""
    environ = _environ(gzip.compress(b"hello"), HTTP_CONTENT_ENCODING=encoding)

    assert read_body(environ, max_bytes=1_000) == b"hello"


def test_members_of_gzip_are_joined() -> None:
    """RFC 1952 allows several members one after the other."""
    assert inflate(gzip.compress(b"one ") + gzip.compress(b"two"), max_bytes=7) == b"one two"


def test_members_are_joined_however_they_fall() -> None:
    """Nothing is lost where a piece of the body ends within a member, or with it."""
    parts = [bytes([number % 251]) * (number * 7) for number in range(1_000)]
    whole = b"".join(parts)
    random = Random(1).randbytes(150_000)

    assert inflate(b"".join(map(gzip.compress, parts)), max_bytes=len(whole)) == whole
    assert inflate(gzip.compress(random) * 3, max_bytes=450_000) == random * 3


def test_members_are_bounded() -> None:
    """Millions of empty ones are much work for nothing."""
    many = gzip.compress(b"") * 200_000

    with pytest.raises(Refused) as caught:
        inflate(many, max_bytes=1_000)

    assert caught.value.errors == ["body: gzip of more than 1000 members"]


def test_an_empty_member_is_nothing() -> None:
    """The gzip of nothing is nothing."""
    assert inflate(gzip.compress(b""), max_bytes=0) == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", "body: not gzip: Error"),
        (b"", "body: not gzip: it ends in the middle"),
        (gzip.compress(b"hello", mtime=0)[:-3], "body: not gzip: it ends in the middle"),
        (gzip.compress(b"hello", mtime=0) + b"tail", "body: not gzip: Error"),
        (gzip.compress(b"hello", mtime=0)[:-8] + b"\0" * 8, "body: not gzip: Error"),
        (zlib.compress(b"hello"), "body: not gzip: Error"),
    ],
)
def test_what_is_not_gzip_is_refused(data: bytes, reason: str) -> None:
    """Broken, cut, padded and mislabelled gzip is a 400 that says so."""
    status, given = _refused(_environ(data, HTTP_CONTENT_ENCODING="gzip"))

    assert status == 400
    assert given.startswith(reason)


@pytest.mark.parametrize("members", [1, 40])
def test_a_gzip_bomb_is_not_inflated(members: int) -> None:
    """A body that grows beyond the bound is a 413, in one member or over many."""
    data = gzip.compress(b"\0" * (8_000_000 // members)) * members

    status, reason = _refused(_environ(data, HTTP_CONTENT_ENCODING="gzip"), max_bytes=1_000_000)

    assert status == 413
    assert reason == "body: given more when inflated, allowed: 1000000 bytes"


def test_the_bound_itself_is_allowed() -> None:
    """A body of exactly the bound is taken, plain and inflated."""
    data = b"x" * 500

    assert read_body(_environ(data), max_bytes=500) == data
    assert inflate(gzip.compress(data), max_bytes=500) == data


def test_a_long_body_is_refused_unread() -> None:
    """Content-Length alone decides, before a byte is read."""
    environ = _environ(b"x" * 1_001)

    assert _refused(environ) == (413, "body: given 1001 bytes, allowed: 1000 bytes")
    assert environ["wsgi.input"].tell() == 0


def test_other_encodings_are_named() -> None:
    """An encoding nobody asked for is a 415 that says what is taken."""
    assert _refused(_environ(b"x", HTTP_CONTENT_ENCODING="br")) == (
        415,
        "Content-Encoding: given 'br', allowed: gzip, identity",
    )


@pytest.mark.parametrize("length", ["", None])
def test_a_length_is_needed(length: str | None) -> None:
    """Without Content-Length the end of the body cannot be known."""
    status, reason = _refused({**_environ(b"x"), "CONTENT_LENGTH": length})

    assert status == 411
    assert reason.startswith("Content-Length: missing")


def test_chunks_are_not_taken() -> None:
    """Transfer-Encoding beside Content-Length is an attack (RFC 9112, 6.3): refused."""
    assert _refused(_environ(b"x", HTTP_TRANSFER_ENCODING="chunked"))[0] == 411


@pytest.mark.parametrize("length", ["-1", "1.0", "+7", "0x10", "٣", "9" * 30])
def test_a_length_is_a_number(length: str) -> None:
    """A Content-Length that is no number is a 400."""
    status, reason = _refused({**_environ(b"x"), "CONTENT_LENGTH": length})

    assert status == 400
    assert reason == "Content-Length: allowed: a number of bytes"


def test_a_body_that_stops_is_asked_for_again() -> None:
    """A sender that is cut off gets 408, which agents take as "send it again"."""
    environ = _environ(b"x" * 10)

    ended = _refused({**environ, "wsgi.input": io.BytesIO(b"xyz")})
    stalled = _refused({**environ, "wsgi.input": _Stalled(b"xyz")})

    assert ended == stalled
    assert ended == (408, "body: 3 bytes came of the 10 that Content-Length promised")


def test_the_right_signature_passes() -> None:
    """The signature is HMAC-SHA256 over the plain bytes."""
    digest = hmac.new(b"secret", b"body", hashlib.sha256).hexdigest()

    check_signature(b"body", f"v1={digest}", secret=b"secret")


@pytest.mark.parametrize(
    ("given", "what"),
    [("", "missing"), ("v1=", "given another value"), ("ünsigned", "given another value")],
)
def test_another_signature_is_refused(given: str, what: str) -> None:
    """A missing or other signature is a 401 that never shows the right one."""
    with pytest.raises(Refused) as caught:
        check_signature(b"body", given, secret=b"secret")

    reason = f"X-Payload-Signature: {what}, allowed: v1=<hex HMAC-SHA256 of the body>"
    assert caught.value.status == 401
    assert caught.value.errors == [reason]


def test_json_is_parsed() -> None:
    """Strict JSON comes out as Python values, escaped surrogates included."""
    assert parse_json(b'{"a": [1, 2.5, null, "\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, "😀"]}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "body: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"{'a': 1}", "body: not JSON: Expecting property name"),
        (b"{} {}", "body: not JSON: Extra data"),
        (b'{"a": NaN}', "body: not JSON: NaN is not a number that JSON has"),
        (b"[Infinity]", "body: not JSON: Infinity is not a number that JSON has"),
        (b"[-Infinity]", "body: not JSON: -Infinity is not a number that JSON has"),
        (b"[1e999]", "body: not JSON: 1e999 is beyond all numbers"),
        (b"[" + b"9" * 5_000 + b"]", "body: not JSON: "),
        (b'"\xff"', "body: not UTF-8 at byte 1"),
        ("{}".encode("utf-16"), "body: not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf{}", "body: not JSON: Unexpected UTF-8 BOM"),
        (b"[" * 200_000, "body: nested too deep"),
    ],
)
def test_what_is_not_json_is_refused(raw: bytes, reason: str) -> None:
    """Everything that RFC 8259 does not allow is a 400 that says what."""
    with pytest.raises(Refused) as caught:
        parse_json(raw)

    assert caught.value.status == 400
    assert caught.value.errors[0].startswith(reason)


def test_json_is_written_as_it_was_read() -> None:
    """What is kept is the same value, in ASCII."""
    value = {"a": [1, 2.5, None, True, "\ud800é"], "big": 10**40}

    written = write_json(value)

    assert written.isascii()
    assert parse_json(written.encode()) == value


def test_what_cannot_be_written_is_refused() -> None:
    """Nesting that is beyond the writer is a 400 like that beyond the reader."""
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]

    with pytest.raises(Refused) as caught:
        write_json(nested)

    assert (caught.value.status, caught.value.errors) == (400, ["body: nested too deep"])
