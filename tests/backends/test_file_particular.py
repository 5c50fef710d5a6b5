"""What only the file backend has: its thread and groups, its lock, and how calls and handles of it end."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty.core.queue import (
    MICROSECONDS,
    Change,
    ClaimRequest,
    Head,
    Query,
    Record,
    SystemClock,
    TaskStatus,
    lifecycle,
    points,
)
from jotty.core.queue.record import change
from jotty.errors import QueueClosed, QueueFull, StorageError
from jotty.testing import VirtualClock
from jotty_backends.file import FileBackend, FileTaskQueue
from jotty_backends.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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


def comes(lock: FileLock) -> bool:
    """Whether a lock can be taken within some seconds."""
    deadline = time.monotonic() + 5
    while not lock.try_acquire() and time.monotonic() < deadline:
        time.sleep(0.005)
    return lock.try_acquire()


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


async def test_one_refused_or_failing_call_spoils_no_other_of_its_group(
    backend: FileBackend, path: Path
) -> None:
    others = locked(path)
    errors: list[type[Exception]] = []

    async def insert(*records: Record, limit: int | None = None) -> None:
        try:
            await backend.insert(records, limit=limit)
        except (QueueFull, ValueError) as error:
            errors.append(type(error))

    async with anyio.create_task_group() as group:
        group.start_soon(insert, new("a"))
        group.start_soon(insert, new("b"), new("c"))
        await anyio.sleep(0.01)
        group.start_soon(lambda: insert(new("d"), new("e"), limit=4))
        group.start_soon(insert, new("f"), new("a"))  # an id that is there already
        group.start_soon(insert, new("g"), new("\ud800"))  # one that no file can have
        await anyio.sleep(0.01)
        group.start_soon(lambda: insert(new("h"), limit=4))
        await anyio.sleep(0.01)
        others.close()

    assert Counter([QueueFull, UnicodeEncodeError, ValueError]) == Counter(errors)
    assert ["a", "b", "c", "h"] == sorted(await statuses(backend))
    assert [1, 2, 3, 4] == sorted(record.head.seq for record in await backend.find(Query()))
    assert 4 == len(files(path, "*.payload.json"))


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


# The lock


async def test_a_lock_that_others_keep_ends_writes_in_time_but_no_reads(
    backend: FileBackend, path: Path
) -> None:
    others = locked(path)
    began = time.monotonic()
    async with anyio.create_task_group() as group:

        async def insert() -> None:
            with pytest.raises(StorageError, match="locked"):
                await backend.insert([new("a")])

        group.start_soon(insert)
        await anyio.sleep(0.01)

        assert {} == await backend.count()
        assert time.monotonic() - began < 0.25
    assert 0.3 <= time.monotonic() - began < 2
    others.close()
    await backend.insert([new("b")])

    assert {"b": S.PENDING} == await statuses(backend)


async def test_a_write_gets_its_turn_when_others_are_done(backend: FileBackend, path: Path) -> None:
    others = locked(path)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        await anyio.sleep(0.12)
        others.release()
    others.close()

    assert {"a": S.PENDING} == await statuses(backend)


async def test_a_lock_that_comes_when_nobody_needs_it_is_passed_on(backend: FileBackend, path: Path) -> None:
    others = locked(path)
    with anyio.move_on_after(0.02):
        await backend.insert([new("a")])
    await anyio.sleep(0.1)
    others.release()

    assert await anyio.to_thread.run_sync(comes, others)
    others.close()


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


async def test_handles_in_one_process_wake_each_other_at_once(path: Path) -> None:
    clock = VirtualClock()
    one, two = FileBackend(path, clock=clock), FileBackend(path, clock=clock)
    await one.open()
    await two.open()
    async with clock.autojump():
        mark = (await one.claim(ONE)).mark
        async with anyio.create_task_group() as group:
            group.start_soon(one.wait, "lane:default", mark, 60)
            await two.insert([new("a")])

        assert VirtualClock().now() == clock.now()
    await one.aclose()
    await two.aclose()


async def test_nobody_is_looked_for_while_nobody_waits(backend: FileBackend) -> None:
    writer = backend._open_writer()
    with anyio.move_on_after(0.02):
        await backend.wait("lane:default", 10**9, 60)

    assert 0 == writer._watchers


# Cancellation


class GatedClock(SystemClock):
    """A clock that can keep the thread waiting in the middle of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_tell = threading.Event()
        self.may_tell.set()

    def now(self) -> int:
        self.is_asked.set()

        assert self.may_tell.wait(10)
        return super().now()

    async def wait_for_step(self) -> None:
        """Return when a step has begun and waits for the time."""
        await anyio.to_thread.run_sync(self.is_asked.wait, 10)


