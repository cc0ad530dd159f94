"""Where rules are kept and can be changed: at a collector, or in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from guardagent._clock import SYSTEM_CLOCK
from guardagent.cli.tally import printable
from guardagent.cli.verdict import on_error
from guardagent.collector.answers import Refused
from guardagent.collector.rulebook import MAX_RULES_BYTES, Rulebook, unknown_keys
from guardagent.errors import DeliveryError, GuardAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from guardagent import AgentConfig
    from guardagent.transport.answers import Answer

__all__ = ["Collector", "File", "Kept", "Place", "PlaceError", "Stored", "UnreadableError"]


class PlaceError(GuardAgentError):
    """The rules cannot be read or changed there; the message says why and what to look at."""


class UnreadableError(PlaceError):
    """The place is there, but what it holds is no rules document; another one may replace it."""


@attrs.frozen
class Kept:
    """A document and its entity tag."""

    document: Mapping[str, Any]
    tag: str


@attrs.frozen(kw_only=True)
class Stored:
    """What became of a document that was put there.

    Args:
        ignored: keys that agents do not know.
    """

    is_new: bool
    rule_id: str
    version: int
    ignored: list[str]


class Place(Protocol):
    """Keeps one rules document."""

    def get(self, tag: str = "") -> Kept | None:
        """Return the document, or None when it still has this tag.

        Raises:
            PlaceError: it cannot be had.
        """
        ...

    def put(self, document: Mapping[str, Any], *, tag: str = "") -> Stored:
        """Replace the document, under the next version.

        Args:
            document: checked already.
            tag: the document that is to be replaced has it; any may be without.

        Raises:
            PlaceError: it was not replaced.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class File:
    """A file, as `guardagent collect --rules` reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._book = Rulebook(path)

    def get(self, tag: str = "") -> Kept | None:
        """Read the file."""
        try:
            edition = self._book.read()
        except Refused as refused:
            raise UnreadableError(self._told(refused)) from refused
        return None if edition.tag == tag else Kept(edition.document, edition.tag)

    def put(self, document: Mapping[str, Any], *, tag: str = "") -> Stored:
        """Write the file."""
        try:
            edition = self._book.replace(document, if_match=tag)
        except Refused as refused:
            raise PlaceError(self._told(refused)) from refused
        return Stored(
            is_new=edition.is_new,
            rule_id=edition.rules.rule_id,
            version=edition.rules.version,
            ignored=unknown_keys(edition.document),
        )

    def close(self) -> None:
        """Do nothing: the file is not held open."""

    def _told(self, refused: Refused) -> str:
        return f"{self._path}: {'; '.join(refused.errors)}"


class Collector:
    """A collector, asked the way agents ask it."""

    def __init__(self, config: AgentConfig) -> None:
        from guardagent.transport.http import HTTPTransport  # takes requests along

        self._config = config
        self._transport = HTTPTransport(config, pause=lambda _seconds: False)

    def get(self, tag: str = "") -> Kept | None:
        """Ask for the document."""
        answer = self._ask("GET", headers={"If-None-Match": tag} if tag else None)
        if answer.status == 304:
            return None
        return Kept(_parsed(answer), answer.headers.get("ETag") or "")

    def put(self, document: Mapping[str, Any], *, tag: str = "") -> Stored:
        """Send the document."""
        body = json.dumps(document, separators=(",", ":")).encode()
        told = _parsed(self._ask("PUT", body, {"If-Match": tag} if tag else None))
        try:
            return Stored(
                is_new=bool(told["changed"]),
                rule_id=str(told["rule_id"]),
                version=int(told["version"]),
                ignored=[str(key) for key in told["ignored"]],
            )
        except (LookupError, TypeError, ValueError) as error:
            raise PlaceError("the answer is not a guardagent collector's") from error

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _ask(
        self, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        deadline = SYSTEM_CLOCK.monotonic() + self._config.timeout
        try:
            answer = self._transport.exchange(
                method, "rules", body, headers, deadline=deadline, max_bytes=MAX_RULES_BYTES
            )
        except DeliveryError as error:
            verdict = on_error(error, self._config)
            raise PlaceError(f"{verdict.reason}. {verdict.advice}") from error
        if answer.status in (200, 304):
            return answer
        raise self._refused(answer, method)

    def _refused(self, answer: Answer, method: str) -> PlaceError:
        reason = _reason(answer)
        if answer.status in (401, 403):
            return PlaceError(f"the key is refused ({reason}). See --api-key and --secret.")
        if answer.status in (404, 405):
            what = "read" if method == "GET" else "changed"
            return PlaceError(
                f"no rules can be {what} at {self._config.endpoint} ({reason}). "
                'Is it a "guardagent collect"?'
            )
        kind = UnreadableError if answer.status == 500 and method == "GET" else PlaceError
        return kind(f"the collector says: {reason}")


def _parsed(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise PlaceError("the answer is not JSON, or was cut off") from error
    if not isinstance(document, dict):
        raise PlaceError("the answer is not a JSON object")
    return document


def _reason(answer: Answer) -> str:
    """Return the reasons a collector gives; the status alone for what is none."""
    try:
        errors = json.loads(answer.body)["errors"]
        return printable("; ".join(errors), 2_000)
    except (ValueError, RecursionError, LookupError, TypeError):
        return f"HTTP {answer.status}"
