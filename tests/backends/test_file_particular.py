"""What only the file backend has: its groups, forks, and processes beside each other."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
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
    export_tasks,
    import_tasks,
    lifecycle,
    points,
)
from jotty.core.queue.record import change
from jotty.errors import QueueClosed, QueueFull, StorageError
from jotty_backends.file import FileBackend, FileTaskQueue
from jotty_backends.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from jotty.core.queue.log.state import LoggedState

pytestmark = pytest.mark.anyio

S = TaskStatus
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


def locked(path: Path) -> FileLock:
    """Return the lock of a store, held as another process would hold it."""
    lock = FileLock(str(path / "lock"), lambda: None)

    assert lock.try_acquire()
    return lock


def files(path: Path, pattern: str) -> list[str]:
    return [file.name for file in path.rglob(pattern)]


async def statuses(backend: FileBackend) -> dict[str, S]:
    return {record.head.id: record.head.status for record in await backend.find(Query())}


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    """How often each point was reached."""
    told: Counter[str] = Counter()
    points.listen(lambda point: told.update([point]))
    yield told
    points.listen(None)


# Groups


async def test_who_waits_together_is_written_together(
    backend: FileBackend, path: Path, counted: Counter[str]
) -> None:
    others = locked(path)
    async with anyio.create_task_group() as group:
        for at in range(50):
            group.start_soon(backend.insert, [new(f"task-{at}")])
        await anyio.sleep(0.02)
        others.close()

    assert 1 == counted["file.append.after"]
    assert {("default", S.PENDING): 50} == await backend.count()


async def test_a_group_is_synced_once(path: Path, counted: Counter[str]) -> None:
    backend = FileBackend(path, durability="power", busy_timeout=5)
    await backend.open()
    await backend.insert([new("first")])
    others, before = locked(path), counted["file.sync.after"]
    async with anyio.create_task_group() as group:
        for at in range(10):
            group.start_soon(backend.insert, [new(f"task-{at}")])
        await anyio.sleep(0.02)
        others.close()
    await backend.aclose()

    assert 10 + 1 + 1 == counted["file.sync.after"] - before, "each payload, their directory, and the log"


async def test_a_call_that_changes_nothing_writes_nothing(
    backend: FileBackend, counted: Counter[str]
) -> None:
    await backend.claim(ONE)
    await backend.extend([("unknown", 1)], 5)
    await backend.delete([("unknown", 1)])
    await backend.swap([Change(1, Record(Head(id="unknown", version=2)))])

    assert 0 == counted["file.append.after"]


async def test_what_is_refused_or_fails_in_a_group_leaves_no_file(backend: FileBackend, path: Path) -> None:
    others = locked(path)

    async def refused(*records: Record, limit: int | None = None) -> None:
        with pytest.raises((QueueFull, ValueError)):
            await backend.insert(records, limit=limit)

    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        await anyio.sleep(0.01)
        group.start_soon(lambda: refused(new("b"), new("c"), limit=2))
        group.start_soon(refused, new("d"), new("a"))  # an id that is there already
        group.start_soon(refused, new("e"), new("\ud800"))  # one that no file can have
        await anyio.sleep(0.01)
        group.start_soon(backend.insert, [new("f")])
        await anyio.sleep(0.01)
        others.close()

    assert ["a", "f"] == sorted(await statuses(backend))
    assert 2 == len(files(path, "*.payload.json"))


class Failing:
    """Fails at a point, as the disk would."""

    def __init__(self, point: str, times: int = 1) -> None:
        self.point = point
        self.times = times

    def __call__(self, point: str) -> None:
        if point == self.point and self.times:
            self.times -= 1
            raise OSError(errno.EIO, "the disk is broken")


@pytest.mark.parametrize(
    "point", ["file.create.before", "file.create.after", "file.journal.after", "file.append.before"]
)
async def test_what_could_not_be_written_has_not_happened(
    backend: FileBackend, path: Path, point: str
) -> None:
    await backend.insert([new("a"), new("b", status=S.BLOCKED, depends_on=("a",))])
    (held,) = (await backend.claim(ONE)).records
    done = change(held.head, lifecycle.completed(held.head, 5), outcome=b"{}", entries=[b"1"])
    points.listen(Failing(point))
    try:
        with pytest.raises(StorageError):
            await backend.swap([done])
    finally:
        points.listen(None)

    assert {"a": S.IN_PROGRESS, "b": S.BLOCKED} == await statuses(backend)
    assert [] == await backend.read("a")
    (swapped,) = await backend.swap([done])
    other = FileBackend(path)
    await other.open()

    assert ("b",) == swapped.fired
    assert await backend.find(Query(payload=True)) == await other.find(Query(payload=True))
    assert await backend.read("a") == await other.read("a")
    await other.aclose()


async def test_after_a_sync_that_failed_all_is_written_anew(path: Path, counted: Counter[str]) -> None:
    """A second try would be told that all has come to the disk, and nobody knows whether that is so."""
    backend = FileBackend(path, durability="power")
    await backend.open()
    await backend.insert([new("a")])
    (held,) = (await backend.claim(ONE)).records

    class FailingLog(Failing):
        """Fails at the last sync of a group, which is the log's."""

        has_appended = False

        def __call__(self, point: str) -> None:
            self.has_appended = self.has_appended or point == "file.append.after"
            if self.has_appended:
                super().__call__(point)

    points.listen(FailingLog("file.sync.before"))
    with pytest.raises(StorageError, match="broken"):
        await backend.turn([change(held.head, lifecycle.completed(held.head, 5), outcome=b"{}")], ONE)
    points.listen(lambda point: counted.update([point]))
    await backend.insert([new("b")])
    told = dict(counted)
    await backend.aclose()
    again = FileBackend(path)
    await again.open()

    assert 2 <= told["file.rename.after"]
    assert ["snapshot-2.jsonl"] == files(path, "snapshot-*")
    assert {"a": S.COMPLETED, "b": S.PENDING} == await statuses(again)
    assert [b"{}", None] == [one.outcome for one in await again.get(["a", "b"]) if one]
    assert 1 == len(await again.read("a"))
    await again.aclose()


