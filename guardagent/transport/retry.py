"""The one retry layer: urllib3's Retry with the rules of DESIGN.md 6. Pure; waits by a callable."""

from __future__ import annotations

import email.utils
import math
import random
import re
from collections.abc import Callable
from typing import Any, ClassVar

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from guardagent.transport.protocol import BACKOFF_MAX, RETRY_AFTER_MAX

__all__ = ["DeliveryRetry", "Interrupted", "brief_cause", "parse_retry_after"]

#: Statuses after which the same request may pass.
RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
#: Share by which a back-off is lengthened at random.
_JITTER = 0.2

_SECONDS = re.compile(r"[0-9]{1,300}(?:\.[0-9]{1,20})?")


class Interrupted(Exception):
    """The wait before a retry was ended because the agent stops."""


def parse_retry_after(header: str | None, now: float) -> float | None:
    """Read Retry-After in either form of RFC 9110 10.2.3.

    Args:
        header: the field's value, whatever it holds.
        now: unix seconds, to compare a date with.

    Returns:
        Seconds above 0 and at most `RETRY_AFTER_MAX`; None when it says nothing of use (absent,
        in the past, zero, negative, not a number, nonsense): then the usual back-off applies.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text)
            seconds = moment.timestamp() - now
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, RETRY_AFTER_MAX)


class DeliveryRetry(Retry):
    """Retries POST, waits before the first retry too, and can be interrupted.

    Immutable like its parent: `increment` answers with a new one, through `new`.

    Args:
        attempts: how often a request is sent again.
        backoff_factor: the delay before retry n is `backoff_factor * 2 ** (n - 1)` plus jitter.
        pause: waits so many seconds; False when the wait was cut short because the agent stops.
        now: unix seconds, to read a Retry-After date.
        on_failure: told what became of a request that will be sent again, before the wait.
        on_retry: called when it is.
    """

    #: 413 asks for a smaller request, not for the same one later (its parent has it here).
    RETRY_AFTER_STATUS_CODES = frozenset({429, 503})

    _KEPT: ClassVar[tuple[str, ...]] = ("pause", "now", "on_failure", "on_retry")

    def __init__(
        self,
        *args: Any,
        pause: Callable[[float], bool],
        now: Callable[[], float],
        on_retry: Callable[[], None],
        on_failure: Callable[[str], object] = str,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.pause = pause
        self.now = now
        self.on_failure = on_failure
        self.on_retry = on_retry

    @classmethod
    def of(cls, attempts: int, backoff_factor: float, **hooks: Any) -> DeliveryRetry:
        """Return the policy of one configuration."""
        return cls(
            total=attempts,
            redirect=0,
            allowed_methods=frozenset({"GET", "POST"}),
            status_forcelist=RETRY_STATUSES,
            backoff_factor=backoff_factor,
            raise_on_status=False,
            **hooks,
        )

    def new(self, **kw: Any) -> DeliveryRetry:
        """Return a copy with other counts."""
        for name in self._KEPT:
            kw.setdefault(name, getattr(self, name))
        return super().new(**kw)

    def increment(self, *args: Any, **kwargs: Any) -> DeliveryRetry:
        """Count an attempt; raise what the parent raises when there are none left."""
        following = super().increment(*args, **kwargs)
        response = kwargs.get("response")
        if response is not None:
            # urllib3 now reads what is left of the answer, without bound, to reuse the
            # connection; a hostile backend could make that endless. A new connection is cheaper.
            response.close()
        return following

    def get_backoff_time(self) -> float:
        """Return the seconds before the next attempt; never 0 for the first, as the parent's is."""
        failures = len(self.history)
        if failures == 0:
            return 0.0
        delay = float(self.backoff_factor * 2 ** min(failures - 1, 32))
        return min(BACKOFF_MAX, delay) * (1 + _JITTER * random.random())

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the wait the backend asked for, bounded; None when it is of no use."""
        return parse_retry_after(response.headers.get("Retry-After"), self.now())

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait before the next attempt.

        Raises:
            Interrupted: the agent stops.
        """
        asked = self.get_retry_after(response) if response is not None else None
        delay = self.get_backoff_time() if asked is None else asked
        self.on_failure(self._last_cause())
        if not self.pause(delay):
            raise Interrupted
        self.on_retry()

    def _last_cause(self) -> str:
        last = self.history[-1] if self.history else None
        if last is None or last.error is None:
            return f"HTTP {last.status if last else None}"
        return brief_cause(last.error)


def brief_cause(error: BaseException) -> str:
    """Name the innermost error of requests' and urllib3's nesting, in one line without URLs."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or getattr(error, "original_error", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None and isinstance(error, HTTPError):
            inner = error.__cause__
        if inner is None:
            break
        error = inner
    text = str(error) if isinstance(error, OSError) else str(error).rpartition(": ")[2]
    line = "".join(char if char.isprintable() else " " for char in text[:200])
    return f"{type(error).__name__}: {line}".rstrip(": ")
