"""The directory of the file backend: made, refused, replaced, full, and whose it is."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import (
    MICROSECONDS,
    ClaimRequest,
    Head,
    Query,
    Record,
    SteadyClock,
    TaskStatus,
    lifecycle,
    open_queue,
)
from jotty.core.queue.record import change
from jotty.core.queue.steady import Machine
from jotty.errors import SchemaError, StorageError, StoreCorrupt
from jotty_backends.file import FileBackend, FileTaskQueue, store
from jotty_backends.file.contents import name_of, shard_of
from jotty_backends.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

S = TaskStatus
HOUR = 3600 * MICROSECONDS
ONE = ClaimRequest(("default",), 1, "w", 30 * MICROSECONDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[FileBackend]:
    made = FileBackend(path, busy_timeout=0.3)
    await made.open()
    yield made
    await made.aclose()


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


async def ids(backend: FileBackend) -> list[str]:
    return [record.head.id for record in await backend.find(Query())]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def tree(path: Path) -> list[Path]:
    return [path, *path.rglob("*")]


async def refused(path: Path, *, create: bool = True) -> StorageError:
    """Return the error with which opening is refused, having checked that it wrote nothing."""
    before = contents(path.parent)
    backend = FileBackend(path, busy_timeout=0.1, create=create)
    with pytest.raises(StorageError) as caught:
        await backend.open()
    await backend.aclose()

    assert before == contents(path.parent)
    return caught.value


# Naming it


def test_a_url_names_the_directory_and_its_options(path: Path) -> None:
    queue = open_queue(f"file:///{path}?durability=power&busy_timeout=0.5&max_size=3&create=0")

    assert f"file:///{path}" == queue.url
    assert "power" == queue.durability
    assert isinstance(queue.backend, FileBackend)
    assert str(path) == queue.backend._path


def test_three_slashes_make_a_relative_path_and_four_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = FileBackend.from_url("///my%20tasks"), FileBackend.from_url("////my%20tasks")
    monkeypatch.chdir("/")

    assert str(tmp_path / "my tasks") == relative._path == relative.clone()._path
    assert ("file:///my%20tasks", "file:////my%20tasks") == (relative.url, absolute.url)
    assert "/my tasks" == absolute._path


@pytest.mark.parametrize("location", ["", "///", "tasks", "//host/tasks"])
def test_a_url_without_a_directory_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="file:///relative or file:////absolute"):
        FileBackend.from_url(location)


@pytest.mark.parametrize(
    ("query", "known"),
    [
        ("durability=none", "'process' or 'power'"),
        ("busy_timeout=-1", ">= 0"),
        ("busy_timeout=x", "number"),
        ("create=yes", "create must be 1"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_known(query: str, known: str) -> None:
    with pytest.raises(ValueError, match=known):
        open_queue(f"file:///tasks?{query}")


@pytest.mark.parametrize("named", ["", "a\0b", "file:///tasks"])
def test_what_names_no_directory_is_refused(named: str) -> None:
    with pytest.raises(ValueError, match="directory must"):
        FileTaskQueue(named)


# Whose it is


async def test_only_the_owner_may_read_what_is_in_it(path: Path) -> None:
    old = os.umask(0)
    try:
        async with FileTaskQueue(path, durability="power") as queue:
            task = await queue.enqueue("goal")
            (claimed,) = await queue.claim(worker="w")
            await queue.complete(claimed, task.id)
    finally:
        os.umask(old)
    modes = {file: stat.S_IMODE(file.stat().st_mode) for file in tree(path)}

    assert {0o700} == {mode for file, mode in modes.items() if file.is_dir()}
    assert {0o600} == {mode for file, mode in modes.items() if file.is_file()}
    assert 6 == sum(file.is_file() for file in modes)


async def test_a_symbolic_link_in_its_place_is_refused(path: Path) -> None:
    await anyio.Path(path).symlink_to(path.parent / "elsewhere")
    dangling = await refused(path)
    (path.parent / "elsewhere").mkdir()
    leading = await refused(path)

    assert "symbolic link" in dangling.problem
    assert "symbolic link" in leading.problem


@pytest.mark.parametrize("name", ["tasks.log", "format.json", "lock"])
async def test_no_link_in_it_is_followed(path: Path, name: str) -> None:
    async with FileTaskQueue(path) as queue:
        await queue.enqueue("goal")
    outside = path.parent / "outside"
    (path / name).rename(outside)
    (path / name).symlink_to(outside)
    before = contents(path.parent)
    backend = FileBackend(path)

    async def use() -> None:
        await backend.open()
        await backend.insert([new("a")])

    with pytest.raises(StorageError):
        await use()
    await backend.aclose()

    assert before == contents(path.parent)


async def test_no_linked_directory_in_it_is_followed(path: Path) -> None:
    backend = FileBackend(path)
    await backend.open()
    outside = path.parent / "outside"
    outside.mkdir()
    (path / "tasks").symlink_to(outside)
    with pytest.raises(StorageError):
        await backend.insert([new("a")])
    (path / "tasks").unlink()
    await backend.insert([new("b")])

    assert [] == list(outside.iterdir())
    assert ["b"] == await ids(backend)
    await backend.aclose()


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_an_id_becomes_a_name_that_no_other_has(one: str, other: str) -> None:
    try:
        names = [name_of(Head(id=each, seq=5)) for each in (one, other)]
    except UnicodeEncodeError:
        return

    assert (one == other) == (names[0].casefold() == names[1].casefold())
    for name in names:
        assert name.isascii()
        assert name.isprintable()
        assert set("/.\\").isdisjoint(name)
        assert len(name) < 200


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_a_directory_holds_a_thousand_tasks(one: int, other: int) -> None:
    assert (one // 1000 == other // 1000) == (shard_of(one) == shard_of(other))


@pytest.mark.parametrize("task_id", ["../../../escape", "a/b", "..", ".", "\0", "A" * 200, "ä" * 200, "%2e"])
async def test_no_id_leads_out_of_it(backend: FileBackend, path: Path, task_id: str) -> None:
    await backend.insert([new(task_id), new(task_id.lower() + "!")])
    (record,) = (await backend.claim(ONE)).records
    await backend.append(task_id, 1, [b"entry"])
    moved = lifecycle.completed(record.head, backend.now())
    await backend.swap([change(record.head, moved, outcome=b"{}")])
    files = {file.parent for file in path.parent.rglob("*") if file.is_file()}
    (found,) = await backend.get([task_id])

    assert {path, path / "tasks" / "000" / "000"} == files
    assert found is not None
    assert (b"{}", b"{}") == (found.payload, found.outcome)
    assert [b"entry"] == [entry for _, entry in await backend.read(task_id)][:1]
    await backend.delete([(task_id, moved.version)])

    assert 1 == len(list((path / "tasks" / "000" / "000").iterdir()))


# Opening


async def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    error = await refused(tmp_path / "missing" / "tasks")

    assert "missing" in error.problem
    assert {} == contents(tmp_path)


async def test_a_file_is_no_directory(path: Path) -> None:
    await anyio.Path(path).write_text("a note")

    assert "no directory" in (await refused(path)).problem


async def test_a_directory_of_other_files_is_left_alone(path: Path) -> None:
    await anyio.Path(path).mkdir()
    await anyio.Path(path / "notes.txt").write_text("mine")

    assert "notes.txt" in (await refused(path)).problem


async def test_the_way_to_it_may_lead_over_a_link(path: Path) -> None:
    """As that to /tmp does on some systems."""
    await anyio.Path(path).mkdir()
    link = path.parent / "link"
    await anyio.Path(link).symlink_to(path)
    async with FileTaskQueue(link / "tasks") as queue:
        await queue.enqueue("goal")

    assert "tasks.log" in os.listdir(path / "tasks")  # noqa: PTH208


async def test_an_empty_directory_becomes_a_store(path: Path) -> None:
    await anyio.Path(path).mkdir()
    async with FileTaskQueue(path) as queue:
        await queue.enqueue("goal")

        assert 1 == (await queue.stats()).total[S.PENDING]


async def test_a_newer_format_is_refused(path: Path, backend: FileBackend) -> None:
    await backend.aclose()
    told = json.loads((path / "format.json").read_text())
    (path / "format.json").write_text(json.dumps(told | {"version": 99}))
    error = await refused(path)

    assert isinstance(error, SchemaError)
    assert (99, 1) == (error.found, error.expected)
    (path / "format.json").write_text(json.dumps({"store": "of another kind", "version": 1}))
    other = await refused(path)

    assert isinstance(other, SchemaError)
    assert (0, 1) == (other.found, other.expected)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": "x", "store": "y"}', "\0"])
async def test_a_format_that_says_nothing_is_refused(path: Path, backend: FileBackend, text: str) -> None:
    await backend.aclose()
    (path / "format.json").write_text(text)

    assert isinstance(await refused(path), StoreCorrupt)


@pytest.mark.parametrize("name", ["tasks.log", "format.json"])
async def test_a_store_that_lost_a_file_is_never_made_anew(
    path: Path, backend: FileBackend, name: str
) -> None:
    await backend.aclose()
    (path / name).unlink()

    assert isinstance(await refused(path), StoreCorrupt)


async def test_a_store_that_is_only_to_be_read_is_not_made(path: Path) -> None:
    queue = open_queue(f"file:///{path}?create=0")
    for _ in range(2):
        with pytest.raises(StorageError, match="there is no store"):
            await queue.stats()
        await anyio.Path(path).mkdir(exist_ok=True)

    assert {} == contents(path)
    async with FileTaskQueue(path) as made:
        await made.enqueue("goal")

        assert ["goal"] == [task.goal async for task in queue.tasks()]
    await queue.aclose()


async def test_a_store_that_is_being_made_is_waited_for(path: Path) -> None:
    await anyio.Path(path).mkdir()
    maker = FileLock(str(path / "lock"), lambda: None)

    assert maker.try_acquire()
    assert "locked for 0.1 s" in (await refused(path)).problem
    backend = FileBackend(path, busy_timeout=5)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.open)
        await anyio.sleep(0.02)

        assert not (path / "tasks.log").exists()
        maker.close()
    await backend.insert([new("a")])
    await backend.aclose()


async def test_opening_fails_and_succeeds_later(path: Path) -> None:
    await anyio.Path(path).write_text("in the way")
    backend = FileBackend(path)
    with pytest.raises(StorageError):
        await backend.open()
    await anyio.Path(path).unlink()
    await backend.open()

    assert {} == await backend.count()
    await backend.aclose()


async def test_a_seq_is_never_given_out_twice(backend: FileBackend, path: Path) -> None:
    await backend.insert([new("a"), new("b", status=S.CANCELLED)])
    await backend.delete([("b", 1)])
    await backend.aclose()
    again = FileBackend(path)
    await again.open()
    (stored,) = await again.insert([new("c")])
    await again.aclose()

    assert 3 == stored.head.seq


async def test_the_stores_time_is_anchored_in_it(path: Path) -> None:
    """As every process of this boot sees it, whatever the wall clock of one shows."""

    class Ahead(Machine):
        def wall(self) -> int:
            return super().wall() + HOUR

    one, other = FileBackend(path, clock=SteadyClock(Ahead())), FileBackend(path)
    await one.open()
    apart = one.now() - other.now()
    await other.open()

    assert apart > HOUR // 2
    assert abs(one.now() - other.now()) < HOUR // 2
    await one.aclose()
    await other.aclose()


def test_a_network_file_system_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(store, "_MOUNTS", mounts)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            store.open_store(
                str(tmp_path / "tasks"), "file:///x", create=True, is_synced=False, patience=1
            ).close()

    assert 1 == len(caplog.records)
    assert "nfs4" in caplog.text


# Deleted, replaced, read-only, full


async def test_a_handle_whose_directory_was_replaced_goes_over_to_the_new_one(path: Path) -> None:
    queue = FileTaskQueue(path)
    await queue.enqueue("lost with its directory")
    shutil.rmtree(path)
    with pytest.raises(StorageError, match="deleted or replaced"):
        await queue.enqueue("refused")
    with pytest.raises(StorageError, match="there is no store"):
        await queue.stats()
    async with FileTaskQueue(path) as other:
        await other.enqueue("in the new one")

    assert ["in the new one"] == [task.goal async for task in queue.tasks()]
    await queue.aclose()


async def test_a_waiting_handle_notices_that_its_directory_was_deleted(path: Path) -> None:
    queue = FileTaskQueue(path)
    await queue.stats()

    async def delete() -> None:
        await anyio.sleep(0.1)
        shutil.rmtree(path)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(delete)
            with pytest.raises(StorageError):
                await queue.claim(worker="w", wait=30)
    await queue.aclose()


async def test_a_lock_file_that_was_deleted_locks_nobody_out(backend: FileBackend, path: Path) -> None:
    await backend.insert([new("a")])
    (path / "lock").unlink()
    with pytest.raises(StorageError, match="lock file was deleted"):
        await backend.insert([new("b")])
    await backend.insert([new("c")])

    assert ["a", "c"] == await ids(backend)


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


FULL = """
import anyio, os, resource, sys
from jotty.core.queue import FileTaskQueue
from jotty.errors import StorageError
path, loop, durability = sys.argv[1:]
async def main():
    async with FileTaskQueue(path, durability=durability) as queue:
        first = await queue.enqueue("first")
        (held,) = await queue.claim(worker="w")
        room = os.stat(path + "/tasks.log").st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        refusals = 0
        async def enqueue(goal):
            nonlocal refusals
            try:
                await queue.enqueue(goal)
            except StorageError as error:
                refusals += isinstance(error.__cause__, OSError)
        async with anyio.create_task_group() as group:
            for goal in ("a", "b", "c" * 100_000):
                group.start_soon(enqueue, goal)
        print(refusals, [task.goal async for task in queue.tasks()])
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        async with anyio.create_task_group() as group:
            for goal in ("d", "e" * 100_000, "f"):
                group.start_soon(enqueue, goal)
        print(refusals, sorted([task.goal async for task in queue.tasks()]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await queue.enqueue("last")
        await queue.complete(held)
    async with FileTaskQueue(path) as queue:
        print(sorted([(task.goal, task.status.value) async for task in queue.tasks()]))
anyio.run(main, backend=loop)
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk_loses_nothing_spoils_no_neighbour_and_heals(
    path: Path, anyio_backend: str, durability: str
) -> None:
    told = run_script(FULL, str(path), anyio_backend, durability).splitlines()

    assert "3 ['first']" == told[0]
    assert "4 ['d', 'f', 'first']" == told[1]
    waiting = [("d", "pending"), ("f", "pending")]

    assert str([*waiting, ("first", "completed"), ("last", "pending")]) == told[2]
    assert 4 == len(list(path.rglob("*.payload.json")))


READ_ONLY = """
import anyio, os, sys
from jotty.core.queue import FileTaskQueue
from jotty.errors import StorageError
path, loop = sys.argv[1:]
async def main():
    async with FileTaskQueue(path + "-other") as queue:  # which imports all there is to import
        await queue.enqueue("goal")
    os.setgid(65534)
    os.setuid(65534)
    async with FileTaskQueue(path) as queue:
        print([task.goal async for task in queue.tasks()])
        try:
            await queue.enqueue("refused")
        except StorageError as error:
            print(type(error.__cause__).__name__)
        print([task.goal async for task in queue.tasks()])
anyio.run(main, backend=loop)
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that every user may pass through."""
    with tempfile.TemporaryDirectory() as made:  # since tmp_path is its owner's alone
        Path(made).chmod(0o755)
        yield Path(made) / "tasks"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
async def test_who_may_only_read_can_read(readable: Path, anyio_backend: str) -> None:
    async with FileTaskQueue(readable) as queue:
        await queue.enqueue("goal")
    for file in tree(readable):
        file.chmod(0o755 if file.is_dir() else 0o644)
    began = time.monotonic()
    told = await anyio.to_thread.run_sync(run_script, READ_ONLY, str(readable), anyio_backend)

    assert ["['goal']", "PermissionError", "['goal']"] == told.splitlines()
    assert time.monotonic() - began < 5