# Waking


async def test_what_another_process_writes_wakes_who_waits(backend: FileBackend, path: Path) -> None:
    mark = await backend.wait("lane:default", -1, 0)
    script = """
import anyio, sys
from jotty.core.queue import FileTaskQueue
async def main():
    async with FileTaskQueue(sys.argv[1]) as queue:
        await queue.enqueue("goal")
anyio.run(main)
"""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(backend.wait, "lane:default", mark, 30)
            await anyio.run_process([sys.executable, "-c", script, str(path)])

    assert 1 == sum((await backend.count()).values())


# Closing


def threads_of(backend: FileBackend) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith(backend.url)]


async def test_clones_share_a_thread_which_ends_with_the_last_of_them(path: Path) -> None:
    one = FileBackend(path)
    await one.open()
    two = one.clone()
    await two.open()
    await one.insert([new("a")])

    assert 1 == len(threads_of(one))
    await one.aclose()
    with pytest.raises(QueueClosed):
        await one.count()
    await two.insert([new("b")])
    three = two.clone()

    assert ["a", "b"] == sorted(await statuses(two))
    await two.aclose()

    assert [] == threads_of(two)
    await three.open()

    assert ["a", "b"] == sorted(await statuses(three))
    await three.aclose()


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_is_told_may_open_another_and_harms_nobody(path: Path, anyio_backend: str) -> None:
    script = """
import anyio, os, sys, warnings
from jotty.core.queue import FileTaskQueue, TaskQueue
from jotty.errors import StorageError
warnings.simplefilter("ignore", DeprecationWarning)
queue = FileTaskQueue(sys.argv[1])
async def enqueue():
    await queue.enqueue("goal")
async def child():
    for call in (queue.enqueue("goal"), queue.stats(), queue.claim(worker="w", wait=1)):
        try:
            await call
        except StorageError as error:
            print("fork" in error.problem)
    async with FileTaskQueue(sys.argv[1]) as another, TaskQueue(queue.backend.clone()) as twin:
        await another.enqueue("goal")
        print((await twin.stats()).total["pending"])
    await queue.aclose()
async def go_on():
    await queue.enqueue("goal")
    print((await queue.stats()).total["pending"])
    await queue.aclose()
def forked(main):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        anyio.run(main, backend=sys.argv[2])
        sys.exit(0)
    os.waitpid(child, 0)
anyio.run(enqueue, backend=sys.argv[2])
forked(child)
anyio.run(go_on, backend=sys.argv[2])
"""

    assert ["True", "True", "True", "2", "3"] == run_script(script, str(path), anyio_backend).split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_keeps_nobody_from_writing_a_snapshot(path: Path) -> None:
    """Not even if its parent has died in the middle of one."""
    script = """
import os, sys, warnings
from jotty_backends.file.directory import Directory
from jotty_backends.file.snapshot import SnapshotDraft
warnings.simplefilter("ignore", DeprecationWarning)
root = Directory(sys.argv[1])
end, lasting = os.pipe()
ready, told = os.pipe()
if not os.fork():
    draft = SnapshotDraft(root)
    if not os.fork():
        os.close(lasting)
        os.write(told, b"x")
        os.read(end, 1)
    os._exit(0)
os.wait()
os.read(ready, 1)
SnapshotDraft(root).close()
print("written")
"""
    path.mkdir()

    assert "written\n" == run_script(script, str(path))


