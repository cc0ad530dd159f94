"""The rules in force: the last good document, how old it is, and the copy that outlives a process.

Owns: one reference, swapped whole. In: bodies of answers, and what was kept. Out: rules.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from guardagent._clock import Clock
from guardagent._log import say
from guardagent.errors import RulesError
from guardagent.rules import DynamicRules

__all__ = ["RULES_BYTES", "Keep", "Recall", "Ruleset"]

_log = logging.getLogger(__name__)

#: Keeps bytes under a name, and returns them; what a spool does with `put` and `get`.
Keep = Callable[[str, bytes], object]
Recall = Callable[[str], bytes | None]

#: A document of 100,000 networks is 2 MB; larger ones are refused.
RULES_BYTES = 8 * 1024 * 1024
#: What costs memory in JSON: commas part the entries, and each object or list is 100 bytes or so.
_COMMAS_MAX = 600_000
_NESTS_MAX = 60_000

#: Rule ids whose last version is remembered.
_IDS_MAX = 16

#: What makes a document one of rules; a message alone does not.
_NAMES = {field.name for field in attrs.fields(DynamicRules)} - {"message"}
#: The header that a later request has for one of an answer.
_VALIDATORS = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
#: Longer ones are not sent back.
_VALIDATOR_MAX = 1000


@attrs.frozen
class _Held:
    """A document and what is known of it; replaced as a whole.

    Args:
        confirmed_at: monotonic seconds of the answer that brought or confirmed it.
        is_doubtful: whether the backend failed to confirm it since.
        digest: of the body, to know it again.
    """

    rules: DynamicRules
    confirmed_at: float
    digest: bytes
    validators: Mapping[str, str]
    is_doubtful: bool = False


class Ruleset:
    """Keeps the last good rules; changed by one thread, read by any.

    Args:
        name: under which they are kept; different for different backends and projects.
        fresh_for: seconds after which rules nobody confirmed are stale; at least their `ttl`.
        keep: keeps the document for the next process; may take its time, and fail.
        recall: returns what was kept last.
        clock: tells the time.
    """

    def __init__(
        self, *, name: str, fresh_for: float, keep: Keep, recall: Recall, clock: Clock
    ) -> None:
        self._name = name
        self._fresh_for = fresh_for
        self._keep = keep
        self._recall = recall
        self._clock = clock
        self._held: _Held | None = None
        self._unsaved: bytes | None = None
        #: The digest of the last body that is not in force, and what it was read as.
        self._last: tuple[bytes, DynamicRules | RulesError | None] | None = None
        #: By rule id, the version that was put in force last and its end; the latest at the end.
        self._versions: dict[str, tuple[int, dt.datetime | None]] = {}

    def current(self) -> DynamicRules | None:
        """Return the rules in force; None before the first and after their time."""
        held = self._held
        return None if held is None or self._has_expired(held.rules) else held.rules

    def age(self) -> float | None:
        """Return the seconds since the backend brought or confirmed the last rules."""
        held = self._held
        return None if held is None else self._clock.monotonic() - held.confirmed_at

    def is_stale(self) -> bool:
        """Tell whether the backend has failed to confirm the rules, or was not asked for long."""
        held = self._held
        if held is None:
            return False
        age = self._clock.monotonic() - held.confirmed_at
        return held.is_doubtful or age > max(self._fresh_for, held.rules.ttl)

    @property
    def validators(self) -> Mapping[str, str]:
        """The headers that ask for a newer document only."""
        return {} if self._held is None else self._held.validators

    def confirm(self) -> None:
        """Note that the backend has nothing newer."""
        if self._held is not None:
            now = self._clock.monotonic()
            self._held = attrs.evolve(self._held, confirmed_at=now, is_doubtful=False)

    def doubt(self) -> None:
        """Note that the backend did not answer, or not with rules."""
        if self._held is not None:
            self._held = attrs.evolve(self._held, is_doubtful=True)

    def take(self, body: bytes, headers: Mapping[str, str]) -> DynamicRules | None:
        """Put a document in force.

        Returns:
            The rules when they say something else than the last ones; None when nothing is new,
            the answer holds no rules, or they have expired already.

        Raises:
            RulesError: they cannot be used; those in force stay.
        """
        held = self._held
        digest = _digest(body)
        if held is not None and held.digest == digest:
            self._held = attrs.evolve(held, validators=_validators(headers))
            self.confirm()
            return None
        rules = self._read_once(digest, body)
        if rules is None:
            return None
        self._refuse_older(rules)
        known = None if held is None else held.rules
        self._put_in_force(_Held(rules, self._clock.monotonic(), digest, _validators(headers)))
        self._unsaved, self._last = body, None
        return None if _is_same(rules, known) or self._has_expired(rules) else rules

    def save(self) -> None:
        """Keep the document in force for the next process, if that was not done yet."""
        held, body, self._unsaved = self._held, self._unsaved, None
        if held is None or body is None:
            return
        head = {"saved_at": self._clock.now(), "validators": dict(held.validators)}
        try:
            self._keep(self._name, json.dumps(head).encode() + b"\n" + body)
        except Exception as error:  # of a spool: the rules are in force all the same
            kind = type(error).__name__
            say(_log, logging.WARNING, "The rules could not be kept (%s).", kind)

    def restore(self) -> DynamicRules | None:
        """Put what was kept in force, stale until the backend confirms it; return it."""
        if self._held is not None:
            return None
        try:
            kept = self._recall(self._name)
            if kept is None:
                return None
            self._put_in_force(self._from_kept(kept))
        except Exception as error:  # a spool's own, or whatever foreign bytes lead to
            kind = type(error).__name__
            say(_log, logging.WARNING, "The rules that were kept cannot be used (%s).", kind)
            return None
        return self.current()

    def inherit(self, other: Ruleset) -> None:
        """Begin with the rules of the process this one was forked from."""
        self._held = other._held
        self._versions = dict(other._versions)

    def _read_once(self, digest: bytes, body: bytes) -> DynamicRules | None:
        """Read a body; the same bad one is not read again at every poll."""
        if self._last is None or self._last[0] != digest:
            self._last = digest, _outcome(body)
        outcome = self._last[1]
        if isinstance(outcome, RulesError):
            raise RulesError(str(outcome))
        return outcome

    def _refuse_older(self, rules: DynamicRules) -> None:
        # Another rule id, or an end of the higher version, is how a backend takes it back.
        version, end = self._versions.get(rules.rule_id, (rules.version, None))
        if rules.version < version and not self._is_over(end):
            raise RulesError(f"version: given {rules.version}, taken before: {version}")

    def _put_in_force(self, held: _Held) -> None:
        rules = held.rules
        self._held = held
        self._versions.pop(rules.rule_id, None)
        self._versions[rules.rule_id] = rules.version, rules.expires_at
        if len(self._versions) > _IDS_MAX:
            del self._versions[next(iter(self._versions))]

    def _from_kept(self, kept: bytes) -> _Held:
        head, _, body = kept.partition(b"\n")
        rules = _read(body)
        facts = json.loads(head)
        saved_at = float(facts["saved_at"])
        if rules is None or not math.isfinite(saved_at):
            raise RulesError("rules: what was kept is not a document")
        age = max(0.0, self._clock.now() - saved_at)
        validators = {
            name: value
            for name, value in facts["validators"].items()
            if name in _VALIDATORS and _is_sendable(value)
        }
        confirmed_at = self._clock.monotonic() - age
        return _Held(rules, confirmed_at, _digest(body), validators, is_doubtful=True)

    def _has_expired(self, rules: DynamicRules) -> bool:
        return self._is_over(rules.expires_at)

    def _is_over(self, end: dt.datetime | None) -> bool:
        return end is not None and end.timestamp() <= self._clock.now()


def _read(body: bytes) -> DynamicRules | None:
    """Return the rules of a document; None for what is none, such as `{}`, `{"success": true}`.

    Raises:
        RulesError: the body is no JSON object, too large a one, or one with a bad value.
    """
    if len(body) > RULES_BYTES:
        raise RulesError(f"rules: given {len(body)} bytes, allowed: at most {RULES_BYTES}")
    if body.count(b",") > _COMMAS_MAX or body.count(b"[") + body.count(b"{") > _NESTS_MAX:
        raise RulesError("rules: the document has too many parts")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RulesError("rules: the answer is not JSON, or was cut off") from None
    if not isinstance(document, dict):
        raise RulesError("rules: the answer is not a JSON object")
    if not _NAMES.intersection(document):
        return None
    return DynamicRules.from_mapping(document)


def _outcome(body: bytes) -> DynamicRules | RulesError | None:
    try:
        return _read(body)
    except RulesError as error:
        return RulesError(str(error))  # without the traceback, which holds the body


def _is_same(rules: DynamicRules, known: DynamicRules | None) -> bool:
    """Tell whether two documents differ in their time only, which may be that of the answer."""
    return known is not None and attrs.evolve(rules, timestamp=known.timestamp) == known


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    found = {ours: headers.get(theirs) for ours, theirs in _VALIDATORS.items()}
    return {name: value for name, value in found.items() if value and _is_sendable(value)}


def _is_sendable(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _VALIDATOR_MAX
