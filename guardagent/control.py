"""The thread that brings rules back and reports status.

Owns: the rules in force and when to ask for newer ones. In: answers of the backend. Out: one
reference, swapped whole; callbacks; status reports.
"""

from __future__ import annotations

import hashlib
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
from guardagent.ruleset import RULES_BYTES, Keep, Recall, Ruleset
from guardagent.status import AgentStatus, Callbacks, DropReason, Ledger
from guardagent.transport.answers import judge

__all__ = ["Control", "Exchange", "OnRules"]

_log = logging.getLogger(__name__)

OnRules = Callable[[DynamicRules], object]

#: The first report comes after so many seconds, to tell of agents that do not live for long.
_FIRST_REPORT = 60.0
_JITTER = 0.1
#: Half the seconds after which rules are asked for again while there are none; doubled each time.
_FIRST_RETRY = 2.5
#: Rules that went unconfirmed for so many intervals are stale.
_FRESH_INTERVALS = 2.0


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

    Args:
        keep: keeps the last good document beyond this process, under a name.
        recall: returns what was kept, None for nothing; asked once, before the first poll.
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
        keep: Keep = lambda _name, _document: None,
        recall: Recall = lambda _name: None,
    ) -> None:
        self._config = config
        self._exchange = exchange
        self._ledger = ledger
        self._callbacks = callbacks
        self._clock = clock
        self._bell = bell
        self._status = status
        self._rng = rng
        self._ruleset = Ruleset(
            name=_kept_as(config),
            fresh_for=_FRESH_INTERVALS * config.dynamic_rule_interval,
            keep=keep,
            recall=recall,
            clock=clock,
        )
        self._has_recalled = False
        self._poll_at = math.inf
        self._retry_in = _FIRST_RETRY
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
        return self._ruleset.current()

    def rules_age(self) -> float | None:
        """Return the seconds since the backend last confirmed the rules; None without any."""
        return self._ruleset.age()

    def is_stale(self) -> bool:
        """Tell whether the rules are old: the backend failed to confirm them, or was not asked."""
        return self._ruleset.is_stale()

    def listen(self, listener: OnRules) -> None:
        """Call `listener` with every new document, on the control thread; not when one expires."""
        self._listeners.append(listener)

    def unreported(self, losses: Mapping[DropReason, int] | None = None) -> dict[str, int]:
        """Return the losses by reason since the last report that was accepted."""
        totals = self._ledger.losses() if losses is None else losses
        new = {str(reason): n - self._reported.get(reason, 0) for reason, n in totals.items()}
        return {reason: n for reason, n in new.items() if n}

    def inherit(self, other: Control) -> None:
        """Begin with the rules of the process this one was forked from."""
        self._ruleset.inherit(other._ruleset)

    def pause(self, seconds: float) -> bool:
        """Wait before a retry; False as soon as the agent stops."""
        return pause(seconds, self._clock, self._bell, lambda: self.is_closing)

    def turn(self) -> float | None:
        """Do what is due; return the seconds until something is."""
        now = self._clock.monotonic()
        if now >= self._poll_at and self._poll_at <= self._report_at:
            self._poll_at = now + self._spread(self._config.dynamic_rule_interval)
            if not self._guarded("rules", self._poll) and self.rules() is None:
                # Without any rules a whole interval is long: the backend may be back in a moment.
                self._retry_in *= 2
                self._poll_at = min(self._poll_at, now + self._spread(self._retry_in))
        elif now >= self._report_at:
            self._report_at = now + self._spread(self._config.status_interval)
            self._guarded("status", self._report)
        return max(0.0, min(self._poll_at, self._report_at) - self._clock.monotonic())

    def _guarded(self, stage: str, work: Callable[[], None]) -> bool:
        """Do the work; say so when a streak of failures begins and ends. False: it failed."""
        try:
            with quiet():
                work()
        except (DeliveryError, RulesError) as error:
            if self.is_closing:
                return False  # cut off by ourselves
            if stage not in self._failing:
                self._failing.add(stage)
                kind = type(error).__name__
                say(_log, logging.WARNING, "The %s could not be exchanged (%s).", stage, kind)
            self._callbacks.error(stage, error)
            return False
        if stage in self._failing:
            self._failing.discard(stage)
            say(_log, logging.INFO, "The %s can be exchanged again.", stage)
        return True

    def _poll(self) -> None:
        if not self._has_recalled:
            self._has_recalled = True
            self._tell(self._ruleset.restore())
        try:
            self._ask()
        except BaseException:
            self._ruleset.doubt()
            if self.rules() is not None:
                self.polled.set()  # older rules are better than waiting for none
            raise
        self.polled.set()
        self._ruleset.save()

    def _ask(self) -> None:
        validators = self._ruleset.validators
        answer = self._exchange("GET", "rules", None, validators, max_bytes=RULES_BYTES)
        if answer.status == 304:
            self._ruleset.confirm()
        elif answer.status == 200:
            rules = self._ruleset.take(answer.body, answer.headers)
            self.polled.set()
            self._tell(rules)
        elif answer.status != 404:  # a backend without rules says 404, and that is no failure
            raise DeliveryError(f"HTTP {answer.status}", status=answer.status)

    def _tell(self, rules: DynamicRules | None) -> None:
        if rules is not None:
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


def _kept_as(config: AgentConfig) -> str:
    """Return a name of its own for each backend and project: rules of another one are foreign."""
    source = f"{config.endpoint}\n{config.project_id or ''}".encode("utf-8", "replace")
    return f"rules-{hashlib.blake2b(source, digest_size=8).hexdigest()}"
