"""Runs the command line as `python -m guardagent`."""

from __future__ import annotations

from guardagent.cli import main

if __name__ == "__main__":
    main()
