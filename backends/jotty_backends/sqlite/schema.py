"""The file: how it is made, and how a file that is no store of ours is told apart and left alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jotty.core.queue import points
from jotty.errors import SchemaError, StorageError, StoreCorrupt
from jotty_backends.file_lock import FileLock

from . import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.queue import Durability
    from jotty_backends.ownership import Owner

__all__ = ["VERSION", "connect", "storage_error", "version_of"]

VERSION: Final = 2
APPLICATION_ID: Final = 0x6A6F7474  # "jott"
_SMALLEST: Final = 512
_MADE: Final = b"jotty made the store beside this file\n"
_RETRY_EVERY: Final = 0.005
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_QUESTIONS: Final = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
_SYNCHRONOUS: Final = {"process": "NORMAL", "power": "FULL"}

# heads apart from payloads and outcomes: rewriting a head must not rewrite a megabyte
_SCHEMA: Final = """
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tags TEXT,
  created_at INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  lane TEXT NOT NULL,
  status TEXT NOT NULL,
  key TEXT,
  depends_on TEXT,
  on_dependency TEXT NOT NULL,
  awaiting TEXT,
  answered TEXT,
  run_at INTEGER NOT NULL,
  due INTEGER,
  lease INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  worker TEXT,
  attempt INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  retry TEXT,
  timeout INTEGER,
  cancel_requested INTEGER NOT NULL,
  postponed INTEGER NOT NULL,
  isolated INTEGER NOT NULL,
  progress TEXT,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  version INTEGER NOT NULL
);
CREATE INDEX tasks_ready ON tasks (lane, priority, run_at) WHERE status = 'pending';
CREATE INDEX tasks_due ON tasks (due) WHERE due IS NOT NULL;
CREATE UNIQUE INDEX tasks_live_key ON tasks (key)
  WHERE key IS NOT NULL AND status NOT IN ('completed', 'failed', 'cancelled');
