"""Replaces guard-agent when `GUARDAGENT_REPLACE_GUARD_AGENT` says so; does nothing otherwise.

Import it before the Guard library, from any place that is read first; or have the interpreter
import it, with `python -m guardagent.contrib.guard enable`.
"""

from __future__ import annotations

import os

from guardagent.contrib.guard.replacement import replace

__all__ = ["VARIABLE"]

VARIABLE = "GUARDAGENT_REPLACE_GUARD_AGENT"

if os.environ.get(VARIABLE, "").strip().lower() in {"1", "true", "yes", "on"}:
    replace(flush_on_sigterm=True)
