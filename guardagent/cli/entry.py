"""Where the `guardagent` script begins; needs nothing but the package itself."""

from __future__ import annotations

import sys

from guardagent.cli.extras import MissingExtraError, extra

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its status."""
    # The demonstration needs more than the others; who asks for it is told so at once.
    name = "demo" if sys.argv[1:2] == ["demo"] else "cli"
    try:
        with extra(name, "click", "rich"):
            from guardagent.cli.commands import guardagent

            guardagent(prog_name="guardagent")
    except MissingExtraError as error:
        sys.exit(f"guardagent: {error}")
