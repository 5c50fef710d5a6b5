"""Tasks in a SQLite file: for one machine, any number of processes, and no server.

`backend` is the face, on the event loop; `writer` the thread below it, which runs what `operation` carries;
`tables` (with `rows`, `searches` and `transaction`) the steps in SQL; `schema`, `lock` and `steady` the file,
the lock beside it, and the time in it.
"""

from __future__ import annotations

from .backend import SQLiteBackend, SQLiteTaskQueue

__all__ = ["SQLiteBackend", "SQLiteTaskQueue"]
