"""Hold the version, read by the packaging metadata, the User-Agent and every batch."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
