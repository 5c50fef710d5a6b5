"""Whose the files are that root makes in the store of another: that one's, who else could not go on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.core.queue import ClaimRequest, Head, Record
from jotty_backends.file import FileBackend, FileTaskQueue, contents, log
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteTaskQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files in the store of another"),
]

NOBODY = 65534
OTHERS = 65533  # a group


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of nobody's, through which every user may pass."""
    with tempfile.TemporaryDirectory() as made:  # since tmp_path is its owner's alone
        Path(made).chmod(0o755)
        os.chown(made, NOBODY, OTHERS)
        yield Path(made)


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "tasks"


def owners(path: Path) -> dict[str, tuple[int, int]]:
    found = [path, *path.rglob("*")]
    return {str(file): (file.lstat().st_uid, file.lstat().st_gid) for file in found}


def make_of_nobody(path: Path) -> None:
    path.mkdir()
    os.chown(path, NOBODY, OTHERS)


def give(path: Path) -> None:
    for file in [path, *path.rglob("*")]:
        os.chown(file, NOBODY, OTHERS)


async def work(path: Path) -> None:
    """Make files of every kind."""
    async with FileTaskQueue(path, durability="power") as queue:
        for goal in ("completed", "claimed", "pending"):
            await queue.enqueue(goal)
        completed, claimed = await queue.claim(worker="w", limit=2)
        for task in (completed, claimed):
            await queue.record(task, [{"kind": "begun"}])
        await queue.complete(completed, "result")
        payload = next(path.rglob(f"*{claimed.id}.payload.json"))  # noqa: ASYNC240 - it is quick
        await anyio.Path(payload).write_bytes(b"damaged")
        assert 3 == len([task async for task in queue.tasks()])


async def write_snapshot(path: Path, queue: FileTaskQueue) -> None:
    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(5):
        patch.setattr(log, "_SMALL", -(10**9))
        await queue.enqueue("goal")
        while not list(path.glob("snapshot-*")):  # noqa: ASYNC110, ASYNC240 - it is a thread that is waited for
            await anyio.sleep(0.001)


async def test_what_root_makes_in_the_store_of_another_is_that_ones(path: Path) -> None:
    async with FileTaskQueue(path) as queue:
        await queue.stats()
    give(path)
    (path / "lock").unlink()
    await work(path)
    async with FileTaskQueue(path) as queue:
        await write_snapshot(path, queue)
    found = owners(path)
    kinds = ("payload", "outcome", "journal", "snapshot", "lock", "damaged/", "tasks/000/000")

    assert {(NOBODY, OTHERS)} == set(found.values())
    assert [] == [kind for kind in kinds if kind not in " ".join(found)]


async def test_an_empty_directory_of_another_becomes_a_store_of_that_one(path: Path) -> None:
    make_of_nobody(path)
    await work(path)

    assert {(NOBODY, OTHERS)} == set(owners(path).values())


async def test_a_store_that_root_makes_is_roots(path: Path) -> None:
    """Whoever has the directory in which it stands."""
    await work(path)

    assert {0} == {user for user, _ in owners(path).values()}


async def test_a_lock_that_root_makes_beside_the_database_of_another_is_that_ones(directory: Path) -> None:
    async with SQLiteTaskQueue(directory / "tasks.db") as queue:
        await queue.enqueue("goal")
    (directory / "tasks.db-lock").unlink()
    os.chown(directory / "tasks.db", NOBODY, OTHERS)
    async with SQLiteTaskQueue(directory / "tasks.db") as queue:
        await queue.enqueue("root's")
        found = owners(directory)

    assert {(NOBODY, OTHERS)} == set(found.values())
    assert str(directory / "tasks.db-lock") in found


GOES_ON = """
import anyio, os, sys
from jotty.core.queue import FileTaskQueue
path, loop = sys.argv[1:]
async def main():
    async with FileTaskQueue(path + "-other") as queue:  # which imports all there is to import
        await queue.enqueue("goal")
    os.setgroups([])
    os.setgid(65533)
    os.setuid(65534)
    async with FileTaskQueue(path) as queue:
        print([(task.goal, task.status.value) async for task in queue.tasks()])
        await queue.enqueue("mine")
        for task in await queue.claim(worker="w", limit=9):
            await queue.record(task, [{"kind": "begun"}])
            await queue.complete(task)
        print([task.status.value async for task in queue.tasks()])
anyio.run(main, backend=loop)
"""


