"""The classes the Guard libraries build, read and keep (GUARD.md 2, 4 and 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import attrs

from guardagent import events, rules
from guardagent.contrib.guard.awaitables import Finished
from guardagent.errors import EventError

__all__ = ["AgentConfig", "DynamicRules", "EventBatch", "SecurityEvent", "SecurityMetric"]


def _names(cls: type[attrs.AttrsInstance]) -> list[str]:
    return [field.alias or field.name for field in attrs.fields(cls)]


class _Model:
    """What guard-core asks of a model class, as far as it asks.

    It writes into `model_config` and calls `model_rebuild`, for each event again where that fails.
    """

    __slots__ = ()

    model_config: ClassVar[dict[str, Any]]
    model_fields: ClassVar[dict[str, Any]]

    @classmethod
    def model_rebuild(cls, **_options: Any) -> bool:
        """Do nothing: there is no validator to rebuild."""
        return True

    def model_dump(
        self, *, include: Collection[str] | None = None, **_options: Any
    ) -> dict[str, Any]:
        """Return the fields, those of `include` only where it is given."""
        names = [name for name in self.model_fields if include is None or name in include]
        return {name: getattr(self, name) for name in names}


class AgentConfig(_Model):
    """Settings as the Guard libraries name them; checked by `guard_agent`, not here.

    An error here would stop their applications from starting (GUARD.md 2).
    """

    __slots__ = ("_settings",)

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        # `_settings` itself is missing while a copy is being made.
        if name != "_settings" and name in self._settings:
            return self._settings[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentConfig) and self._settings == other._settings

    __hash__ = None  # type: ignore[assignment]  # settings hold lists

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {', '.join(self._settings) or 'nothing'}>"

    def model_dump(
        self, *, include: Collection[str] | None = None, **_options: Any
    ) -> dict[str, Any]:
        """Return the settings that were given."""
        given = self._settings.items()
        return {name: value for name, value in given if include is None or name in include}


class SecurityEvent(events.SecurityEvent, _Model):
    """An event that takes any keyword: those that are no fields are sent beside the others.

    A value that does not fit its field is made to, or kept in the metadata.
    """

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = dict.fromkeys(_names(events.SecurityEvent))

    def __init__(self, **given: Any) -> None:
        fields = _apart(given, self.model_fields)
        if fields.get("metadata") is not None:
            fields["metadata"] = _copy(fields["metadata"])
        try:
            super().__init__(**fields)
        except EventError:
            fitted = events.SecurityEvent.from_mapping(given)
            for field in attrs.fields(events.SecurityEvent):
                setattr(self, field.name, getattr(fitted, field.name))

    def __getattr__(self, name: str) -> Any:
        # Read past __getattr__, which a half-built event would otherwise ask for ever.
        extra = object.__getattribute__(self, "extra")
        if extra and name in extra:
            return extra[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class SecurityMetric(events.SecurityMetric, _Model):
    """A metric; keywords that are no fields are left out."""

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = dict.fromkeys(_names(events.SecurityMetric))

    def __init__(self, **given: Any) -> None:
        fields = {name: given[name] for name in self.model_fields if name in given}
        if fields.get("tags") is not None:
            fields["tags"] = _copy(fields["tags"])
        super().__init__(**fields)


class EventBatch(_Model):
    """Stands for a class that guard-core prepares and never builds."""

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = {}


class DynamicRules(rules.DynamicRules, _Model, Finished["DynamicRules"]):
    """Rules that can be awaited, in a task too: one object answers callers of both kinds."""

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = dict.fromkeys(_names(rules.DynamicRules))

    @classmethod
    def of(cls, source: rules.DynamicRules) -> DynamicRules:
        """Copy rules as the agent has them, with what was made of them for `decide`."""
        copied = cls(**{name: getattr(source, name) for name in cls.model_fields})
        object.__setattr__(copied, "judge", source.judge)  # rules are frozen
        return copied

    def __hash__(self) -> int:
        # `asyncio.gather` asks for it; equal rules have equal ones, although they hold lists.
        return hash((self.rule_id, self.version))

    def _result(self) -> DynamicRules:
        return self


def _apart(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Put the keywords that are no fields of an event into `extra`."""
    if given.keys() <= known.keys():
        return dict(given)
    fields = {name: value for name, value in given.items() if name in known}
    extra = {name: value for name, value in given.items() if name not in known}
    return {**fields, "extra": {**(fields.get("extra") or {}), **extra}}


def _copy(value: Any) -> Any:
    """Copy a mapping into a dict of the instance's own, which guard-core writes into."""
    return dict(value) if isinstance(value, Mapping) else value
