"""The Django application: middleware, signals, security logs, system checks and a command."""

from __future__ import annotations

from guardagent.cli.extras import extra

with extra("django", "django"):
    import django  # noqa: F401 - asked for here, once for all modules of this package
