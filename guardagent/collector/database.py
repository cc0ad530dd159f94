"""The SQLite file behind the store: made when new, refused when it is somebody else's."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guardagent.errors import GuardAgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["StoreError", "open_database", "transaction"]

_APPLICATION_ID = 0x67756172  # "guar": tells our files from other people's
_VERSION = 1
_BUSY_TIMEOUT = 5.0

_SCHEMA = (
    """
    CREATE TABLE arrivals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        type TEXT NOT NULL,
        project_id TEXT NOT NULL,
        agent TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        batch_id TEXT NOT NULL,
        received_at REAL NOT NULL,
        deliveries INTEGER NOT NULL DEFAULT 1,
        body TEXT NOT NULL,
        UNIQUE (kind, key)
    )
    """,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


class StoreError(GuardAgentError):
    """The store's file cannot be used; says which file and why."""


def open_database(path: str | Path | None) -> sqlite3.Connection:
    """Open the file in WAL mode, or a temporary database when there is no path.

    Raises:
        StoreError: it cannot be opened, or is not a store of this version.
    """
    connection = None
    try:
        # SQLite takes an empty name for a temporary database that may spill to disk.
        connection = sqlite3.connect(
            path or "", timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        _prepare(connection)
    except (sqlite3.Error, StoreError) as error:
        if connection is not None:
            connection.close()
        raise StoreError(f"{path}: cannot be used: {error}") from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block did, or undo all of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # whatever it was, it is raised again, and half a batch is not kept
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if not tables:
            _run(connection, _SCHEMA)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise StoreError("it is a database of another program")
    if version != _VERSION:
        raise StoreError(f"it has format {version}, allowed: {_VERSION}")
    # Only now, so that nobody else's file is changed.
    _run(connection, ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"))


def _run(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement)
