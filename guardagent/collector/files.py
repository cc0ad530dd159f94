"""Puts new content into a file so that a reader meets the old or the new one, whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["overwrite"]


def overwrite(path: Path, content: bytes) -> None:
    """Write a file, or replace it and keep its permissions; a link stays a link.

    Raises:
        OSError: the file is as it was.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if target.exists():
            shutil.copymode(target, name)
        os.replace(name, target)  # noqa: PTH105 - the name is text already
    except BaseException:  # whatever it was, it is raised again, and nothing is left behind
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise
