"""Where the `guardagent` script begins; needs nothing but the package itself."""

from __future__ import annotations

import sys

from guardagent.cli.extras import MissingExtraError, extra

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        with extra("cli", "click", "rich"):
            from guardagent.cli.commands import guardagent

            guardagent(prog_name="guardagent")
    except MissingExtraError as error:
        sys.exit(f"guardagent: {error}")
