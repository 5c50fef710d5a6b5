"""The file of the SQLite backend: made, refused, damaged, full."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.queue import (
    MICROSECONDS,
    Change,
    ClaimRequest,
    Head,
    Query,
    Record,
    TaskStatus,
    lifecycle,
    open_queue,
)
from jotty.errors import SchemaError, StorageError, StoreCorrupt
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteBackend, SQLiteTaskQueue
from jotty_backends.sqlite.schema import VERSION

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

S = TaskStatus
SECOND = MICROSECONDS
HOUR = 3600 * SECOND
ONE = ClaimRequest(("default",), 1, "w", 30 * SECOND)


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


def locked(path: Path) -> FileLock:
    """Return the lock beside a store, held as another process would hold it."""
    lock = FileLock(f"{path}-lock", lambda: None)

    assert lock.try_acquire()
    return lock


async def statuses(backend: SQLiteBackend) -> dict[str, S]:
    return {record.head.id: record.head.status for record in await backend.find(Query())}


# Opening


async def test_only_the_owner_may_read_the_files(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("a")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files(path.parent)}

    assert dict.fromkeys(["tasks.db", "tasks.db-lock", "tasks.db-shm", "tasks.db-wal"], 0o600) == modes


def contents(directory: Path) -> dict[str, bytes]:
    """Return what the files hold; not of those by which SQLite's readers tell each other that they read."""
    files = (file for file in directory.iterdir() if file.is_file() and not file.name.endswith("-shm"))
    return {file.name: file.read_bytes() for file in files}


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def damage(path: Path) -> None:
    """Write over most of the second half of a file."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"garbage" * ((size // 2 - 4096) // 7))


async def refused(path: Path) -> StorageError:
    """Return the error with which opening is refused, having checked that it wrote nothing."""
    before = contents(path.parent)
    backend = SQLiteBackend(path, busy_timeout=0.1)
    with pytest.raises(StorageError) as caught:
        await backend.open()
    await backend.aclose()

    assert before == contents(path.parent)
    return caught.value


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "missing" / "tasks.db")
    with pytest.raises(StorageError, match="missing"):
        await backend.open()

    assert [] == files(tmp_path)


async def test_a_directory_is_no_store(path: Path) -> None:
    await anyio.Path(path).mkdir()

    assert "no regular file" in (await refused(path)).problem


async def test_a_symbolic_link_is_refused(path: Path) -> None:
    await anyio.Path(path).symlink_to(path.parent / "elsewhere.db")

    assert "symbolic link" in (await refused(path)).problem


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_foreign_database_is_left_alone(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute(f"PRAGMA journal_mode = {mode}")
        foreign.execute("CREATE TABLE notes (text)")
        foreign.execute("PRAGMA user_version = 7")
    error = await refused(path)

    assert isinstance(error, SchemaError)
    assert (0, VERSION) == (error.found, error.expected)


async def test_a_foreign_database_that_is_in_use_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("CREATE TABLE notes (text)")

        assert isinstance(await refused(path), SchemaError)


async def test_a_newer_schema_is_refused(path: Path) -> None:
    async with SQLiteTaskQueue(path):
        pass
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    error = await refused(path)

    assert isinstance(error, SchemaError)
    assert (99, VERSION) == (error.found, error.expected)


async def filled(path: Path, number: int = 200) -> None:
    """Make a store of some pages."""
    backend = SQLiteBackend(path)
    await backend.open()
    await backend.insert([Record(Head(id=f"task-{at}"), bytes(2000)) for at in range(number)])
    await backend.aclose()


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"x"])
async def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    await anyio.Path(path).write_bytes(content)

    assert isinstance(await refused(path), StoreCorrupt)


@pytest.mark.parametrize("length", [0, 100, 5000, 20 * 4096])
async def test_a_store_that_was_cut_off_is_left_alone(path: Path, length: int) -> None:
    await filled(path)
    os.truncate(path, length)

    assert isinstance(await refused(path), StoreCorrupt)


async def test_a_damaged_store_says_so_and_serves_what_it_can(path: Path) -> None:
    await filled(path)
    damage(path)
    backend = SQLiteBackend(path)
    await backend.open()
    with pytest.raises(StoreCorrupt) as caught:
        await backend.get([f"task-{at}" for at in range(200)])
    counts = await backend.count()
    await backend.aclose()

    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert {("default", S.PENDING): 200} == counts


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    await anyio.Path(path).touch()
    async with SQLiteTaskQueue(path) as queue:
        await queue.enqueue("goal")

        assert 1 == (await queue.stats()).total[S.PENDING]


async def test_a_store_that_is_being_made_is_waited_for(path: Path) -> None:
    maker = locked(path)
    backend = SQLiteBackend(path, busy_timeout=5)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.open)
        await anyio.sleep(0.02)

        assert not await anyio.Path(path).exists()
        maker.close()
    await backend.insert([new("a")])
    await backend.aclose()


async def test_a_store_that_never_gets_made_is_given_up(path: Path) -> None:
    maker = locked(path)

    assert "locked for 0.1 s" in (await refused(path)).problem
    maker.close()


async def test_opening_fails_and_succeeds_later(path: Path) -> None:
    await anyio.Path(path).mkdir()
    backend = SQLiteBackend(path)
    with pytest.raises(StorageError):
        await backend.open()
    await anyio.Path(path).rmdir()
    await backend.open()

    assert {} == await backend.count()
    await backend.aclose()


def test_many_processes_open_at_once(path: Path) -> None:
    script = """
