"""Opens sealed batches (WIRE.md 5) with the keys the collector was given."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from guardagent.collector.answers import Refused
from guardagent.config import AgentConfig
from guardagent.transport.sealing import Sealer, SealError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Unsealer"]


class Unsealer:
    """Tries each of its keys in turn, so that keys can be rotated.

    Args:
        keys: 32 bytes in base64 each; none: nothing can be opened.

    Raises:
        ConfigError: a key is of another form, or the extra `crypto` is not installed.
    """

    def __init__(self, keys: Collection[str] = ()) -> None:
        self._sealers = [Sealer(_checked(key)) for key in keys]

    def open(self, sealed: str) -> bytes:
        """Return what was sealed.

        Raises:
            Refused: there is no key at all (403), or none of them opens it (401). An agent keeps
                what it has on either, and sends it again once the keys are right.
        """
        if not self._sealers:
            reason = "encrypted_payload: this collector has no key to open it with"
            raise Refused(HTTPStatus.FORBIDDEN, [reason])
        for sealer in self._sealers:
            try:
                return sealer.open(sealed)
            except SealError as error:
                reason = f"encrypted_payload: {error}"
        raise Refused(HTTPStatus.UNAUTHORIZED, [reason])


def _checked(key: str) -> str:
    """Check a key as an agent checks its own."""
    return str(AgentConfig(api_key=None, project_encryption_key=key).project_encryption_key)