CREATE INDEX tasks_key ON tasks (key) WHERE key IS NOT NULL;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at > 0;
CREATE INDEX tasks_status ON tasks (status) WHERE status <> 'completed';
CREATE TABLE payloads (task INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE outcomes (task INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE journal (
  task INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (task, number)
) WITHOUT ROWID;
CREATE TABLE edges (
  parent INTEGER NOT NULL, child INTEGER NOT NULL, PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE INDEX edges_child ON edges (child);
CREATE TABLE tags (tag TEXT NOT NULL, task INTEGER NOT NULL, PRIMARY KEY (tag, task)) WITHOUT ROWID;
CREATE TABLE counts (
  lane TEXT NOT NULL, status TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (lane, status)
) WITHOUT ROWID;
CREATE TABLE workers (worker TEXT PRIMARY KEY, until INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('last_seq', 0);
"""


def storage_error(url: str, cause: Exception) -> StorageError:
    """Return what a driver's or the operating system's error is to the queue's callers."""
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    error = (StoreCorrupt if code in _CORRUPT else StorageError)(url, f"{cause}.")
    error.__cause__ = cause
    return error


def connect(
    path: str, url: str, news: Callable[[], object], *, durability: Durability, patience: float, create: bool
) -> tuple[sqlite3.Connection, FileLock]:
    """Return a connection to the store, which is made if there is none, and the lock beside it.

    Args:
        path: The database file.
        url: The store's address, for errors.
        news: See `FileLock`.
        durability: "process" or "power".
        patience: Seconds to wait for another process that makes it.
        create: Whether to make it if there is none.

    Raises:
        SchemaError, StoreCorrupt, StorageError: See `QueueBackend.open`; nothing was written.
        OSError, sqlite3.Error: The system refuses.
    """
    forks.check(path, url)
    is_store = _is_store(path, url)
    if not is_store and not create:
        raise StorageError(url, f"there is no store at {path!r}. Check the path.")
    lock = FileLock(f"{path}-lock", news, owner=_owner_of(path) if is_store else None)
    try:
        if not is_store:
            _make(path, url, lock, patience)
        return _connect(path, durability, patience), lock
    except BaseException:
        lock.close()
        raise


def _owner_of(path: str) -> Owner | None:
    """Return whose the store is, for whom root makes the lock file that is missing."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:  # whoever opens it now is told
        return None
    return found.st_uid, found.st_gid


def _is_store(path: str, url: str) -> bool:
    """Whether this is a store of ours; False if there is nothing yet. Writes nothing."""
    version = version_of(path, url)
    if version not in {None, VERSION}:
        raise SchemaError(url, version or 0, VERSION)
    return version is not None


def version_of(path: str, url: str) -> int | None:
    """Return the version of a store's schema: 0 for another program's, None if there is nothing yet.

    Writes nothing.

    Raises:
        StoreCorrupt, StorageError: It is damaged, a symbolic link, or in no directory.
    """
    if not _has_content(path, url):
        return None
    with closing(_look_into(path)) as found:
        found.execute("BEGIN")
        application, version, tables = (found.execute(question).fetchone()[0] for question in _QUESTIONS)
    if application == 0 and version == 0 and tables == 0:
        return None
    return int(version) if application == APPLICATION_ID else 0


def _look_into(path: str) -> sqlite3.Connection:
    """Return a connection that changes nothing, be the file a foreign one."""
    log = Path(f"{path}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    # a connection that can write would checkpoint the file when it is closed; one that may not take the file
    # for immutable would at least put an empty log beside it
    mode = "mode=ro" if has_log else "mode=ro&immutable=1"
    return sqlite3.connect(f"{Path(path).as_uri()}?{mode}", uri=True, isolation_level=None)


def _has_content(path: str, url: str) -> bool:
    directory = Path(path).parent
    if not directory.is_dir():
        raise StorageError(url, f"the directory {str(directory)!r} does not exist. Create it first.")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(found.st_mode):
        raise StorageError(url, f"{path!r} is a symbolic link. Name the file it points to.")
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(url, f"{path!r} is no regular file.")
    if 0 < found.st_size < _SMALLEST:  # which SQLite would take for empty
        raise StoreCorrupt(url, f"{path!r} has {found.st_size} bytes, fewer than any database.")
    return found.st_size > 0


def _make(path: str, url: str, lock: FileLock, patience: float) -> None:
    """Make the store, unless another process has just done so."""
    deadline = time.monotonic() + patience
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            raise StorageError(url, f"another process has kept {lock.path!r} locked for {patience:g} s.")
        time.sleep(_RETRY_EVERY)
    try:
        if _is_store(path, url):
            return
        exists = Path(path).exists()
        if exists and lock.read_note() == _MADE:
            raise StoreCorrupt(url, "the file is empty, though it was a store. Restore it, or delete it.")
        if not exists:
            # by ourselves, since SQLite would let everyone read it; nobody has a descriptor of it yet
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        points.reached("sqlite.make.before")
        _create_tables(path)
        points.reached("sqlite.make.after")
        lock.write_note(_MADE)
    finally:
        lock.release()


def _create_tables(path: str) -> None:
    uri = f"{Path(path).as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as new:
        new.execute("PRAGMA journal_mode = WAL")
        new.execute("PRAGMA synchronous = FULL")
        new.execute("BEGIN IMMEDIATE")
        if new.execute(_QUESTIONS[-1]).fetchone()[0]:  # where there are no lock files, another was faster
            return
        for statement in _SCHEMA.split(";\n")[:-1]:
            new.execute(statement)
        new.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        new.execute(f"PRAGMA user_version = {VERSION}")
        points.reached("sqlite.create.before")
        new.execute("COMMIT")
        points.reached("sqlite.create.after")


class _Connection(sqlite3.Connection):
    """A connection that is noted as long as it is open."""

    entry: forks.Entry

    def close(self) -> None:
        super().close()
        forks.leave(self.entry)


def _connect(path: str, durability: Durability, patience: float) -> sqlite3.Connection:
    uri = f"{Path(path).as_uri()}?mode=rw"
    entry = forks.enter(path)
    try:
        connection = sqlite3.connect(
            uri,
            timeout=patience,
            isolation_level=None,
            factory=_Connection,
            cached_statements=256,
            uri=True,
            check_same_thread=False,
        )
    except BaseException:
        forks.leave(entry)
        raise
    connection.entry = entry
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA trusted_schema = OFF")
        # a checkpoint costs two syncs and writes hot pages home: at the default, every few groups of tasks
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
    except BaseException:
        connection.close()
        raise
    return connection
