"""The secrets of a configuration as they are now: from a text, a callable or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from guardagent._settings import sealing_key
from guardagent.config import AgentConfig
from guardagent.errors import SetupError
from guardagent.transport.sealing import Sealer, needs_crypto

__all__ = ["Secrets", "SecretsReader"]


@attrs.frozen(repr=False)
class Secrets:
    """What one request is sent with; None where it needs none, or there is none."""

    api_key: str
    signing: str | None = None
    sealer: Sealer | None = None


class SecretsReader:
    """Reads them for each batch, so that they can be rotated; used by one thread at a time.

    Raises:
        ConfigError: the extra `crypto` is not installed, and there is a key for it.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._sealer: tuple[str, Sealer] | None = None
        if config.project_encryption_key is not None:
            needs_crypto()

    def read(self, *, signs: bool, seals: bool = False) -> Secrets:
        """Return what a request needs.

        Raises:
            SetupError: a source fails, or gives something that cannot be used.
        """
        config = self._config
        signing, sealing = config.payload_signing_secret, config.project_encryption_key
        return Secrets(
            _read("api_key", config.api_key, _header, "empty or not printable ASCII"),
            _read("payload_signing_secret", signing, str, "empty")
            if signs and signing is not None
            else None,
            self._sealer_of(_read("project_encryption_key", sealing, sealing_key, "no 32 bytes"))
            if seals and sealing is not None
            else None,
        )

    def _sealer_of(self, key: str) -> Sealer:
        """Return the same sealer for the same key: by it a batch knows what it was sealed with."""
        if self._sealer is None or self._sealer[0] != key:
            self._sealer = key, Sealer(key)
        return self._sealer[1]


def _read(name: str, source: Any, fit: Callable[[str], str | None], wrong: str) -> str:
    """Return a secret that fits; spaces around one that is read anew are dropped."""
    try:
        if isinstance(source, Path):
            text: Any = source.read_text("utf-8").strip()
        elif callable(source):
            text = source()
            text = text.strip() if isinstance(text, str) else None
        else:
            text = source
    except Exception as error:  # the application's callable, or an unreadable file
        raise SetupError(f"the {name} could not be read: {type(error).__name__}") from error
    found = fit(text) if isinstance(text, str) else None
    if not found:
        raise SetupError(f"the {name} that was read is {wrong}")
    return found


def _header(text: str) -> str | None:
    text = text.strip()
    return text if text.isascii() and text.isprintable() else None
