"""Django's security logs (CSRF failures, untrusted hosts, suspicious operations) as events."""

from __future__ import annotations

import logging
from typing import Any

from django.http import HttpRequest

from guardagent.contrib._records import is_own
from guardagent.contrib.django import site

__all__ = ["SecurityHandler", "listen"]

_LOGGER = "django.security"
#: The child of that logger that tells of CSRF failures.
_CSRF = "csrf"


class SecurityHandler(logging.Handler):
    """Captures a record of `django.security.*`, with the request it is about."""

    def filter(self, record: logging.LogRecord) -> Any:
        """Leave out what is said on the agent's own threads, such as by a callback."""
        return not is_own(record.name) and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Capture the record; what goes wrong is told the way of logging (`handleError`)."""
        try:
            self._capture(record)
        except Exception:  # a record of somebody else's, with anything in it
            self.handleError(record)

    @staticmethod
    def _capture(record: logging.LogRecord) -> None:
        here = site.current()
        request = getattr(record, "request", None)
        request = request if isinstance(request, HttpRequest) else None
        fields: dict[str, Any] = {} if request is None else here.describe(request)
        kind = record.name.rpartition(".")[2]
        is_csrf = kind == _CSRF
        here.reporter.event(
            "access_denied" if is_csrf else "suspicious_request",
            fields,
            reason=record.getMessage(),
            rule_type=kind,
            status_code=getattr(record, "status_code", 403 if is_csrf else 400),
        )
        site.set_known(request)


_handler = SecurityHandler()


def listen() -> None:
    """Hear the logger, and those below it that hand nothing up. Idempotent."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(f"{_LOGGER}.")]
    logging.getLogger(_LOGGER).addHandler(_handler)
    for name in names:
        logger = logging.getLogger(name)
        # Django's manual shows how to silence DisallowedHost like that in the log.
        if not logger.propagate:
            logger.addHandler(_handler)
