"""From a request to what is captured of it: the one mapping behind every web shim."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from guardagent.agent import Agent
from guardagent.contrib._address import client_address
from guardagent.contrib._agents import Reporting
from guardagent.contrib._measures import Measures
from guardagent.contrib._options import Settings, WebOptions
from guardagent.errors import EventError
from guardagent.events import SecurityEvent

__all__ = ["Reporter"]

_R = TypeVar("_R")
#: Gives those fields of an event that only the framework's own request knows.
Describe = Callable[[_R], dict[str, Any]]

_EVENT_TYPES = {
    400: "suspicious_request",
    401: "authentication_failed",
    403: "access_denied",
    429: "rate_limited",
}
_OTHER_STATUS = "http_error"

#: Exceptions that have to do with security wherever they are raised. Named, so that none of their
#: modules is imported for it.
_SECURITY_ERRORS = frozenset(
    {
        "builtins.PermissionError",
        "cryptography.exceptions.InvalidSignature",
        "cryptography.exceptions.InvalidTag",
        "cryptography.fernet.InvalidToken",
        "django.core.exceptions.PermissionDenied",
        "django.core.exceptions.SuspiciousOperation",
        "itsdangerous.exc.BadData",
        "jose.exceptions.JOSEError",
        "jwt.exceptions.PyJWTError",
        "ssl.SSLError",
        "werkzeug.exceptions.SecurityError",
    }
)
#: Characters of a path that are looked at.
_PATH_SEEN = 2_000


class Reporter(Reporting):
    """Captures what a request deserves, and measures every one.

    Nothing it does raises: an error of a shim must not become the answer.

    Args:
        handler_name: the shim, as the events name it.
        options: what to capture.
        agent: see `Reporting`.
        settings: see `Reporting`.
    """

    def __init__(
        self,
        handler_name: str,
        options: WebOptions,
        *,
        agent: Agent | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(agent, settings)
        self.options = options
        self._handler_name = handler_name
        self._event_types = {
            status: _EVENT_TYPES.get(status, _OTHER_STATUS) for status in options.capture_statuses
        }
        self._sensitive = _pattern(options.sensitive_paths)
        self._measures = Measures(self.capture, self._expect, max_routes=options.max_routes)
        self._measured_by: Agent | None = None
        header = options.country_header
        is_told = header is not None and options.trusted_proxies > 0
        self._country = f"HTTP_{header}".upper().replace("-", "_") if is_told else None
        #: Seconds and route are asked for in vain without it.
        self.measures = options.capture_metrics

    def answered(
        self,
        status: int,
        describe: Describe[_R],
        request: _R,
        *,
        seconds: float | None = None,
        is_known: bool = False,
    ) -> None:
        """Capture an answer if its status is one of those to capture.

        Args:
            status: of the answer.
            request: whatever the framework has.
            describe: called with `request` only when there is something to capture.
            seconds: until the answer.
            is_known: True when an event already tells of this request.
        """
        event_type = self._event_types.get(status)
        if event_type is not None and not is_known:
            self.event(
                event_type,
                self._describe(describe, request),
                status_code=status,
                response_time=seconds,
                reason=f"answered with {status}",
            )

    def failed(self, error: BaseException, describe: Describe[_R], request: _R) -> None:
        """Capture an unhandled exception if it is one of those to capture."""
        if self.options.capture_exceptions == "none" or not isinstance(error, Exception):
            return  # an exit or a cancellation is no failure of the application
        fields = self._describe(describe, request)
        if self._is_told_of(error, fields.get("endpoint", "")):
            kind = type(error)
            metadata = {**fields.pop("metadata", {}), "exception": _name(kind)}
            self.event(
                "unhandled_exception",
                fields,
                status_code=500,
                # The message is left out: it may quote what the client sent, or a secret.
                reason=kind.__qualname__,
                metadata=metadata,
            )

    def event(self, event_type: str, fields: dict[str, Any], **more: Any) -> None:
        """Capture an event; a value that does not fit is kept in its metadata."""
        given: dict[str, Any] = {
            "event_type": event_type,
            "handler_name": self._handler_name,
            "action_taken": "logged",
            **fields,
            **more,
        }
        try:
            event: SecurityEvent | dict[str, Any] = SecurityEvent(**given)
        except EventError:
            event = given  # capture makes of it what it can, at ten times the cost
        self.capture(event)

    def fields_of(
        self, environ: Mapping[str, Any], path: str, method: str | None, route: str | None
    ) -> dict[str, Any]:
        """Return a request as fields of an event.

        Args:
            environ: of WSGI; Django's META is one.
            path: without the query, which may hold secrets.
            method: of the request.
            route: the template; None when it is not known.
        """
        proxies = self.options.trusted_proxies
        forwarded = environ.get("HTTP_X_FORWARDED_FOR") if proxies else None
        fields: dict[str, Any] = {
            "ip_address": client_address(environ.get("REMOTE_ADDR"), forwarded, proxies),
            "user_agent": environ.get("HTTP_USER_AGENT"),
            "endpoint": path,
            "method": method,
        }
        if self._country is not None:
            fields["country"] = environ.get(self._country)
        if route is not None:
            fields["metadata"] = {"route": route}
        return fields

    def measure(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request for the metrics; see `Measures.record`."""
        try:
            self._measures.record(route, method, status, seconds)
        except Exception as error:  # whatever the server or an agent did: the log says so
            self.stumble(error)

    def _describe(self, describe: Describe[_R], request: _R) -> dict[str, Any]:
        try:
            return describe(request)
        except Exception as error:  # a request like no other: the event comes without its fields
            self.stumble(error)
            return {}

    def _is_told_of(self, error: Exception, path: str) -> bool:
        if self.options.capture_exceptions == "all":
            return True
        if not _SECURITY_ERRORS.isdisjoint(map(_name, type(error).__mro__)):
            return True
        return self._sensitive.search(path[:_PATH_SEEN].lower()) is not None

    def _expect(self) -> bool:
        agent = self.agent
        if agent is None:
            return False
        if agent is not self._measured_by:
            self._measured_by = agent
            agent.add_source(self._hand_over)
        return agent.expect()

    def _hand_over(self) -> None:
        self._measures.hand_over()
        if self._is_over and self._measured_by is not None:  # this was the last time
            self._measured_by.remove_source(self._hand_over)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Match a word, or its plural, that stands by itself in a path."""
    if not words:
        return re.compile(r"(?!)")
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(map(re.escape, words))})s?(?![a-z0-9])")
