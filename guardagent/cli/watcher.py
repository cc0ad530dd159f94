"""Follows a rules document and says what agents make of each change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from guardagent import DynamicRules
from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.cli.changes import changes
from guardagent.cli.places import PlaceError
from guardagent.cli.tally import printable
from guardagent.errors import RulesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardagent.cli.places import Kept, Place

__all__ = ["Watcher"]

_LINE = 2_000


class Watcher:
    """Looks at a place again and again; a change, a failure and its end are a line each.

    Args:
        clock: tells the time of a line.
    """

    def __init__(self, place: Place, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._place = place
        self._clock = clock
        self._tag = ""
        self._rules: DynamicRules | None = None
        self._failure = ""

    def look(self) -> list[str]:
        """Return what there is to say since the last look; most often nothing."""
        clock = time.strftime("%H:%M:%S", time.localtime(self._clock.now()))
        return [printable(f"{clock} {line}", _LINE) for line in self._lines()]

    def _lines(self) -> Iterator[str]:
        try:
            kept = self._place.get(self._tag)
        except PlaceError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                yield self._failure
            return
        if self._failure:
            self._failure = ""
            yield "it can be read again"
        if kept is not None:
            self._tag = kept.tag
            yield from self._change(kept)

    def _change(self, kept: Kept) -> Iterator[str]:
        if not kept.document:
            yield "no rules: agents keep those they have"
            return
        try:
            new = DynamicRules.from_mapping(kept.document)
        except RulesError as error:
            yield f"refused by agents: {error}"
            return
        old = self._rules
        if old is not None and old.rule_id == new.rule_id:
            if new.version < old.version:
                yield f"{_name(new)} comes after version {old.version}: agents keep that one"
                return
            if new.version == old.version:
                yield f"{_name(new)} is another now, under the same version: it may be overlooked"
        self._rules = new
        yield f"{_name(new)}: {'; '.join(changes(old or DynamicRules(), new)) or 'nothing differs'}"


def _name(rules: DynamicRules) -> str:
    return f"{rules.rule_id} version {rules.version}"
