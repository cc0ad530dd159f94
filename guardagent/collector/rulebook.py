"""The rules document the collector hands out: checked, tagged, and given a version when changed."""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import threading
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.collector.answers import Answer, Refused
from guardagent.collector.body import parse_json
from guardagent.collector.files import overwrite
from guardagent.errors import RulesError
from guardagent.plain import wire_time
from guardagent.rules import DynamicRules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MAX_RULES_BYTES", "Edition", "Rulebook", "unknown_keys"]

#: No agent of ours reads a larger document.
MAX_RULES_BYTES = 8 * 1024 * 1024

#: What the book itself writes into a document that is changed.
_STAMPED = ("rule_id", "version", "timestamp")


@attrs.frozen(kw_only=True)
class Edition:
    """A document as it is handed out.

    Args:
        modified_at: unix seconds.
        is_new: what `Rulebook.replace` returned differs from what was there.
    """

    body: bytes
    document: Mapping[str, Any]
    rules: DynamicRules
    modified_at: float
    is_new: bool = False

    @property
    def tag(self) -> str:
        """The entity tag: the same for the same bytes, in every process."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with the document."""
        modified = formatdate(self.modified_at, usegmt=True)
        return ("ETag", self.tag), ("Last-Modified", modified), ("Cache-Control", "no-cache")

    def is_known(self, if_none_match: str, if_modified_since: str) -> bool:
        """Tell whether the asker has it already; the tag beats the time (RFC 9110, 13.2.2)."""
        if if_none_match:
            return _names(if_none_match, self.tag)
        try:
            since = parsedate_to_datetime(if_modified_since)
        except (TypeError, ValueError, OverflowError):  # no date at all, or none of HTTP's
            return False
        return int(self.modified_at) <= since.replace(tzinfo=dt.timezone.utc).timestamp()


class Rulebook:
    """Serves one JSON object that agents can read; `{}`, "no rules", at first (WIRE.md 7).

    Safe to use from any thread. Two processes that write the same file at the same moment get
    one document or the other, whole.

    Args:
        path: holds the document and is read anew for each request, so that an edit takes effect
            at the next poll; without one it is kept in memory.
    """

    def __init__(self, path: Path | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        # Guards the edition from being replaced between its check and its change. Held while the
        # file is written: those who only read it never take it.
        self._lock = threading.Lock()
        self._edition = _edition(b"{}", clock.now())

    def answer(self, if_none_match: str = "", if_modified_since: str = "") -> Answer:
        """Return the document, or 304 when the asker has it already.

        Raises:
            Refused: the file cannot be read or is no rules document (500); agents then keep
                their rules.
        """
        edition = self.read()
        if edition.is_known(if_none_match, if_modified_since):
            headers = edition.headers()
            return Answer(HTTPStatus.NOT_MODIFIED, edition.body, headers, has_body=False)
        return Answer(HTTPStatus.OK, edition.body, edition.headers())

    def read(self) -> Edition:
        """Return the document as it is now.

        Raises:
            Refused: the file cannot be read or is no rules document (500).
        """
        if self._path is None:
            return self._edition
        try:
            modified_at = self._path.stat().st_mtime
            with self._path.open("rb") as file:
                body = file.read(MAX_RULES_BYTES + 1)
        except OSError as error:
            raise _unusable([f"cannot be read: {error.strerror}"]) from error
        # Checking a document of many networks takes a while; most polls find the same one.
        known = self._edition
        if known.body == body:
            return attrs.evolve(known, modified_at=modified_at)
        try:
            self._edition = _edition(body, modified_at)
        except Refused as refused:
            raise _unusable(refused.errors) from refused
        except RulesError as error:
            raise _unusable([str(error)]) from error
        return self._edition

    def replace(self, given: object, *, if_match: str = "") -> Edition:
        """Hand out another document from now on, under a version that agents take for newer.

        The version is the document's own when that is higher than the one in force, or its rule
        another; the next one otherwise. The timestamp is now. What differs in neither is no
        change.

        Args:
            given: the parsed document.
            if_match: entity tags, one of which the document in force must have; none: any.

        Raises:
            Refused: not a rules document (422), another one is in force (412), or the file cannot
                be written (500).
        """
        try:
            document, rules = _checked(given)
        except RulesError as error:
            reason = f"rules document: {error}"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, [reason]) from error
        with self._lock:
            current = self._current()
            if if_match and not (current and _names(if_match, current.tag)):
                reason = "If-Match: the rules were changed meanwhile"
                raise Refused(HTTPStatus.PRECONDITION_FAILED, [reason])
            if current is not None and not _differs(document, rules, current):
                return attrs.evolve(current, is_new=False)
            now = dt.datetime.fromtimestamp(self._clock.now(), dt.timezone.utc)
            version = _next_version(rules, current)
            stamps = dict(zip(_STAMPED, (rules.rule_id, version, wire_time(now)), strict=True))
            return self._write({**stamps, **_content(document)})

    def _current(self) -> Edition | None:
        """Return what is in force; None when the file is missing or broken: it is to be mended."""
        try:
            return self.read()
        except Refused:
            return None

    def _write(self, document: dict[str, Any]) -> Edition:
        body = json.dumps(document, indent=2).encode() + b"\n"
        try:
            edition = attrs.evolve(_edition(body, self._clock.now()), is_new=True)
        except RulesError as error:  # too large, now that it is indented
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [str(error)]) from error
        if self._path is not None:
            try:
                overwrite(self._path, body)
            except OSError as error:
                raise _unusable([f"cannot be written: {error.strerror}"]) from error
        self._edition = edition
        return edition


def unknown_keys(document: Mapping[str, Any]) -> list[str]:
    """Name the keys that agents ignore, each with the one that was probably meant."""
    known = [field.name for field in attrs.fields(DynamicRules)]
    found = []
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(key[:60], known, 1)
            found.append(f"{key[:60]} (did you mean {near[0]}?)" if near else key[:60])
    return found


def _edition(body: bytes, modified_at: float) -> Edition:
    """Read a document's bytes.

    Raises:
        Refused: they are not JSON (400).
        RulesError: agents could not use them.
    """
    if len(body) > MAX_RULES_BYTES:
        raise RulesError(f"larger than the {MAX_RULES_BYTES} bytes that agents read")
    document, rules = _checked(parse_json(body))
    return Edition(body=body, document=document, rules=rules, modified_at=modified_at)


def _checked(document: object) -> tuple[dict[str, Any], DynamicRules]:
    """Read a document with the code that agents read it with."""
    if not isinstance(document, dict):
        raise RulesError("not a JSON object")
    return document, DynamicRules.from_mapping(document)


def _differs(given: dict[str, Any], rules: DynamicRules, current: Edition) -> bool:
    if not current.document or rules.rule_id != current.rules.rule_id:
        return True
    if rules.version > current.rules.version:
        return True
    return _content(given) != _content(current.document)


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _STAMPED}


def _next_version(rules: DynamicRules, current: Edition | None) -> int:
    if current is None or not current.document or current.rules.rule_id != rules.rule_id:
        return rules.version
    return max(rules.version, current.rules.version + 1)


def _names(tags: str, tag: str) -> bool:
    """Tell whether a header names this tag, alone, weak, in a list or as a star."""
    named = {part.strip().removeprefix("W/") for part in tags.split(",")}
    return tag in named or "*" in named


def _unusable(errors: list[str]) -> Refused:
    reasons = [f"rules document: {error}" for error in errors]
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, reasons)
