"""The connection to a spool's file: opened when needed, made anew when the file is gone or broken.

Owns: one connection, its lock, the file's place. In: work to be done in a transaction. Out: its
result, or SpoolError.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from guardagent import _fork
from guardagent._clock import Bell
from guardagent._log import say
from guardagent.errors import SpoolError
from guardagent.spool.sqlite_disk import Disk
from guardagent.spool.sqlite_schema import VERSION, Schema, contents, generation_of

__all__ = ["SQLiteFile"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Seconds to wait for another process's transaction.
_PATIENCE = 2.0
#: And between two looks whether it is over: at first, and at most.
_NAP, _NAP_MOST = 0.000_5, 0.01
#: Kept in the file for the next burst; what is beyond goes back to the file system. As much may be
#: in the log before it is emptied into the file. On a small disk either is less.
_SPARE_BYTES = _LOG_BYTES = 4 * 1024 * 1024
_PAGE_BYTES = 4_096
_MAGIC = b"SQLite format 3\0"

#: Connections of a parent process, kept for ever: SQLite forbids even to close them in a child.
_inherited: list[Any] = []
#: Their files. SQLite keeps its locks for each file and process; a child that was forked with a
#: connection open would believe that it holds its parent's, and spoil the file.
_spoilt: set[tuple[int, int]] = set()


class SQLiteFile:
    """Runs work in transactions; thread-safe, one at a time.

    Args:
        path: of the file; made when it is missing, readable by its owner only.
        fsync: wait for the disk with each transaction.
        read_only: change nothing, and make no file.
        project: whose records are in it; a file of another's is refused. None asks nothing.
        boot: differs after each start of the machine; leases of another one's are over.
    """

    def __init__(
        self,
        path: Path,
        *,
        fsync: bool,
        read_only: bool = False,
        project: str | None = None,
        boot: str = "",
    ) -> None:
        self.path = path
        self._read_only = read_only
        self._schema = Schema(path, project=project, boot=boot)
        #: Random text made together with the file.
        self.generation = ""
        self._fsync = fsync
        self._disk = Disk(path)
        self._lock = threading.Lock()  # guards the connection, which serves one thread at a time
        self._bell = Bell()  # rung by nobody: a wait on it is a nap
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._is_forking = False
        _fork.close_before(self)

    def transaction(self, work: Callable[[sqlite3.Connection], _T], *, growth: int = 0) -> _T:
        """Do work that is done whole or not at all.

        Args:
            work: what to do.
            growth: bytes that it adds; without any it is done on a disk that is nearly full, too.

        Raises:
            SpoolError: it was not done.
        """
        with self._lock, self._guarded():
            db = self._patiently(self._open)
            if growth and not self._disk.takes(growth):
                self._make_room(db, growth)
            db = self._patiently(self._begin)
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk ends it by itself
                    db.execute("ROLLBACK")
                raise
            return result

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask without locking anybody out.

        Raises:
            SpoolError: there is no answer.
        """
        with self._lock, self._guarded():
            return self._patiently(lambda: _snapshot(self._open(), work))

    def shrink(self) -> None:
        """Give the file system back some of what the file does not need, unless that takes waiting.

        What was to be done is done: a failure is none of the work's, and the next one tries again.
        """
        with contextlib.suppress(SpoolError), self._lock, self._guarded():
            db = self._open()
            (spare,) = db.execute("PRAGMA freelist_count").fetchone()
            kept = min(_SPARE_BYTES, self._disk.reserve // 4) // _PAGE_BYTES
            if spare > kept:
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                if spare > pages // 2:
                    with contextlib.suppress(sqlite3.OperationalError):  # somebody is writing
                        # `execute` would take one step of it, and free one page.
                        db.executescript(f"PRAGMA incremental_vacuum({kept})")

    def compact(self) -> None:
        """Give all of it back at once, which is cheap when little is left in the file."""
        with contextlib.suppress(SpoolError), self._lock, self._guarded():
            db = self._open()
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _make_room(self, db: sqlite3.Connection, growth: int) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # somebody is reading
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (spare,) = db.execute("PRAGMA freelist_count").fetchone()
        if not self._disk.has_room(growth, spare=spare * _PAGE_BYTES):
            raise SpoolError(f"{self.path}: the disk is nearly full")

    def before_fork(self) -> None:
        """Close the connection, and keep others from opening it until the fork is over."""
        self._is_forking = self._lock.acquire(timeout=_PATIENCE)
        if self._is_forking:
            self._drop()

    def after_fork(self) -> None:
        """Let it be opened again."""
        if self._is_forking:
            self._is_forking = False
            self._lock.release()

    def abandon(self) -> None:
        """Forget the connection in a forked child; the parent goes on using it."""
        self._lock = threading.Lock()
        if self._connection is not None:  # by something without Python's hooks, or in mid-work
            _inherited.append(self._connection)
            self._connection = None
            if self._inode is not None:
                _spoilt.add(self._inode)

    def close(self) -> None:
        """Close the connection; the next work opens it again."""
        with self._lock:
            self._drop()

    def _begin(self) -> sqlite3.Connection:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        return db

    def _patiently(self, step: Callable[[], _T]) -> _T:
        """Try again while another process holds the lock.

        SQLite's own waiting sleeps up to 100 ms between two looks, which is longer than an event
        may take into the spool. Between two looks nothing is locked here: a fork must not wait for
        a process that has been stopped. It may close the connection, so a step asks for it.
        """
        deadline = time.monotonic() + _PATIENCE
        nap = _NAP
        while True:
            try:
                return step()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
            self._lock.release()
            try:
                self._bell.wait(nap)
            finally:
                self._lock.acquire()
            nap = min(2 * nap, _NAP_MOST)

    @contextlib.contextmanager
    def _guarded(self) -> Any:
        """Turn errors of SQLite's into ours; a broken file is put aside."""
        try:
            yield
        except sqlite3.Error as error:
            if _is_broken(error):
                self._put_aside(error)
            elif isinstance(error, sqlite3.OperationalError):
                self._drop()  # a disk that was full or a file that was read-only may be mended
            raise SpoolError(f"{self.path}: {error}") from error
        except OSError as error:
            raise SpoolError(f"{self.path}: {error.strerror or error}") from error
        except SpoolError:
            raise
        except Exception as error:  # others can write to the file, and its path may be any bytes
            raise SpoolError(f"{self.path}: {type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode == _inode(self.path):
            return self._connection
        self._drop()  # or somebody has deleted the file under us
        if not self._read_only:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, flags, 0o600))
        inode = self._inode = _inode(self.path)
        if inode in _spoilt:
            raise SpoolError(f"{self.path}: this process was forked while its parent used it")
        uri = f"file:{quote(os.fsencode(self.path))}?mode={'ro' if self._read_only else 'rw'}"
        db = sqlite3.connect(
            uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._connection, self._inode = db, inode
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        version, tables = _snapshot(db, contents)
        if version != VERSION and (tables or self._read_only):
            found = f"a spool of version {version}" if version else "no spool of guardagent's"
            raise SpoolError(f"{self.path}: {found}; this release knows version {VERSION} only")
        if not self._read_only:
            if version == 0:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA synchronous = OFF")  # an empty file has nothing to lose
            db.execute("PRAGMA journal_mode = WAL")
            # Some builds write zeros over each page that goes: a whole purge would go to the log.
            db.execute("PRAGMA secure_delete = FAST")
            self._disk.measure()
            log = min(_LOG_BYTES, self._disk.reserve // 4)
            db.execute(f"PRAGMA journal_size_limit = {log}")
            db.execute(f"PRAGMA wal_autocheckpoint = {max(1, log // _PAGE_BYTES)}")
            if version == 0:
                self._schema.create(db)
            db.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
            self._restrict()
            self._schema.introduce(db)
        self.generation = generation_of(db)

    def _restrict(self) -> None:
        """Take from others what rights they have to a file that was there before."""
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(self.path.name + suffix)
            with contextlib.suppress(OSError):  # not there, or not ours to change
                mode = path.stat().st_mode
                if mode & 0o077:
                    path.chmod(mode & 0o700)

    def _put_aside(self, error: sqlite3.Error) -> None:
        """Rename a file that is no database, so that a new one can take its place."""
        self._drop()
        if self._read_only or self._inode != _inode(self.path):
            return  # another process has done it
        if not self.generation and not _is_sqlite(self.path):
            return  # somebody else's file: the path is wrong
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        with contextlib.suppress(OSError):  # told by the error that is raised in any case
            # The file comes last: while it is there nobody makes a new one, with a log of its own.
            for suffix in ("-wal", "-shm"):
                side = self.path.with_name(self.path.name + suffix)
                if side.exists():
                    side.rename(aside.with_name(aside.name + suffix))
            self.path.rename(aside)
            message = "The spool %s is damaged (%s); it was put aside as %s."
            say(_log, logging.ERROR, message, self.path, error, aside.name)


def _snapshot(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Ask several questions of one state of the file."""
    db.execute("BEGIN")
    try:
        return work(db)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - half the price of Path.stat, paid each time
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_sqlite(path: Path) -> bool:
    """Tell whether the file begins as SQLite's do, or is not there."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return True


def _is_broken(error: sqlite3.Error) -> bool:
    """Tell whether the file itself is damaged, or no database at all."""
    if type(error) is not sqlite3.DatabaseError:
        return False
    return "malformed" in str(error) or "not a database" in str(error)
