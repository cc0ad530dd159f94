"""The rules document the collector hands out, read from a file that may change at any time."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

from guardagent.collector.answers import Answer, Refused
from guardagent.collector.body import parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rulebook"]


@attrs.frozen
class Rulebook:
    """Serves one JSON object; `{}`, "no rules", without a file (WIRE.md 7).

    Args:
        path: read anew for each request, so that an edit takes effect at the next poll.
    """

    path: Path | None = None

    def answer(self, if_none_match: str = "") -> Answer:
        """Return the document, or 304 when the asker has it already (RFC 9110, 13.1.2).

        Raises:
            Refused: the file cannot be read or is not a JSON object (500); agents then keep
                their rules.
        """
        document = self.read()
        tag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
        headers = (("ETag", tag), ("Cache-Control", "no-cache"))
        known = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
        if tag in known or "*" in known:
            return Answer(HTTPStatus.NOT_MODIFIED, document, headers, has_body=False)
        return Answer(HTTPStatus.OK, document, headers)

    def read(self) -> bytes:
        """Return the document as it is in the file.

        Raises:
            Refused: it cannot be read or is not a JSON object.
        """
        if self.path is None:
            return b"{}"
        try:
            document = self.path.read_bytes()
        except OSError as error:
            raise _unusable([f"cannot be read: {error.strerror}"]) from error
        try:
            rules = parse_json(document)
        except Refused as refused:
            raise _unusable(refused.errors) from refused
        if not isinstance(rules, dict):
            raise _unusable(["not a JSON object"])
        return document


def _unusable(errors: list[str]) -> Refused:
    reasons = [f"rules document: {error}" for error in errors]
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, reasons)
