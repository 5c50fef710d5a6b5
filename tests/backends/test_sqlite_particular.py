"""What only the SQLite backend has: group commit, other connections, and what a path may be."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty.core.queue import (
    Head,
    Query,
    Record,
    TaskStatus,
    open_queue,
)
from jotty.errors import StorageError
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteBackend, SQLiteTaskQueue
from jotty_backends.sqlite.rows import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

S = TaskStatus


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


def locked(path: Path) -> FileLock:
    """Return the lock beside a store, held as another process would hold it."""
    lock = FileLock(f"{path}-lock", lambda: None)

    assert lock.try_acquire()
    return lock


def comes(lock: FileLock) -> bool:
    """Whether a lock can be taken within some seconds."""
    deadline = time.monotonic() + 5
    while not lock.try_acquire() and time.monotonic() < deadline:
        time.sleep(0.005)
    return lock.try_acquire()


def commits(path: Path) -> int:
    """How many transactions the write-ahead log holds: frames that tell the size of the database."""
    log = (path.parent / f"{path.name}-wal").read_bytes()
    page_size = int.from_bytes(log[8:12], "big")
    frames = range(32, len(log), 24 + page_size)
    return sum(
        log[frame + 8 : frame + 16] == log[16:24] and log[frame + 4 : frame + 8] != bytes(4)
        for frame in frames
    )


async def statuses(backend: SQLiteBackend) -> dict[str, S]:
    return {record.head.id: record.head.status for record in await backend.find(Query())}


# The handle


def test_every_field_of_a_head_has_a_column() -> None:
    assert {field.name for field in attrs.fields(Head)} == set(COLUMNS)


def test_a_url_names_the_file_and_its_options(path: Path) -> None:
    queue = open_queue(f"sqlite:///{path}?durability=power&busy_timeout=0.5&max_size=3")

    assert f"sqlite:///{path}" == queue.url
    assert "power" == queue.durability


def test_a_url_is_percent_encoded() -> None:
    backend = SQLiteBackend.from_url("///my%20tasks%3F.db")

    assert "sqlite:///my%20tasks%3F.db" == backend.url
    assert backend._path.endswith("/my tasks?.db")


@pytest.mark.parametrize("location", ["", "///", "tasks.db", "//host/tasks.db"])
def test_a_url_without_a_file_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        SQLiteBackend.from_url(location)


@pytest.mark.parametrize(
    ("query", "known"),
    [("durability=none", "'process' or 'power'"), ("busy_timeout=-1", ">= 0"), ("busy_timeout=x", "number")],
)
def test_a_wrong_option_is_refused_with_what_is_known(query: str, known: str) -> None:
    with pytest.raises(ValueError, match=known):
        open_queue(f"sqlite:///tasks.db?{query}")


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="memory:"):
        SQLiteTaskQueue(path)


def test_a_relative_path_is_that_of_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = SQLiteBackend("tasks.db")
    monkeypatch.chdir("/")

    assert str(tmp_path / "tasks.db") == backend.clone()._path
    assert "sqlite:///tasks.db" == backend.clone().url


# Group commit


async def test_who_waits_together_commits_together(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("first")])
    before, others = commits(path), locked(path)
    async with anyio.create_task_group() as group:
        for at in range(50):
            group.start_soon(backend.insert, [new(f"task-{at}")])
        await anyio.sleep(0.02)
        others.close()

    assert before + 1 == commits(path)
    assert {("default", S.PENDING): 51} == await backend.count()


async def test_a_programming_error_reaches_its_caller_alone(backend: SQLiteBackend) -> None:
    with pytest.raises(OverflowError):
        await backend.insert([new("a", max_attempts=2**64)])
    await backend.insert([new("b")])

    assert {"b": S.PENDING} == await statuses(backend)


# Locks


async def test_a_database_that_others_keep_ends_writes_in_time_but_no_reads(
    backend: SQLiteBackend, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await backend.insert([new("a")])

        lock = FileLock(f"{path}-lock", lambda: None)  # which is not kept for nobody

        assert await anyio.to_thread.run_sync(comes, lock)
        lock.close()

        assert {} == await backend.count()
        foreign.execute("ROLLBACK")
    await backend.insert([new("b")])

    assert {"b": S.PENDING} == await statuses(backend)


# Waking


async def test_commits_of_other_connections_wake_who_waits(backend: SQLiteBackend, path: Path) -> None:
    """As those of other processes do."""
    mark = await backend.wait("lane:default", -1, 0)
    mark = await backend.wait("lane:default", mark, 0.05)
    moved: list[int] = []

    async def wait() -> None:
        moved.append(await backend.wait("lane:default", mark, 30))

    with closing(sqlite3.connect(path, isolation_level=None)) as foreign, anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.03)

            assert [] == moved
            foreign.execute("UPDATE meta SET value = value + 1 WHERE name = 'last_seq'")

    assert mark < moved[0]
