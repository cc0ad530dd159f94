"""The Guard libraries that the demonstration can show: what they need, and their log."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from guardagent.cli.extras import needing

if TYPE_CHECKING:
    from guardagent.demo.site import MakeSite

__all__ = ["LIBRARIES", "Library", "hush", "load"]


@attrs.frozen
class Library:
    """What a Guard library needs.

    Args:
        requirements: what has to be installed.
        packages: what can be imported then.
    """

    requirements: tuple[str, ...]
    packages: tuple[str, ...]


#: By framework.
LIBRARIES = {
    "fastapi": Library(("fastapi-guard", "uvicorn"), ("fastapi", "guard", "guard_core", "uvicorn")),
    "flask": Library(("flaskapi-guard",), ("flask", "flaskapi_guard", "guard_core")),
    "django": Library(("djapi-guard",), ("django", "djangoapi_guard", "guard_core")),
    "tornado": Library(("tornadoapi-guard",), ("guard_core", "tornado", "tornadoapi_guard")),
}


def load(framework: str) -> MakeSite:
    """Return what builds the shop in this framework.

    Raises:
        MissingExtraError: its Guard library is not installed.
    """
    library = LIBRARIES[framework]
    with needing(library.requirements, library.packages):
        module = import_module(f"guardagent.demo._guarded.{framework}")
    make_site: MakeSite = module.make_site
    return make_site


def hush() -> None:
    """Show of the program's log, from now on, where something failed and nothing else.

    The libraries write a line for each suspicious request; once the root logger has a handler, it
    is for that one to show them.
    """
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.getLogger().addHandler(handler)
