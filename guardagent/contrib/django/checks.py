"""System checks: what is wrong with the settings, or may not be as it was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core import checks

from guardagent.config import AgentConfig
from guardagent.contrib._options import environment
from guardagent.contrib.django.site import DjangoOptions, read_settings
from guardagent.errors import ConfigError

__all__ = ["check_settings"]

_MIDDLEWARE = "guardagent.contrib.django.middleware.GuardAgentMiddleware"
#: Middlewares that may stand before ours, which cost next to nothing.
_CHEAP = 1


def check_settings(**_context: Any) -> Iterable[checks.CheckMessage]:
    """Yield what there is to say about `settings.GUARDAGENT` and `settings.MIDDLEWARE`."""
    try:
        given, options = read_settings()
        config = AgentConfig.from_mapping({**environment(), **given})
    except ConfigError as error:
        yield checks.Error(str(error), hint="See the setting GUARDAGENT.", id="guardagent.E001")
        return
    if not config.is_enabled:
        yield checks.Warning(
            "There is no api_key: guardagent reports nothing.",
            hint='Set GUARDAGENT = {"API_KEY": ...}, or GUARDAGENT_API_KEY in the environment.',
            id="guardagent.W001",
        )
    yield from _check_middleware(options)
    yield from _check_proxies(options)


def _check_middleware(options: DjangoOptions) -> Iterable[checks.CheckMessage]:
    middleware = list(settings.MIDDLEWARE)
    if _MIDDLEWARE not in middleware:
        yield checks.Warning(
            "The middleware of guardagent is missing: refused requests are not reported, "
            "and nothing is measured.",
            hint=f"Put {_MIDDLEWARE!r} at the beginning of MIDDLEWARE.",
            id="guardagent.W002",
        )
    elif options.enforce_rules and middleware.index(_MIDDLEWARE) > _CHEAP:
        yield checks.Warning(
            f"Rules are enforced behind {middleware.index(_MIDDLEWARE)} other middlewares.",
            hint=f"Put {_MIDDLEWARE!r} at the beginning of MIDDLEWARE.",
            id="guardagent.W003",
        )


def _check_proxies(options: DjangoOptions) -> Iterable[checks.CheckMessage]:
    behind = settings.USE_X_FORWARDED_HOST or settings.SECURE_PROXY_SSL_HEADER
    if behind and not options.trusted_proxies:
        yield checks.Warning(
            "There is a proxy, by USE_X_FORWARDED_HOST or SECURE_PROXY_SSL_HEADER, but no "
            "TRUSTED_PROXIES: every event tells the proxy's address.",
            hint='Set GUARDAGENT = {"TRUSTED_PROXIES": 1, ...} to the number of proxies.',
            id="guardagent.W004",
        )
