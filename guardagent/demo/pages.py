"""What the pages of the shop say, in whichever framework."""

from __future__ import annotations

from typing import Any

__all__ = ["GREETING", "WELCOME", "download", "is_password", "product", "results"]

WELCOME = "Welcome."
GREETING = "Hello."

_PASSWORD = "correct horse"  # noqa: S105 - the only account of a shop that does not exist


def product(number: int) -> dict[str, Any]:
    """Describe a product."""
    return {"number": number, "price": number * 100}


def results(query: str) -> dict[str, Any]:
    """Find nothing."""
    return {"found": [], "for": query}


def download(name: str) -> str:
    """Stand for a file."""
    return f"This would be {len(name)} letters long."


def is_password(word: str | None) -> bool:
    """Tell whether somebody may log in."""
    return word == _PASSWORD
