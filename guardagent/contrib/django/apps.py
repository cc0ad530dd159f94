"""The application's configuration; `guardagent.contrib.django` in INSTALLED_APPS finds it."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from guardagent.errors import ConfigError

__all__ = ["GuardAgentConfig"]


class GuardAgentConfig(AppConfig):
    """Connects signals and logs, and registers the system checks; starts nothing."""

    name = "guardagent.contrib.django"
    label = "guardagent"
    verbose_name = "guardagent"

    def ready(self) -> None:
        """Connect, unless the settings are wrong: the checks say so, and the middleware."""
        from guardagent.contrib.django import security, signals, site
        from guardagent.contrib.django.checks import check_settings

        checks.register(check_settings, checks.Tags.security)
        try:
            site.current()
        except ConfigError:
            return
        signals.connect()
        security.listen()
