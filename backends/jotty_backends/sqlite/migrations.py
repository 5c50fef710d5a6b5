"""From an older schema to the one that `schema` makes: what each version added, in order."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from jotty.core.queue import Migration, points
from jotty.errors import SchemaError, StorageError

from .schema import VERSION, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["migrate"]


@attrs.frozen
class _Step:
    """What brings a store to the next version.

    Attributes:
        told: What it does, in words.
        statements: The same in SQL.
    """

    told: str
    statements: Sequence[str]


_WORKERS: Final = """
CREATE TABLE workers (worker TEXT PRIMARY KEY, until INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID
"""
# by the version that a store has before the step
_STEPS: Final = {
    1: _Step("add the table of workers", [_WORKERS]),
}


def migrate(path: str, url: str, *, dry_run: bool, patience: float) -> Migration:
    """Bring a store to this version in one transaction; blocks.

    Args:
        path: The database file.
        url: The store's address, for errors.
        dry_run: Whether only to tell what would be done.
        patience: Seconds to wait for others to leave the store alone.

    Raises:
        SchemaError: It is newer, or another program's.
        StorageError: There is no store, others use it, or the system refuses.
        sqlite3.Error: SQLite refuses.
    """
    found = version_of(path, url)
    if found is None:
        raise StorageError(url, f"there is no store at {path!r}. Check the path.")
    if not 1 <= found <= VERSION:
        raise SchemaError(url, found, VERSION)
    steps = [_STEPS[version] for version in range(found, VERSION)]
    if steps and not dry_run:
        _apply(path, url, found, steps, patience)
    return Migration(found, VERSION, tuple(step.told for step in steps))


def _apply(path: str, url: str, found: int, steps: Sequence[_Step], patience: float) -> None:
    uri = f"{Path(path).as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=patience)) as connection:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # no worker of the older version may go on
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as busy:
            raise StorageError(url, "others use it. Stop its workers and clients, and try again.") from busy
        if connection.execute("PRAGMA user_version").fetchone()[0] != found:
            raise StorageError(url, "another process has just changed its schema. Try again.")
        for statement in (statement for step in steps for statement in step.statements):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        points.reached("sqlite.migrate.before")
        connection.execute("COMMIT")
        points.reached("sqlite.migrate.after")
