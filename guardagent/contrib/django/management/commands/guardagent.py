"""`manage.py guardagent status` and `manage.py guardagent send`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from guardagent.contrib import _report
from guardagent.contrib.django import site

__all__ = ["Command"]


class Command(BaseCommand):
    """Looks at the agent of this project, or sends a test event with its settings."""

    help = "Say how guardagent is set up and what its backend answers, or send one test event."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take one word."""
        parser.add_argument("what", choices=["status", "send"])

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it; the exit status is 0 only when all is well."""
        work = {"status": _report.status, "send": _report.send}[options["what"]]
        lines, is_well = work(site.current().reporter)
        if not is_well:
            raise CommandError("\n".join(lines))
        self.stdout.write("\n".join(lines))
