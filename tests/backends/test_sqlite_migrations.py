"""A store of an earlier schema is brought up to date by `migrate`, and by nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from jotty.core.queue import Migration, points
from jotty.errors import SchemaError, StorageError
from jotty_backends.sqlite import SQLiteBackend, SQLiteTaskQueue
from jotty_backends.sqlite.schema import VERSION

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

# what each version's schema had that the one before it had not; undone here to make an older store
_UNDO: Final = {2: ["DROP TABLE workers"]}


def schema_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name")
        return [f"{kind} {name} {' '.join((sql or '').split())}" for kind, name, sql in rows]


def make_older(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for newer in range(VERSION, version, -1):
            for statement in _UNDO[newer]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@pytest.fixture(params=range(1, VERSION))
async def older(request: pytest.FixtureRequest, path: Path) -> int:
    async with SQLiteTaskQueue(path) as queue:
        await queue.enqueue("kept", tags=["old"])
    make_older(path, request.param)
    return int(request.param)


async def test_an_older_store_is_refused_with_the_remedy(path: Path, older: int) -> None:
    with pytest.raises(SchemaError, match="jotty migrate") as caught:
        await SQLiteTaskQueue(path).get("id")

    assert (older, VERSION) == (caught.value.found, caught.value.expected)


async def test_migrating_gives_the_schema_of_a_new_store_and_keeps_its_tasks(
    path: Path, older: int, tmp_path: Path
) -> None:
    async with SQLiteTaskQueue(tmp_path / "new.db") as queue:
        await queue.stats()

    done = await SQLiteBackend(path).migrate()
    async with SQLiteTaskQueue(path) as queue:
        (kept,) = [task async for task in queue.tasks(tag="old")]

    assert (older, VERSION, True) == (done.found, done.wanted, bool(done.steps))
    assert "kept" == kept.goal
    assert schema_of(tmp_path / "new.db") == schema_of(path)


async def test_a_dry_run_tells_the_steps_and_writes_nothing(path: Path, older: int) -> None:
    before = content(path)
    told = await SQLiteBackend(path).migrate(dry_run=True)

    assert before == content(path)
    assert told == await SQLiteBackend(path).migrate()
    assert (older, VERSION) == (told.found, told.wanted)


async def test_migrating_what_is_up_to_date_does_nothing(path: Path) -> None:
    async with SQLiteTaskQueue(path) as queue:
        await queue.enqueue("kept")

    assert Migration(VERSION, VERSION) == await SQLiteBackend(path).migrate()


async def test_a_store_that_others_use_is_not_migrated(path: Path, older: int) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM tasks").fetchall()
        with pytest.raises(StorageError, match="Stop its workers"):
            await SQLiteBackend(path, busy_timeout=0.1).migrate()

    assert older == (await SQLiteBackend(path).migrate()).found


async def test_migrating_is_whole_or_not_at_all(path: Path, older: int) -> None:
    def fail(point: str) -> None:
        if point == "sqlite.migrate.before":
            raise KeyboardInterrupt

    points.listen(fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            await SQLiteBackend(path).migrate()
    finally:
        points.listen(None)

    assert older == (await SQLiteBackend(path).migrate(dry_run=True)).found


@pytest.mark.parametrize("version", [0, VERSION + 1])
async def test_a_newer_or_foreign_file_is_not_migrated(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        if version:
            connection.execute("PRAGMA application_id = 0x6A6F7474")
            connection.execute(f"PRAGMA user_version = {version}")
    before = content(path)
    with pytest.raises(SchemaError) as caught:
        await SQLiteBackend(path).migrate()

    assert (version, before) == (caught.value.found, content(path))


async def test_there_must_be_a_store_to_migrate(path: Path) -> None:
    with pytest.raises(StorageError, match="there is no store"):
        await SQLiteBackend(path).migrate()

    assert content(path) is None
