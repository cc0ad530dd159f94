"""Opens a spool for the commands of those who look after it, and for a relay's own view of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guardagent import AgentConfig, ConfigError
from guardagent._clock import SYSTEM_CLOCK
from guardagent._settings import spool_shown
from guardagent.cli.tally import printable
from guardagent.errors import SpoolError
from guardagent.spool.address import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardagent.spool.store import Store

__all__ = ["name_of", "opened", "refuse_memory", "refuse_missing", "told"]

_LINE = 500


@contextlib.contextmanager
def opened(url: str, project_id: str | None) -> Iterator[Store]:
    """Open a spool that is there already; what goes wrong with it is a line and status 1."""
    try:
        # Nothing is sent, so the key may be any; and an operator's command evicts nothing.
        config = AgentConfig(api_key="none", spool=url, project_id=project_id, overflow="block")
    except ConfigError as error:
        raise click.UsageError(printable(str(error), _LINE)) from error
    refuse_memory(config)
    refuse_missing(config)
    try:
        store = open_store(config, SYSTEM_CLOCK)
    except ConfigError as error:
        raise click.UsageError(printable(str(error), _LINE)) from error
    with contextlib.closing(store):
        try:
            yield store
        except SpoolError as error:
            reason = f"{name_of(config)} cannot be used: {error}"
            raise click.ClickException(printable(reason, _LINE)) from error


def name_of(config: AgentConfig) -> str:
    """Return the spool's address, harmless for a terminal and without its password."""
    return printable(spool_shown(config.spool).strip("'\""), _LINE)


def told(error: SpoolError) -> str:
    """Say in one line what is wrong with a spool."""
    return printable(f"the spool cannot be used: {error}", _LINE)


def refuse_memory(config: AgentConfig) -> None:
    """Refuse a spool that no other process can reach.

    Raises:
        click.UsageError: it is in memory.
    """
    if config.spool == "memory://":
        raise click.UsageError(
            "What is in a memory:// spool can be reached by its own process only: give"
            " sqlite:///path or redis://host:port/0, as the applications have it."
        )


def refuse_missing(config: AgentConfig) -> None:
    """Refuse a file that is no spool: a mistyped path shall neither make one nor hurt another's.

    Raises:
        click.ClickException: there is no such file, or it is something else.
    """
    if not str(config.spool).startswith("sqlite:"):
        return
    path = Path(config.spool.removeprefix("sqlite:///"))
    if not path.exists():
        raise click.ClickException(f"There is no spool at {printable(str(path), _LINE)}.")
    try:
        # Opened for reading only: this makes, mends and locks nothing.
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise click.ClickException(told(SpoolError(f"{path}: {error}"))) from error
    if version == 0:
        raise click.ClickException(f"{printable(str(path), _LINE)} is not a spool of guardagent.")