def run_script(script: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


async def test_the_owner_goes_on_where_root_has_worked(path: Path, anyio_backend: str) -> None:
    make_of_nobody(path)
    async with FileTaskQueue(path) as queue:
        await queue.enqueue("root's")
        await queue.enqueue("root's too")
        (task,) = await queue.claim(worker="w")
        await queue.fail(task, "again", delay=0)
        await write_snapshot(path, queue)
    told = await anyio.to_thread.run_sync(run_script, GOES_ON, str(path), anyio_backend)

    assert "[(\"root's\", 'pending'), (\"root's too\", 'pending'), ('goal', 'pending')]" == told[0]
    assert str(["completed"] * 4) == told[1]


WORKS = """
import anyio, os, pathlib, sys
from jotty.core.queue import FileTaskQueue, QueueManager
from jotty_backends.file import contents
contents._SHARD = 1
path, loop = sys.argv[1:]
async def main():
    async with FileTaskQueue(path + "-other") as queue:  # which imports all there is to import
        await queue.enqueue("goal")
        await QueueManager(queue, lambda task: anyio.sleep(0)).run(drain=True)
    os.setgroups([])
    os.setgid(65533)
    os.setuid(65534)
    async with FileTaskQueue(path) as queue:
        async def handle(task):
            await queue.record(task, [{"kind": "begun"}])
            if task.goal == "journal":
                next(pathlib.Path(path).rglob(f"*{task.id}.journal*")).chmod(0)
                await queue.record(task, [{"kind": "more"}])
            return task.goal
        await QueueManager(queue, handle).run(drain=True)
        for task in [task async for task in queue.tasks()]:
            print(task.goal, task.status.value, (task.error or {}).get("type"))
anyio.run(main, backend=loop)
"""


async def test_what_is_roots_in_the_store_of_another_stops_its_own_task_alone(
    path: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_SHARD", 1)
    make_of_nobody(path)
    async with FileTaskQueue(path) as queue:
        goals = ("payload", "directory", "journal", "good")
        tasks = [await queue.enqueue(goal, max_attempts=1) for goal in goals]
    files = [next(path.rglob(f"*{task.id}.payload.json")) for task in tasks]  # noqa: ASYNC240 - it is quick
    for file in (files[0], files[1].parent):
        os.chown(file, 0, 0)
    told = await anyio.to_thread.run_sync(run_script, WORKS, str(path), anyio_backend)
    unreadable = "None failed StoreCorrupt"

    assert [unreadable, unreadable, "journal failed StoreCorrupt", "good completed None"] == told
    give(path)
    async with FileTaskQueue(path) as queue:
        for task in tasks[:2]:
            await queue.retry(task.id)

        assert ["payload", "directory"] == [task.goal for task in await queue.claim(worker="w", limit=2)]
        assert ["begun", "end"] == [entry.kind async for entry in queue.events(tasks[2].id)]


@pytest.mark.parametrize("name", ["lock", "tasks/000/000/1-a.journal.jsonl"])
async def test_what_was_there_is_given_to_nobody(directory: Path, path: Path, name: str) -> None:
    """It may be a link to a file of root's, made by whom the store belongs to."""
    outside = directory.parent / f"{directory.name}-outside"
    outside.touch(mode=0o600)
    backend = FileBackend(path)
    try:
        await backend.open()
        await backend.insert([Record(Head(id="a"), b"{}")])
        await backend.aclose()
        give(path)
        (path / name).unlink(missing_ok=True)
        (path / name).hardlink_to(outside)
        again = FileBackend(path)
        await again.open()
        await again.claim(ClaimRequest(("default",), 1, "w", 10**7))
        await again.append("a", 1, [b"{}"])
        await again.aclose()

        assert 0 == outside.stat().st_uid
    finally:
        outside.unlink()


def test_a_lock_file_that_root_makes_can_be_another_ones(path: Path) -> None:
    lock = FileLock(str(path), lambda: None, owner=(NOBODY, OTHERS))
    made = path.stat()
    lock.close()

    assert (NOBODY, OTHERS, 0o600) == (made.st_uid, made.st_gid, made.st_mode & 0o777)


async def test_where_root_may_give_nothing_away_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without that capability."""

    def refuse(*_: object) -> None:
        raise PermissionError

    make_of_nobody(path)
    monkeypatch.setattr(os, "fchown", refuse)
    await work(path)
    async with FileTaskQueue(path) as queue:
        assert ["result", None, None] == [task.result async for task in queue.tasks()]
