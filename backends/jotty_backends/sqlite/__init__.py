"""Tasks in a SQLite file: for one machine, any number of processes, and no server.

`backend` is the face, on the event loop; `writer` the thread below it, which runs the operations that wait;
`tables` (with `rows`, `searches` and `transaction`) the steps in SQL; `schema` the file, `migrations` how an
older one is brought up to date; `forks` and `library` know what SQLite itself gets wrong.
"""

from __future__ import annotations

from typing import Final

from .backend import SQLiteBackend, SQLiteTaskQueue

__all__ = ["POINTS", "SQLiteBackend", "SQLiteTaskQueue"]

# see jotty.core.queue.points
POINTS: Final = (*SQLiteBackend.points, "sqlite.migrate.before", "sqlite.migrate.after")
