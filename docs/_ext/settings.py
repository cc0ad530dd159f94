"""Sphinx directives: the settings out of AgentConfig's fields, and a file only where it exists."""

from __future__ import annotations

from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from guardagent import AgentConfig
from guardagent.errors import ConfigError


class Settings(SphinxDirective):
    """Describe every setting: name, type, default, what is allowed, and where it can come from."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        text = "\n".join(describe(field) for field in attrs.fields(AgentConfig))
        return self.parse_text_to_nodes(text)


def describe(field: attrs.Attribute[Any]) -> str:
    """Return a setting as RST; a field without a text is an error, so that none is forgotten."""
    lines = [
        f".. confval:: {field.name}",
        f"   :type: ``{field.type}``",
        f"   :default: {_default(field)}",
        "",
        f"   {field.metadata['doc']}",
        "",
        f"   Allowed: {_allowed(field)}.",
    ]
    if _fits_a_variable(field):
        lines += ["", f"   Environment: ``GUARDAGENT_{field.name.upper()}``"]
    return "\n".join([*lines, ""])


def _default(field: attrs.Attribute[Any]) -> str:
    default = field.default
    if default is attrs.NOTHING:
        return "required"
    if isinstance(default, attrs.Factory) and default.takes_self:
        return "depends on other settings"
    return f"``{default.factory() if isinstance(default, attrs.Factory) else default!r}``"


def _allowed(field: attrs.Attribute[Any]) -> str:
    """Ask the field itself: its refusal of a foreign object ends with what it takes."""
    settings: dict[str, Any] = {"api_key": None, field.name: object()}
    try:
        AgentConfig(**settings)
    except ConfigError as refused:
        return str(refused).partition(", allowed: ")[2]
    raise ValueError(f"{field.name} accepts anything")


def _fits_a_variable(field: attrs.Attribute[Any]) -> bool:
    return not str(field.type).startswith(("Callable", "Mapping"))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("guardagent-settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
