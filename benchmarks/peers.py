"""Whom jotty is measured beside: what one would write by hand, and huey."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
import uuid
from collections import deque
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jotty.core.queue import Durability

__all__ = [
    "GOAL",
    "LEVELS",
    "RESULT",
    "Huey",
    "MinimalSQLite",
    "Peer",
    "RawFiles",
    "RawSQLite",
    "has_huey",
    "in_turn",
]

LEVELS: Final[Mapping[Durability, str]] = {
    "process": "durability 'process' (sqlite: NORMAL)",
    "power": "durability 'power' (sqlite: FULL; files: fsync)",
    "none": "in memory",
}
GOAL: Final = "Generate the quarterly report"
RESULT: Final = "done"

Held = TypeVar("Held")


class Peer(Protocol[Held]):
    """A queue for one caller, who waits for each step.

    A task is enqueued with GOAL and completed with RESULT.
    """

    def enqueue(self) -> None:
        """Store a task."""
        ...

    def claim(self) -> Held:
        """Take the first task, with its goal."""
        ...

    def complete(self, held: Held) -> None:
        """Store its result."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


async def in_turn(peer: Peer[Held], in_flight: int, tasks: int) -> None:
    """Do the life cycle of many tasks, so many of them at a time."""
    for _ in range(tasks // in_flight):
        for _ in range(in_flight):
            peer.enqueue()
        held = [peer.claim() for _ in range(in_flight)]
        for one in held:
            peer.complete(one)


_SYNCHRONOUS: Final = {"process": "NORMAL", "power": "FULL"}


def _connect(path: Path, durability: Durability) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    return connection


class RawSQLite:
    """A queue as a competent person writes one over sqlite3: each step one transaction, statements prepared.

    It has ids, lanes, priorities, delays, attempts as a fence, and leases. It has no retry policy, reaping,
    cancel, dependencies, keys, journal or waking, and one caller at a time.
    """

    def __init__(self, path: Path, durability: Durability) -> None:
        self._connection = _connect(path, durability)
        self._connection.execute(
            "CREATE TABLE tasks (id TEXT PRIMARY KEY, lane TEXT NOT NULL, priority INTEGER NOT NULL,"
            " run_at REAL NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL, lease_until REAL,"
            " payload TEXT NOT NULL, result TEXT, created_at REAL NOT NULL)"
        )
        self._connection.execute(
            "CREATE INDEX ready ON tasks (lane, priority, run_at) WHERE status = 'pending'"
        )

    def enqueue(self) -> None:
        """Insert a row."""
        now = time.time()
        task = (str(uuid.uuid4()), "default", 3, now, json.dumps({"goal": GOAL}), now)
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, 'pending', 0, NULL, ?, NULL, ?)", task
        )
        self._connection.execute("COMMIT")

    def claim(self) -> tuple[str, int, Any]:
        """Take the first row that is ready, and decode its payload."""
        now = time.time()
        self._connection.execute("BEGIN IMMEDIATE")
        task_id, attempts, payload = self._connection.execute(
            "SELECT id, attempts, payload FROM tasks WHERE status = 'pending' AND lane = ? AND run_at <= ?"
            " ORDER BY priority, run_at LIMIT 1",
            ("default", now),
        ).fetchone()
        self._connection.execute(
            "UPDATE tasks SET status = 'running', attempts = ?, lease_until = ? WHERE id = ?",
            (attempts + 1, now + 30, task_id),
        )
        self._connection.execute("COMMIT")
        return task_id, attempts + 1, json.loads(payload)

    def complete(self, held: tuple[str, int, Any]) -> None:
        """Store the result, if the row is still ours."""
        task_id, attempts, _ = held
        self._connection.execute("BEGIN IMMEDIATE")
        written = self._connection.execute(
            "UPDATE tasks SET status = 'done', result = ?"
            " WHERE id = ? AND status = 'running' AND attempts = ?",
            (json.dumps(RESULT), task_id, attempts),
        )
        _expect_one(written.rowcount)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class MinimalSQLite:
    """The least that can be called a queue: five columns, an integer key, no lease, no fence, no JSON."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self._connection = _connect(path, durability)
        self._connection.execute(
            "CREATE TABLE tasks (id INTEGER PRIMARY KEY, status TEXT, payload TEXT, result TEXT, run_at REAL)"
        )
        self._connection.execute("CREATE INDEX ready ON tasks (run_at) WHERE status = 'pending'")

    def enqueue(self) -> None:
        """Insert a row."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(
            "INSERT INTO tasks (status, payload, run_at) VALUES ('pending', ?, ?)", (GOAL, time.time())
        )
        self._connection.execute("COMMIT")

    def claim(self) -> int:
        """Take the first row."""
        self._connection.execute("BEGIN IMMEDIATE")
        task_id, _ = self._connection.execute(
            "SELECT id, payload FROM tasks WHERE status = 'pending' ORDER BY run_at LIMIT 1"
        ).fetchone()
        self._connection.execute("UPDATE tasks SET status = 'running' WHERE id = ?", (task_id,))
        self._connection.execute("COMMIT")
        return int(task_id)

    def complete(self, held: int) -> None:
        """Store the result."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("UPDATE tasks SET status = 'done', result = ? WHERE id = ?", (RESULT, held))
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RawFiles:
    """The file operations of a task and nothing else: three lines in a log, a payload file, a result file.

    Which task is next stands in memory. Each line is appended under the lock that several processes would
    need. At level "power", a file and its directory are synced, and so is each line.
    """

    def __init__(self, root: Path, durability: Durability) -> None:
        self._is_synced = durability == "power"
        self._directories = {name: root / name for name in ("payloads", "results")}
        for directory in self._directories.values():
            directory.mkdir(parents=True)
        self._log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._ready: deque[str] = deque()

    def enqueue(self) -> None:
        """Write the payload, then the line that makes it count."""
        task_id = str(uuid.uuid4())
        self._write("payloads", task_id, {"goal": GOAL})
        self._append({"id": task_id, "status": "pending", "run_at": time.time()})
        self._ready.append(task_id)

    def claim(self) -> str:
        """Write a line, and read the payload."""
        task_id = self._ready.popleft()
        self._append({"id": task_id, "status": "running", "lease_until": time.time() + 30})
        json.loads((self._directories["payloads"] / task_id).read_bytes())
        return task_id

    def complete(self, held: str) -> None:
        """Write the result, then the line that makes it count."""
        self._write("results", held, {"result": RESULT})
        self._append({"id": held, "status": "done"})

    def close(self) -> None:
        """Close the log."""
        os.close(self._log)

    def _append(self, line: dict[str, Any]) -> None:
        encoded = json.dumps(line).encode() + b"\n"
        fcntl.flock(self._log, fcntl.LOCK_EX)
        os.write(self._log, encoded)
        self._sync(self._log)
        fcntl.flock(self._log, fcntl.LOCK_UN)

    def _write(self, directory: str, name: str, value: dict[str, Any]) -> None:
        descriptor = os.open(self._directories[directory] / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, json.dumps(value).encode())
        self._sync(descriptor)
        os.close(descriptor)
        if self._is_synced:
            descriptor = os.open(self._directories[directory], os.O_RDONLY)
            self._sync(descriptor)
            os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        if self._is_synced:
            os.fsync(descriptor)


def has_huey() -> bool:
    """Whether the extra `bench`, which brings huey, is installed."""
    return find_spec("huey") is not None


class Huey:
    """A huey instance, driven as its consumer drives it: dequeue, then execute, which stores the result.

    huey knows no lease: a task is deleted as it is claimed, and lost if the process dies then.

    Args:
        path: Where its SQLite file is; None for its memory storage.
        durability: "power": with fsync=True. "process": huey itself would not sync at all (False) or as at
            "power" (True, and by SQLite's default); so SQLite's NORMAL is set on its connection.
    """

    def __init__(self, path: Path | None, durability: Durability) -> None:
        huey: Any = import_module("huey")
        if path is None:
            self._huey = huey.MemoryHuey("benchmark")
        else:
            self._huey = huey.SqliteHuey("benchmark", filename=str(path), fsync=True)
            self._huey.storage.conn.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        self._is_file = path is not None
        self._do = self._huey.task()(_do)

    def enqueue(self) -> None:
        """Call the task."""
        self._do(GOAL)

    def claim(self) -> Any:
        """Dequeue it."""
        return self._huey.dequeue()

    def complete(self, held: Any) -> None:
        """Execute it, which costs little beside storing what it returns."""
        self._huey.execute(held)

    def close(self) -> None:
        """Close the file."""
        if self._is_file:
            self._huey.storage.close()


def _do(_: str) -> str:
    return RESULT


def _expect_one(rows: int) -> None:
    if rows != 1:
        raise RuntimeError(f"one row was to be written, not {rows}")
