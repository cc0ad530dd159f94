"""The `guardagent` command."""

from __future__ import annotations

from guardagent.cli.entry import main

__all__ = ["main"]
