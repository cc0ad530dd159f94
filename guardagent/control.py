"""The thread that brings rules back and reports status.

Owns: the rules in force and when to ask for newer ones. In: answers of the backend. Out: one
reference, swapped whole; callbacks; status reports.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from guardagent._clock import Bell, Clock, pause
from guardagent._ids import chance
from guardagent._log import say
from guardagent._quiet import quiet
from guardagent.config import AgentConfig
from guardagent.errors import DeliveryError, RulesError
from guardagent.rules import DynamicRules
from guardagent.status import AgentStatus, Callbacks, DropReason, Ledger
from guardagent.transport.answers import judge

__all__ = ["Control", "Exchange", "OnRules"]

_log = logging.getLogger(__name__)

#: What makes a document one of rules; a message alone does not.
_NAMES = {field.name for field in attrs.fields(DynamicRules)} - {"message"}

OnRules = Callable[[DynamicRules], object]

#: The first report comes after so many seconds, to tell of agents that do not live for long.
_FIRST_REPORT = 60.0
_JITTER = 0.1
#: A document of 100,000 networks is 2 MB; larger ones are refused.
_RULES_BYTES = 8 * 1024 * 1024


class Exchange(Protocol):
    """One request of the protocol; see `HTTPTransport.exchange`."""

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int = ...,
    ) -> Any:
        """Return the answer, whatever it is."""
        ...


class Control:
    """Polls the rules at intervals, and reports; `turn` does what is due.

    Polling begins at once when somebody first asks for rules: most applications only report. The
    last good rules stay in force through any failure, until they expire.
    """

    def __init__(
        self,
        config: AgentConfig,
        exchange: Exchange,
        ledger: Ledger,
        callbacks: Callbacks,
        clock: Clock,
        bell: Bell,
        status: Callable[[Mapping[str, int]], AgentStatus],
        *,
        rng: Callable[[], float] = chance,
    ) -> None:
        self._config = config
        self._exchange = exchange
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._bell = bell
        self._status = status
        self._rng = rng
        self._rules: DynamicRules | None = None
        self._rules_at = 0.0
        self._validators: dict[str, str] = {}
        self._poll_at = math.inf
        self._report_at = clock.monotonic() + self._spread(
            min(_FIRST_REPORT, config.status_interval)
        )
        self._reported: dict[str, int] = {}
        self._failing: set[str] = set()
        self._listeners: list[OnRules] = []
        #: Set once a poll has been answered, with rules or without.
        self.polled = threading.Event()
        self.is_closing = False

    def want(self) -> None:
        """Begin to poll, if that was not done yet."""
        if self._poll_at == math.inf:
            self._poll_at = self._clock.monotonic()
            self._bell.ring()

    def rules(self) -> DynamicRules | None:
        """Return the rules in force; None before the first and after their time."""
        rules = self._rules
        if rules is not None and rules.expires_at is not None:
            if rules.expires_at.timestamp() <= self._clock.now():
                return None
        return rules

    def rules_age(self) -> float | None:
        """Return the seconds since the backend last confirmed the rules in force."""
        return None if self._rules is None else self._clock.monotonic() - self._rules_at

    def listen(self, listener: OnRules) -> None:
        """Call `listener` with every new document, on the control thread."""
        self._listeners.append(listener)

    def unreported(self, losses: Mapping[DropReason, int] | None = None) -> dict[str, int]:
        """Return the losses by reason since the last report that was accepted."""
        totals = self._ledger.losses() if losses is None else losses
        new = {str(reason): n - self._reported.get(reason, 0) for reason, n in totals.items()}
        return {reason: n for reason, n in new.items() if n}

    def inherit(self, other: Control) -> None:
        """Begin with the rules of the process this one was forked from."""
        self._rules, self._rules_at = other._rules, other._rules_at
        self._validators = dict(other._validators)

    def pause(self, seconds: float) -> bool:
        """Wait before a retry; False as soon as the agent stops."""
        return pause(seconds, self._clock, self._bell, lambda: self.is_closing)

    def turn(self) -> float | None:
        """Do what is due; return the seconds until something is."""
        now = self._clock.monotonic()
        if now >= self._poll_at and self._poll_at <= self._report_at:
            self._poll_at = now + self._spread(self._config.dynamic_rule_interval)
            self._guarded("rules", self._poll)
        elif now >= self._report_at:
            self._report_at = now + self._spread(self._config.status_interval)
            self._guarded("status", self._report)
        return max(0.0, min(self._poll_at, self._report_at) - self._clock.monotonic())

    def _guarded(self, stage: str, work: Callable[[], None]) -> None:
        """Do the work; say so when a streak of failures begins and ends."""
        try:
            with quiet():
                work()
        except (DeliveryError, RulesError) as error:
            if self.is_closing:
                return  # cut off by ourselves
            if stage not in self._failing:
                self._failing.add(stage)
                kind = type(error).__name__
                say(_log, logging.WARNING, "The %s could not be exchanged (%s).", stage, kind)
            self._callbacks.error(stage, error)
        else:
            if stage in self._failing:
                self._failing.discard(stage)
                say(_log, logging.INFO, "The %s can be exchanged again.", stage)

    def _poll(self) -> None:
        answer = self._exchange("GET", "rules", None, self._validators, max_bytes=_RULES_BYTES)
        if answer.status == 304:
            self._rules_at = self._clock.monotonic()
        elif answer.status == 200:
            document = _document(answer.body)
            if document:
                self._adopt(DynamicRules.from_mapping(document), answer.headers)
        elif answer.status != 404:  # a backend without rules says 404, and that is no failure
            raise DeliveryError(f"HTTP {answer.status}", status=answer.status)
        self.polled.set()

    def _adopt(self, rules: DynamicRules, headers: Mapping[str, str]) -> None:
        known = self._rules
        if known is not None and known.rule_id == rules.rule_id:
            if rules.version < known.version:
                raise RulesError(f"version: given {rules.version}, in force: {known.version}")
        self._rules, self._rules_at = rules, self._clock.monotonic()
        pairs = (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
        self._validators = {ours: headers[theirs] for ours, theirs in pairs if headers.get(theirs)}
        self.polled.set()
        if known is None or (known.rule_id, known.version) != (rules.rule_id, rules.version):
            for listener in list(self._listeners):
                self._callbacks.call("on_rules", listener, rules)

    def _report(self) -> None:
        losses = self._ledger.losses()
        status = self._status(self.unreported(losses))
        body = json.dumps(attrs.asdict(status), separators=(",", ":"), default=dict).encode()
        answer = self._exchange("POST", "status", body)
        judge(answer, bytes_sent=len(body), now=0.0)
        self._reported = {str(reason): n for reason, n in losses.items()}

    def _spread(self, seconds: float) -> float:
        return seconds * (1 - _JITTER + 2 * _JITTER * self._rng())


def _document(body: bytes) -> dict[str, Any] | None:
    """Return a rules document; None for what is none, such as `{}` or `{"success": true}`.

    Raises:
        RulesError: the body is not a JSON object.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RulesError("rules: the answer is not JSON, or was cut off") from None
    if not isinstance(document, dict):
        raise RulesError("rules: the answer is not a JSON object")
    return document if _NAMES.intersection(document) else None