async def test_a_call_that_has_not_begun_is_withdrawn(backend: FileBackend, path: Path) -> None:
    others = locked(path)
    with anyio.move_on_after(0.02) as scope:
        await backend.insert([new("a")])
    others.close()
    await backend.insert([new("b")])

    assert scope.cancelled_caught
    assert {"b": S.PENDING} == await statuses(backend)


Gated = tuple[FileBackend, GatedClock]


@pytest.fixture
async def gated(path: Path) -> AsyncIterator[Gated]:
    clock = GatedClock()
    made = FileBackend(path, clock=clock)
    await made.open()
    yield made, clock
    await made.aclose()


async def cancelled_midway(gated: Gated, call: Callable[[], Awaitable[Any]]) -> bool:
    """Cancel a call when its step has begun; tell whether the cancellation came through."""
    _, clock = gated
    clock.is_asked.clear()
    clock.may_tell.clear()
    is_through = False

    async def body() -> None:
        nonlocal is_through
        try:
            await call()
        except anyio.get_cancelled_exc_class():
            is_through = True
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(body)
        await clock.wait_for_step()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            clock.may_tell.set()
    return is_through


async def test_a_call_that_has_begun_is_seen_through(gated: Gated) -> None:
    backend, _ = gated
    is_through = await cancelled_midway(gated, lambda: backend.insert([new("a")]))

    assert is_through
    assert {"a": S.PENDING} == await statuses(backend)


async def test_a_cancelled_claim_gives_back_what_it_took(gated: Gated) -> None:
    backend, _ = gated
    await backend.insert([new("a"), new("b")])
    is_through = await cancelled_midway(gated, lambda: backend.claim(attrs.evolve(ONE, limit=2)))
    heads = [record.head for record in await backend.find(Query())]

    assert is_through
    assert [(S.PENDING, 1, 0)] * 2 == [(head.status, head.lease, head.attempt) for head in heads]


async def test_a_cancelled_turn_keeps_what_it_settled_and_gives_back_what_it_took(gated: Gated) -> None:
    backend, _ = gated
    await backend.insert([new("a"), new("b")])
    (held,) = (await backend.claim(ONE)).records
    done = change(held.head, lifecycle.completed(held.head, 5), outcome=b"{}")
    is_through = await cancelled_midway(gated, lambda: backend.turn([done], ONE))

    assert is_through
    assert {"a": S.COMPLETED, "b": S.PENDING} == await statuses(backend)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_is_seen_through_too(gated: Gated) -> None:
    backend, clock = gated
    await backend.insert([new("a")])
    clock.is_asked.clear()
    clock.may_tell.clear()
    claim = asyncio.ensure_future(backend.claim(ONE))
    await clock.wait_for_step()
    for _ in range(3):
        claim.cancel()
        await asyncio.sleep(0.005)

    assert not claim.done()
    clock.may_tell.set()
    with pytest.raises(asyncio.CancelledError):
        await claim

    assert {"a": S.PENDING} == await statuses(backend)


# Closing


async def test_who_waits_at_closing_is_told(backend: FileBackend) -> None:
    async def wait() -> None:
        with pytest.raises(QueueClosed):
            await backend.wait("lane:default", 10**9, 60)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.01)
        await backend.aclose()


def threads_of(backend: FileBackend) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith(backend.url)]


async def test_closing_finishes_what_waits_and_leaves_no_thread(path: Path) -> None:
    backend = FileBackend(path)
    await backend.open()
    others = locked(path)
    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        await anyio.sleep(0.02)
        group.start_soon(backend.aclose)
        group.start_soon(backend.aclose)
        await anyio.sleep(0.02)
        others.close()
    await backend.aclose()

    assert [] == threads_of(backend)
    with pytest.raises(QueueClosed):
        await backend.open()
    again = FileBackend(path)
    await again.open()

    assert {"a": S.PENDING} == await statuses(again)
    await again.aclose()


async def test_closing_never_waits_longer_than_others_may_block(backend: FileBackend, path: Path) -> None:
    others = locked(path)

    async def insert() -> None:
        with pytest.raises(StorageError):
            await backend.insert([new("a")])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(insert)
            await anyio.sleep(0.01)
            await backend.aclose()
    others.close()


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


async def test_a_handle_that_is_dropped_ends_its_thread(path: Path) -> None:
    backend = FileBackend(path)
    await backend.open()
    thread = backend._open_writer()._thread
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0  # noqa: PTH208, PTH110, ASYNC240
    del backend
    gc.collect()
    thread.join(5)

    assert not thread.is_alive()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) < descriptors  # noqa: PTH208


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_a_handle_that_was_not_closed_keeps_no_process_alive(path: Path, anyio_backend: str) -> None:
    script = """
import anyio, sys
from jotty.core.queue import FileTaskQueue
queue = FileTaskQueue(sys.argv[1])
async def main():
    print((await queue.enqueue("goal")).status.value)
anyio.run(main, backend=sys.argv[2])
"""

    assert "pending\n" == run_script(script, str(path), anyio_backend)


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
