"""Django's signals of failed logins, lockouts and unhandled exceptions, and the events they are."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib.auth.signals import user_login_failed
from django.core.signals import got_request_exception, setting_changed
from django.http import HttpRequest

from guardagent.contrib.django import site

__all__ = ["connect"]


def connect() -> None:
    """Listen to the signals; those of django-axes where it is installed. Idempotent."""
    user_login_failed.connect(_login_failed, dispatch_uid="guardagent")
    got_request_exception.connect(_request_failed, dispatch_uid="guardagent")
    setting_changed.connect(_settings_changed, dispatch_uid="guardagent")
    if apps.is_installed("axes"):
        import_module("axes.signals").user_locked_out.connect(
            _locked_out, dispatch_uid="guardagent"
        )


def _login_failed(
    *, credentials: dict[str, Any], request: HttpRequest | None = None, **_more: Any
) -> None:
    name = credentials.get("username")
    _report("authentication_failed", request, "the login failed", name)


def _locked_out(
    *,
    request: HttpRequest | None = None,
    username: str | None = None,
    ip_address: str | None = None,
    **_more: Any,
) -> None:
    _report(
        "access_denied",
        request,
        "locked out after failed logins",
        username,
        action_taken="request_blocked",
        rule_type="user_locked_out",
        **({} if ip_address is None or request is not None else {"ip_address": ip_address}),
    )


def _report(
    event_type: str, request: HttpRequest | None, reason: str, username: Any, **more: Any
) -> None:
    here = site.current()
    fields = {} if request is None else here.describe(request)
    if here.options.capture_usernames and username is not None:
        fields["metadata"] = {**fields.get("metadata", {}), "username": str(username)}
    here.reporter.event(event_type, fields, **{"reason": reason, **more})
    site.set_known(request)


def _request_failed(*, request: HttpRequest | None = None, **_more: Any) -> None:
    error = sys.exc_info()[1]
    if error is not None and request is not None:
        here = site.current()
        here.reporter.failed(error, here.describe, request)


def _settings_changed(*, setting: str, **_more: Any) -> None:
    if setting == "GUARDAGENT":
        site.forget()
