"""`python -m guardagent.contrib.guard enable|disable`: have the interpreter read the variable.

Writes one `.pth` file into this environment's site-packages. Its line does nothing in a process
without `GUARDAGENT_REPLACE_GUARD_AGENT`, nor when guardagent is no longer installed.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

from guardagent.contrib.guard.auto import VARIABLE

__all__ = ["main"]

_NAME = "guardagent_guard.pth"
_LINE = (
    f'import os, importlib.util; os.environ.get("{VARIABLE}") and '
    'importlib.util.find_spec("guardagent") and __import__("guardagent.contrib.guard.auto")\n'
)


def main(arguments: list[str] | None = None, *, folder: Path | None = None) -> None:
    """Write or remove the file, and say which."""
    parser = argparse.ArgumentParser(prog="python -m guardagent.contrib.guard")
    parser.add_argument("action", choices=("enable", "disable"))
    action = parser.parse_args(arguments).action
    path = (folder or Path(sysconfig.get_path("purelib"))) / _NAME
    if action == "enable":
        path.write_text(_LINE, encoding="utf-8")
        print(f"{path} written: {VARIABLE}=1 now makes guard_agent guardagent.")
    else:
        path.unlink(missing_ok=True)
        print(f"{path} removed.")


if __name__ == "__main__":
    main()
