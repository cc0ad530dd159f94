"""The identity of this installation: given, kept in the home folder, or made up for the process."""

from __future__ import annotations

import os
import re
from pathlib import Path

from guardagent._ids import format_key, new_key

__all__ = ["installation_id"]

_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}")


def installation_id(given: str | None) -> str:
    """Return `given`, else the text of `~/.guard-agent/install-id`, else a new UUID4 kept there.

    Never fails: without a home folder that can be written, the new one lives with the process.
    """
    if given is not None:
        return given
    fresh = format_key(new_key())
    try:
        path = Path.home() / ".guard-agent" / "install-id"
        if not path.is_absolute():
            return fresh  # HOME=relative would be another folder wherever the process starts
        return _read(path) or _write(path, fresh)
    except (OSError, RuntimeError):  # RuntimeError: no home folder is known
        return fresh


def _read(path: Path) -> str | None:
    try:
        kept = path.read_text("utf-8", "replace")[:1_024].strip()
    except FileNotFoundError:
        return None
    return kept if _FORM.fullmatch(kept) else None


def _write(path: Path, fresh: str) -> str:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{fresh[:8]}")
    draft.write_text(fresh, "utf-8")
    try:
        # In this order: another process may be the first in between, and what it wrote stays.
        if path.exists() and _read(path) is None:
            path.unlink()  # unreadable content: replace it
        os.link(draft, path)  # atomic, and fails when another process was first
    except FileExistsError:
        return _read(path) or fresh
    finally:
        draft.unlink(missing_ok=True)
    return fresh