import anyio, sys
from jotty.core.queue import SQLiteTaskQueue
async def main():
    async with SQLiteTaskQueue(sys.argv[1]) as queue:
        await queue.enqueue("goal")
anyio.run(main)
"""
    started = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(4)]

    assert [0] * 4 == [process.wait(30) for process in started]
    with closing(sqlite3.connect(path)) as connection:
        assert [(4,)] == connection.execute("SELECT count(*) FROM tasks").fetchall()


async def test_opening_touches_no_task_of_others(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("a")])
    (held,) = (await backend.claim(ONE)).records
    other = SQLiteBackend(path)
    await other.open()
    await other.aclose()

    assert [held] == await backend.get(["a"])


async def test_a_deleted_task_leaves_nothing_behind(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("a", tags=("t",)), new("b", status=S.BLOCKED, depends_on=("a",))])
    (held,) = (await backend.claim(ONE)).records
    await backend.append("a", 1, [b"entry"])
    head = lifecycle.completed(held.head, 5)
    (done,) = await backend.swap([Change(held.head.version, Record(head, None, b"{}"))])
    (child,) = await backend.get(["b"])

    assert done.record
    assert child
    cancelled = lifecycle.cancelled(child.head, 6)

    assert cancelled
    await backend.swap([Change(child.head.version, Record(cancelled))])
    gone = await backend.delete([("a", done.record.head.version), ("b", cancelled.version)])

    assert [True, True] == gone
    tables = ("tasks", "payloads", "outcomes", "journal", "edges", "tags")
    with closing(sqlite3.connect(path)) as connection:
        left = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]  # noqa: S608

    assert [0] * 6 == left
    assert {} == await backend.count()


async def test_a_seq_is_never_given_out_twice(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("a"), new("b", status=S.CANCELLED)])
    await backend.delete([("b", 1)])
    await backend.aclose()
    again = SQLiteBackend(path)
    await again.open()
    (stored,) = await again.insert([new("c")])
    await again.aclose()

    assert 3 == stored.head.seq


# A disk that fails


async def pragma(backend: SQLiteBackend, statement: str) -> None:
    await backend._open_writer().take(lambda tables: tables.execute(statement).fetchall(), writes=False)


async def test_a_full_disk_loses_nothing_and_heals(backend: SQLiteBackend) -> None:
    await backend.insert([new("a")])
    await pragma(backend, "PRAGMA max_page_count = 40")
    with pytest.raises(StorageError, match="full") as caught:
        await backend.insert([Record(Head(id="b"), bytes(400_000))])
    await backend.insert([new("c")])
    await pragma(backend, "PRAGMA max_page_count = 100000")
    await backend.insert([Record(Head(id="b"), bytes(400_000))])

    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert ["a", "b", "c"] == sorted(await statuses(backend))
    assert {("default", S.PENDING): 3} == await backend.count()


async def test_a_full_disk_fails_only_who_is_too_large(backend: SQLiteBackend, path: Path) -> None:
    await pragma(backend, "PRAGMA max_page_count = 40")
    others = locked(path)

    async def too_large() -> None:
        with pytest.raises(StorageError):
            await backend.insert([Record(Head(id="b"), bytes(400_000))])

    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        group.start_soon(too_large)
        group.start_soon(backend.insert, [new("c")])
        await anyio.sleep(0.02)
        others.close()

    assert ["a", "c"] == sorted(await statuses(backend))


async def test_a_read_only_store_says_so_and_heals(backend: SQLiteBackend) -> None:
    await pragma(backend, "PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="readonly"):
        await backend.insert([new("a")])

    assert {} == await backend.count()
    await pragma(backend, "PRAGMA query_only = OFF")
    await backend.insert([new("a")])

    assert {"a": S.PENDING} == await statuses(backend)


async def test_a_commit_that_fails_leaves_nothing_and_heals(backend: SQLiteBackend, path: Path) -> None:
    await backend.insert([new("a")])
    trigger = "CREATE TEMP TRIGGER broken BEFORE INSERT ON counts BEGIN SELECT RAISE(ABORT, 'no more'); END"
    writer = backend._open_writer()
    await writer.take(lambda tables: tables.execute(trigger).fetchall())
    others = locked(path)
    errors: list[str] = []

    async def insert(task_id: str) -> None:
        try:
            await backend.insert([new(task_id)])
        except StorageError as error:
            errors.append(error.problem)

    async with anyio.create_task_group() as group:
        group.start_soon(insert, "b")
        group.start_soon(insert, "c")
        await anyio.sleep(0.02)
        others.close()

    assert ["no more.", "no more."] == errors
    assert {"a": S.PENDING} == await statuses(backend)
    await writer.take(lambda tables: tables.execute("DROP TRIGGER temp.broken").fetchall())
    (stored,) = await backend.insert([new("d")])

    assert 2 == stored.head.seq
    assert {("default", S.PENDING): 2} == await backend.count()


async def test_a_store_that_is_only_to_be_read_is_not_made(path: Path) -> None:
    queue = open_queue(f"sqlite:///{path}?create=0")
    with pytest.raises(StorageError, match="there is no store"):
        await queue.stats()
    assert list(path.parent.iterdir()) == []

    async with SQLiteTaskQueue(path) as made:
        await made.enqueue("goal")
        assert [task.goal async for task in queue.tasks()] == ["goal"]
    await queue.aclose()


def test_create_is_0_or_1(path: Path) -> None:
    with pytest.raises(ValueError, match="create must be 1"):
        open_queue(f"sqlite:///{path}?create=yes")


def test_a_url_in_place_of_a_path_is_told_apart() -> None:
    with pytest.raises(ValueError, match="open_queue"):
        SQLiteTaskQueue("sqlite:///tasks.db")


async def test_a_handle_whose_file_was_replaced_goes_over_to_the_new_one(path: Path) -> None:
    """Else a worker would go on with a file that nobody else can see, and never hear of a task again."""
    queue = SQLiteTaskQueue(path)
    await queue.enqueue("lost with its file")
    for one in path.parent.iterdir():
        one.unlink()
    with pytest.raises(StorageError, match="deleted or replaced"):
        await queue.enqueue("refused")
    with pytest.raises(StorageError, match="there is no store"):
        await queue.stats()
    async with SQLiteTaskQueue(path) as other:
        await other.enqueue("in the new file")

    assert [task.goal async for task in queue.tasks()] == ["in the new file"]
    await queue.aclose()


async def test_a_waiting_handle_notices_that_its_file_was_deleted(path: Path) -> None:
    queue = SQLiteTaskQueue(path)
    await queue.stats()

    async def delete() -> None:
        await anyio.sleep(0.1)
        for one in path.parent.iterdir():
            one.unlink()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(delete)
            with pytest.raises(StorageError):
                await queue.claim(worker="w", wait=30)
    await queue.aclose()