# Several processes


WORK = """
import anyio, sys
from jotty.core.queue import FileTaskQueue, NewTask
from jotty_backends.file import log
log._SMALL = 20_000
path, worker, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
async def main():
    async with FileTaskQueue(path) as queue:
        for at in range(number):
            await queue.enqueue_many([NewTask({"by": worker, "at": at}), NewTask("x", key=f"{worker} {at}")])
            for task in await queue.claim(worker=worker, limit=3):
                await queue.record(task, [{"kind": "who", "worker": worker}])
                await queue.complete(task, {"by": worker})
        while tasks := await queue.claim(worker=worker, limit=3):
            for task in tasks:
                await queue.complete(task, {"by": worker})
anyio.run(main)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments])


async def test_many_processes_write_and_take_snapshots_at_once(path: Path) -> None:
    number = 60
    reader = FileTaskQueue(path)
    await reader.stats()
    started = [start(WORK, str(path), f"w{at}", str(number)) for at in range(4)]
    seen = 0
    while any(process.poll() is None for process in started):
        total = sum((await reader.stats()).total.values())

        assert seen <= total
        seen = total
        await anyio.sleep(0.01)

    assert [0] * 4 == [process.wait() for process in started]
    tasks = [task async for task in reader.tasks()]

    assert 4 * number * 2 == len(tasks)
    assert {(S.COMPLETED, 1, 1)} == {(task.status, task.lease, task.attempt) for task in tasks}
    assert all(task.result["by"] == task.worker for task in tasks)
    assert list(range(1, len(tasks) + 1)) == [task.seq for task in tasks]
    (snapshot,) = files(path, "snapshot-*.jsonl")

    assert int(snapshot.partition("-")[2].partition(".")[0]) > 3
    await reader.aclose()


# Reading beside those who write


async def test_what_is_being_written_is_not_there_yet_and_holds_up_no_reader(
    backend: FileBackend, path: Path
) -> None:
    """As where the writer was stopped in the middle of it, with the lock."""
    await backend.insert([new("a")])
    before = await anyio.Path(path / "tasks.log").read_bytes()
    await backend.insert([new("b"), new("c")])
    whole = await anyio.Path(path / "tasks.log").read_bytes()
    os.truncate(path / "tasks.log", len(before))
    reader = FileBackend(path, busy_timeout=0.1)
    await reader.open()
    others = locked(path)
    seen = set()
    with (path / "tasks.log").open("ab", buffering=0) as writer:
        for at in range(len(before), len(whole), 10):
            writer.write(whole[at : at + 10])
            seen.add(tuple(await statuses(reader)))
    others.close()
    await reader.aclose()

    assert {("a",), ("a", "b", "c")} == seen


async def test_a_task_that_was_deleted_just_now_is_not_taken_for_damaged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = FileBackend(path)
    await reader.open()
    await reader.insert([new("a", status=S.FAILED), new("b")])
    has_deleted = False

    async def delete() -> None:
        other = FileBackend(path)
        await other.open()

        assert [True] == await other.delete([("a", 1)])
        await other.aclose()

    def read(state: LoggedState) -> list[Record | None]:
        nonlocal has_deleted
        if not has_deleted:
            has_deleted = True
            thread = threading.Thread(target=anyio.run, args=(delete,))
            thread.start()
            thread.join()
        return state.get(["a", "b"])

    gone, there = await reader._open_writer().take(read, writes=False)
    await reader.aclose()

    assert gone is None
    assert there is not None
    assert b"{}" == there.payload
    assert [] == caplog.records


async def test_a_journal_is_read_right_though_its_task_was_deleted_and_has_come_back(tmp_path: Path) -> None:
    async with FileTaskQueue(tmp_path / "tasks") as queue:
        task = await queue.enqueue("goal")
        (held,) = await queue.claim(worker="w")
        await queue.record(held, [{"kind": "step"} for _ in range(5)])
        await queue.complete(held)
        before = [entry async for entry in queue.events(task.id, follow=False)]
        (document,) = [one async for one in export_tasks(queue)]
        await queue.delete(task.id)
        document["journal"][0]["longer"] = "than it was"
        await import_tasks(queue, [document])
        after = [entry.number async for entry in queue.events(task.id, 3, follow=False)]
        last = [entry.number async for entry in queue.events(task.id, len(before) - 1, follow=False)]

    assert [entry.number for entry in before[3:]] == after
    assert [len(before)] == last
