"""Records of a later release: left to processes of that release, and told of once."""

from __future__ import annotations

import logging

from guardagent._log import say

__all__ = ["Bystander"]

_log = logging.getLogger(__name__)


class Bystander:
    """Says that there are some.

    Args:
        place: the store, as the beginning of a sentence.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._has_told = False

    def note(self, count: int) -> None:
        """Note that so many were put aside just now."""
        if count and not self._has_told:
            self._has_told = True
            message = "%s has records of a later release (%d at first); they wait for one."
            say(_log, logging.WARNING, message, self._place, count)
