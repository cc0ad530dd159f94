"""The reporter of this Django process, made of `settings.GUARDAGENT`."""

from __future__ import annotations

from typing import Any

import attrs
from django.conf import settings
from django.http import HttpRequest

from guardagent import _settings as check
from guardagent._settings import setting
from guardagent.contrib._enforce import Enforcer
from guardagent.contrib._options import Settings, WebOptions, split
from guardagent.contrib._request import Reporter

__all__ = [
    "DjangoOptions",
    "Site",
    "current",
    "forget",
    "is_known",
    "read_settings",
    "route_of",
    "set_known",
]

_NAME = "guardagent.contrib.django"
#: Key of a request's META: an event tells of it already.
_KNOWN = "guardagent.known"


@attrs.frozen(kw_only=True)
class DjangoOptions(WebOptions):
    """WebOptions, and what only Django has.

    Raises:
        ConfigError: names the field, the form of the value and what is allowed.
    """

    capture_usernames: bool = setting(
        check.flag, "Tell which user name a failed login gave.", False
    )


class Site:
    """What middleware, signals and logs of one process report through."""

    def __init__(self, given: Settings, options: DjangoOptions) -> None:
        self.options = options
        self.reporter = Reporter(_NAME, options, settings=given)
        self.enforcer = Enforcer(self.reporter) if options.enforce_rules else None

    def describe(self, request: HttpRequest) -> dict[str, Any]:
        """Return a request as fields of an event."""
        return self.reporter.fields_of(
            request.META, request.path, request.method, route_of(request)
        )


def route_of(request: HttpRequest) -> str | None:
    """Return the template of the route; None when none matched."""
    match = request.resolver_match
    return None if match is None else f"/{match.route}"


def is_known(request: HttpRequest) -> bool:
    """Tell whether an event tells of the request already."""
    return _KNOWN in request.META


def set_known(request: HttpRequest | None) -> None:
    """Note that an event tells of the request."""
    if request is not None:
        request.META[_KNOWN] = True  # also through the request of Django REST framework


def read_settings() -> tuple[Settings, DjangoOptions]:
    """Read `settings.GUARDAGENT`.

    Raises:
        ConfigError: it is wrong.
    """
    return split(DjangoOptions, getattr(settings, "GUARDAGENT", None))


#: The site, once there is one.
_sites: list[Site] = []


def current() -> Site:
    """Return the site of this process, made at the first call; starts nothing.

    Raises:
        ConfigError: `settings.GUARDAGENT` is wrong.
    """
    if not _sites:
        _sites.append(Site(*read_settings()))
    return _sites[0]


def forget() -> None:
    """Make a new site at the next call: the settings have changed."""
    while _sites:
        _sites.pop().reporter.retire()
