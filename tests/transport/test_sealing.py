"""Signature, compression, encryption."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import os
import subprocess
import sys
import zlib

import pytest

from guardagent.errors import ConfigError
from guardagent.transport import sealing
from guardagent.transport.sealing import Sealer, SealError, compress, sign

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


def test_signature() -> None:
    """HMAC-SHA256 of the body under the secret's UTF-8, as WIRE.md 4 has it."""
    expected = hmac.new("sécret".encode(), b"body", hashlib.sha256).hexdigest()

    assert sign("sécret", b"body") == f"v1={expected}"


@pytest.mark.parametrize("body", [b"", b"x", b"event " * 10_000, os.urandom(5_000)])
def test_compressed_body_is_gzip(body: bytes) -> None:
    """Any reader of gzip gets it back."""
    pressed = compress(body)

    assert pressed is not None
    assert gzip.decompress(pressed) == body


def test_compression_depends_on_the_body_alone() -> None:
    """No time of day in its header: a retry sends the same bytes."""
    pressed = compress(b"event" * 500)

    assert pressed == compress(b"event" * 500)
    assert pressed is not None
    assert pressed[4:8] == bytes(4)


@pytest.mark.parametrize("error", [zlib.error("x"), MemoryError()])
def test_compression_that_fails_is_none(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body then goes as it is (FIELD N6)."""

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(sealing.zlib, "compressobj", fail)

    assert compress(b"body") is None


def test_sealed_payload_can_be_opened() -> None:
    """Urlsafe base64 of nonce, ciphertext and tag; AES-256-GCM without further data."""
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")

    sealed = base64.urlsafe_b64decode(Sealer(KEY).seal(b"payload"))

    assert aead.AESGCM(bytes(range(32))).decrypt(sealed[:12], sealed[12:], None) == b"payload"


def test_each_payload_has_its_own_nonce() -> None:
    """The same payload never gives the same text twice."""
    pytest.importorskip("cryptography")
    sealer = Sealer(KEY)

    assert len({sealer.seal(b"payload")[:16] for _ in range(50)}) == 50


def test_what_is_sealed_can_be_opened() -> None:
    """With the same key, and only whole and unchanged."""
    pytest.importorskip("cryptography")
    sealed = Sealer(KEY).seal(b"payload")

    assert Sealer(KEY).open(sealed) == b"payload"
    for harmed in (sealed[:-4], sealed[:10], "", f"{sealed}\n", f"\u00e9{sealed[1:]}"):
        with pytest.raises(SealError, match="another key, altered or cut off"):
            Sealer(KEY).open(harmed)
    with pytest.raises(SealError):
        Sealer(base64.urlsafe_b64encode(bytes(32)).decode()).open(sealed)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in plain text instead."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(ConfigError, match=r"guardagent\[crypto\]"):
        Sealer(KEY)


def test_cryptography_loads_only_with_a_key() -> None:
    """Most applications have none."""
    code = "import sys, guardagent.transport.http; sys.exit('cryptography' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
