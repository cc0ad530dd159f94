"""Let tox find the interpreters that pyenv keeps, and run nothing twice; nothing to set up.

tox looks for python3.10, python3.11 and so on along PATH. A pyenv user has them outside of it,
behind shims that answer only for the versions switched on; their own folders go last here, so that
whatever PATH offers wins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _pyenv_folders() -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(str(folder) for folder in root.glob("versions/3.*/bin"))


def _other_pythons() -> list[str]:
    """The interpreters to try beside the one that tox, and so "full", runs on."""
    running = f"py{sys.version_info.major}{sys.version_info.minor}"
    return [name for name in ("py310", "py311", "py312", "py313") if name != running]


os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *_pyenv_folders()])
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")  # those that are here, and no others
os.environ["OTHER_PYTHONS"] = ",".join(_other_pythons())  # read by tox.ini
