"""What lies in a spool's file: its tables, and the notes that tell whose they are.

Owns: the schema, its version and the notes. In: a connection that was just opened. Out: a file
that is ready for work, or SpoolError for one that is another's.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from guardagent.errors import SpoolError

__all__ = ["VERSION", "Schema", "contents", "generation_of"]

VERSION = 1

_TABLES = """
CREATE TABLE events (id INTEGER PRIMARY KEY, frame BLOB NOT NULL);
CREATE TABLE metrics (id INTEGER PRIMARY KEY, frame BLOB NOT NULL);
CREATE TABLE lanes (
    kind TEXT PRIMARY KEY, head INTEGER NOT NULL, divide INTEGER NOT NULL, fresh INTEGER NOT NULL,
    tail INTEGER NOT NULL, records INTEGER NOT NULL, nbytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE leases (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    size INTEGER NOT NULL, owner TEXT NOT NULL, deadline REAL NOT NULL, batch_id TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, reason TEXT NOT NULL,
    buried_at REAL NOT NULL, frame BLOB NOT NULL
);
CREATE TABLE kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
_GENERATION, _PROJECT, _BOOT = "generation", "project", "boot"


class Schema:
    """The tables and notes of one file.

    Args:
        path: of the file, for what errors say.
        project: whose records are in it; a file of another's is refused. None asks nothing.
        boot: differs after each start of the machine; leases of another one's are over.
    """

    def __init__(self, path: Path, *, project: str | None, boot: str) -> None:
        self._path = path
        self._project = project
        self._boot = boot

    def create(self, db: sqlite3.Connection) -> None:
        """Make the tables, unless somebody was quicker."""
        db.execute("BEGIN EXCLUSIVE")
        with _committed(db):
            if contents(db)[0]:
                return
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
            # Ids of two files never meet: a late settlement must not strike records of a new file.
            start = int(time.time() * 1_000) << 20
            for kind in ("events", "metrics"):
                lane = (kind, start, 0, start, start, 0, 0)
                db.execute("INSERT INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?)", lane)
            _keep(db, {_GENERATION: os.urandom(8).hex(), **self._notes()})
            db.execute(f"PRAGMA user_version = {VERSION}")

    def introduce(self, db: sqlite3.Connection) -> None:
        """Compare the file's project and machine with ours, and note what is new."""
        query = "SELECT name, CAST(value AS TEXT) FROM kept WHERE name IN (?, ?)"
        found = dict(db.execute(query, (_PROJECT, _BOOT)).fetchall())
        theirs = found.get(_PROJECT, self._project)
        if self._project is not None and theirs != self._project:
            raise SpoolError(
                f"{self._path}: it belongs to {_named(theirs)}, not to {_named(self._project)};"
                " each needs a file of its own"
            )
        new = {name: own for name, own in self._notes().items() if own != found.get(name)}
        if not new:
            return
        db.execute("BEGIN IMMEDIATE")
        with _committed(db):
            if _BOOT in found and _BOOT in new:  # deadlines are of a clock that has begun anew
                db.execute("UPDATE leases SET deadline = 0")
            _keep(db, new)

    def _notes(self) -> dict[str, str]:
        """Return what a file keeps of whoever opens it."""
        notes = {_PROJECT: self._project, _BOOT: self._boot or None}
        return {name: text for name, text in notes.items() if text is not None}


def contents(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the version of the schema, 0 when there is none, and the number of tables."""
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return version, tables


def generation_of(db: sqlite3.Connection) -> str:
    """Return the random text that was made together with the file."""
    row = db.execute("SELECT value FROM kept WHERE name = ?", (_GENERATION,)).fetchone()
    return bytes(row[0]).decode() if row else ""


def _keep(db: sqlite3.Connection, notes: Mapping[str, str]) -> None:
    statement = "INSERT OR REPLACE INTO kept VALUES (?, ?)"
    db.executemany(statement, [(name, text.encode()) for name, text in notes.items()])


def _named(project: str | None) -> str:
    return f"project {project!r}" if project else "no project"


@contextlib.contextmanager
def _committed(db: sqlite3.Connection) -> Iterator[None]:
    """End the transaction that was begun: all that is done in it, or nothing."""
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
