"""Files that the system does not let be read: each fails its own task, the rest goes on, and all can heal."""

from __future__ import annotations

import errno
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty import ActorContext, Conductor, WorkflowMode, actor
from jotty.core.queue import QueueManager, RetryLater, Task, TaskStatus, export_tasks
from jotty.errors import StorageError, StoreCorrupt
from jotty.testing import VirtualClock
from jotty_backends.file import FileTaskQueue, contents, log
from jotty_backends.file.noted import NEW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not say what is opened"),
]

S = TaskStatus
LASTING = [errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN, errno.EBADMSG]
PASSING = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ESTALE]
for_each = pytest.mark.parametrize("refusal", LASTING, ids=errno.errorcode.__getitem__, indirect=True)


class Refusal:
    """Keeps files and directories from being opened, as the system would."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.paths: set[Path] = set()

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Take the place of the system's."""
        here = Path(path) if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink() / path
        if self.paths & {here, *here.parents}:
            raise OSError(self.number, os.strerror(self.number), path)
        return _open(path, flags, mode, dir_fd=dir_fd)


_open = os.open


@pytest.fixture
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    made = Refusal(getattr(request, "param", errno.EACCES))
    monkeypatch.setattr(os, "open", made.open)
    monkeypatch.setattr(contents, "_SHARD", 1)  # so that each task has a directory of its own
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[FileTaskQueue]:
    async with FileTaskQueue(path) as made:
        yield made


def files(path: Path) -> list[Path]:
    return list(path.rglob("tasks/*/*/*"))


def journals(path: Path) -> list[Path]:
    return list(path.rglob("*journal*"))


def file_of(path: Path, task: Task, kind: str) -> Path:
    (found,) = path.rglob(f"*{task.id}.{kind}*")
    return found


async def statuses(queue: FileTaskQueue) -> dict[Any, S]:
    return {task.id: task.status async for task in queue.tasks()}


async def exported(path: Path) -> tuple[list[Any], list[str]]:
    """Return the goals of the tasks that can be exported, and what is said of the others."""
    told: list[str] = []
    async with FileTaskQueue(path) as queue:
        goals = [
            one["goal"] async for one in export_tasks(queue, on_damage=lambda one: told.append(str(one)))
        ]
    return goals, told


async def kinds(queue: FileTaskQueue, task: Task) -> list[tuple[int, str]]:
    """Return what is in a journal, up to the end of the task."""
    with anyio.fail_after(5):
        return [(entry.number, entry.kind) async for entry in queue.events(task.id)]


async def claimed(queue: FileTaskQueue) -> Task:
    (task,) = await queue.claim(worker="w")
    return task


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until a snapshot is written."""
    with anyio.fail_after(5):
        while not is_so():  # noqa: ASYNC110 - it is another thread that is waited for
            await anyio.sleep(0.001)


# What cannot be read


@for_each
@pytest.mark.parametrize("is_directory", [False, True], ids=["file", "directory"])
async def test_a_payload_that_cannot_be_read_fails_its_own_task_which_can_be_retried(
    path: Path, refusal: Refusal, caplog: pytest.LogCaptureFixture, *, is_directory: bool
) -> None:
    async with FileTaskQueue(path) as queue:
        bad, good = await queue.enqueue("bad"), await queue.enqueue("good")
    file = file_of(path, bad, "payload")
    refusal.paths.add(file.parent if is_directory else file)
    async with FileTaskQueue(path) as queue:
        listed = [(task.goal, task.error and task.error["type"]) async for task in queue.tasks()]
        with pytest.raises(StoreCorrupt):
            await queue.get(bad.id)
        taken = await claimed(queue)
        nothing = await queue.claim(worker="w")
        states = await statuses(queue)
    goals, told = await exported(path)

    assert [(None, "StoreCorrupt"), ("good", None)] == listed
    assert (good.id, []) == (taken.id, nothing)
    assert {bad.id: S.FAILED, good.id: S.IN_PROGRESS} == states
    assert (["good"], 1) == (goals, len(told))
    assert file.exists()
    assert not (path / "damaged").exists()
    assert bad.id in caplog.text
    assert f"cannot be read: {os.strerror(refusal.number)}" in caplog.text
    refusal.paths.clear()
    async with FileTaskQueue(path) as queue:
        await queue.retry(bad.id)

        assert "bad" == (await claimed(queue)).goal


async def test_a_file_that_cannot_be_read_is_told_of_once(
    path: Path, refusal: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("goal")
        file = file_of(path, task, "payload")
        for _ in range(2):
            refusal.paths.add(file)
            await statuses(queue)
            await statuses(queue)
            refusal.paths.clear()
            await statuses(queue)

    assert 2 == caplog.text.count("cannot be read"), "once each time that it could be read before"


@for_each
async def test_an_outcome_that_cannot_be_read_hides_no_other(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        tasks = [await queue.enqueue(goal) for goal in ("bad", "good")]
        for _ in tasks:
            held = await claimed(queue)
            await queue.complete(held, held.goal)
        refusal.paths.add(file_of(path, tasks[0], "outcome"))
        goals, told = await exported(path)

        assert [None, "good"] == [task.result async for task in queue.tasks()]
        with pytest.raises(StoreCorrupt):
            await queue.result(tasks[0].id)
        assert "good" == await queue.result(tasks[1].id)
        assert (["good"], 1) == (goals, len(told))
        refusal.paths.clear()

        assert "bad" == await queue.result(tasks[0].id)
        assert not (path / "damaged").exists()


@for_each
async def test_what_cannot_be_read_can_be_purged(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        tasks = [await queue.enqueue(goal) for goal in ("bad", "good", "late")]
        for _ in tasks:
            await queue.complete(await claimed(queue))
        refusal.paths.add(file_of(path, tasks[0], "outcome").parent)
    async with FileTaskQueue(path) as queue:
        assert 3 == await queue.purge(timedelta(0))
        assert {} == await statuses(queue)
        assert ["goal"] == [(await queue.enqueue("goal")).goal]
    left = {file.name[0] for file in files(path)}

    assert {"1", "4"} == left, "what may not be reached, and the new one"


async def test_a_directory_that_cannot_be_read_is_passed_over_in_sweeping(
    path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with FileTaskQueue(path) as queue:
        tasks = [await queue.enqueue(goal) for goal in ("bad", "good")]
    orphans = [file_of(path, task, "payload").parent / f"{task.seq}-never.payload.json" for task in tasks]
    for orphan in orphans:
        orphan.touch()
    refusal.paths.add(orphans[0].parent)
    monkeypatch.setattr(log, "_SMALL", -(10**9))
    async with FileTaskQueue(path) as queue:
        await queue.enqueue("last")
        await until(lambda: not orphans[1].exists())

    assert [True, False] == [orphan.exists() for orphan in orphans]
    assert "no snapshot" not in caplog.text


@pytest.mark.parametrize("refusal", PASSING, ids=errno.errorcode.__getitem__, indirect=True)
async def test_what_the_process_lacks_fails_the_call_and_no_task(
    path: Path, refusal: Refusal, queue: FileTaskQueue
) -> None:
    task = await queue.enqueue("goal")
    refusal.paths.add(file_of(path, task, "payload"))
    with pytest.raises(StorageError) as caught:
        await queue.claim(worker="w")
    refusal.paths.clear()

    assert not isinstance(caught.value, StoreCorrupt)
    assert {task.id: S.PENDING} == await statuses(queue)
    assert "goal" == (await claimed(queue)).goal


@pytest.mark.parametrize("refusal", [errno.EIO], indirect=True)
async def test_a_disk_that_reads_nothing_at_all_fails_the_call_and_no_task(
    path: Path, refusal: Refusal, queue: FileTaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await queue.enqueue("goal")
    refusal.paths.add(file_of(path, task, "payload"))

    def names(_: object) -> list[str]:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as gone:
        gone.setattr(os, "listdir", names)
        with pytest.raises(StorageError) as caught:
            await queue.claim(worker="w")
    refusal.paths.clear()

    assert not isinstance(caught.value, StoreCorrupt)
    assert {task.id: S.PENDING} == await statuses(queue)


@for_each
async def test_what_is_refused_for_all_tasks_fails_the_call_and_no_task(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("goal")
    refusal.paths.add(path / "tasks")
    async with FileTaskQueue(path) as queue:
        for call in (queue.claim(worker="w"), queue.get(task.id)):
            with pytest.raises(StorageError) as caught:
                await call

            assert not isinstance(caught.value, StoreCorrupt)
        refusal.paths.clear()

        assert {task.id: S.PENDING} == await statuses(queue)


# What cannot be written beside the log


@for_each
@pytest.mark.parametrize("is_directory", [False, True], ids=["file", "directory"])
async def test_a_task_whose_journal_cannot_be_read_can_be_ended_and_its_journal_goes_on_later(
    path: Path, refusal: Refusal, *, is_directory: bool
) -> None:
    queue, other = FileTaskQueue(path), FileTaskQueue(path)
    task = await queue.enqueue("bad")
    held = await claimed(queue)
    await queue.record(held, [{"kind": "one"}, {"kind": "two"}])
    journal = file_of(path, task, "journal")
    refusal.paths.add(journal.parent if is_directory else journal)
    with pytest.raises(StoreCorrupt, match="cannot be written"):
        await queue.record(held, [{"kind": "three"}])
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        await kinds(queue, task)
    failed = await queue.fail(held, "its journal", retry=False)
    with pytest.raises(StoreCorrupt, match="cannot be written"):
        await queue.retry(task.id)

    assert (S.FAILED, "its journal") == (failed.status, (failed.error or {})["message"])
    assert ["good"] == [(await queue.enqueue("good")).goal]
    refusal.paths.clear()
    whole = [(1, "one"), (2, "two"), (3, "end")]

    assert [whole, whole] == [await kinds(one, task) for one in (queue, other)]
    assert "its journal" == ((await other.get(task.id) or task).error or {})["message"]
    await other.retry(task.id)
    await other.reprioritise(task.id, 1)
    again = await claimed(other)
    await other.record(again, [{"kind": "six"}])
    await other.complete(again, "result")
    expected = [*whole, (4, "call"), (5, "call"), (6, "six"), (7, "end")]
    async with FileTaskQueue(path) as later:
        for one in (queue, other, later):
            assert expected == await kinds(one, task)
            assert "result" == await one.result(task.id)
    await queue.aclose()
    await other.aclose()


async def test_what_stands_in_the_log_for_a_file_is_in_the_next_snapshot_too(
    path: Path, refusal: Refusal
) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("bad")
        held = await claimed(queue)
        await queue.record(held, [{"kind": "one"}])
        refusal.paths.add(file_of(path, task, "journal").parent)
        await queue.fail(held, "told", retry=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_SMALL", -(10**9))
        async with FileTaskQueue(path) as queue:
            await queue.enqueue("other")
            await until(lambda: [] != list(path.glob("snapshot-*")))
    refusal.paths.clear()
    async with FileTaskQueue(path) as queue:
        found = await queue.get(task.id)

        assert "told" == ((found or task).error or {})["message"]
        assert [(1, "one"), (2, "end")] == await kinds(queue, task)


async def test_the_lease_of_a_task_that_nothing_can_be_written_for_expires(
    path: Path, refusal: Refusal
) -> None:
    clock = VirtualClock()
    async with FileTaskQueue(path, clock=clock) as queue:
        task = await queue.enqueue("bad", max_attempts=1)
        await queue.claim(worker="w", lease_timeout=30)
        refusal.paths.add(file_of(path, task, "payload").parent)
    await clock.advance(31)
    async with FileTaskQueue(path, clock=clock) as queue:
        await queue.enqueue("good")

        assert "good" == (await claimed(queue)).goal
        assert S.FAILED is (await statuses(queue))[task.id]


async def test_what_could_not_be_put_into_the_log_is_taken_back(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("bad")
        held = await claimed(queue)
        await queue.record(held, [{"kind": "one"}])
        refusal.paths.add(file_of(path, task, "journal").parent)

        class Full:
            def __call__(self, point: str) -> None:
                if point == "file.append.before":
                    raise OSError(errno.ENOSPC, "no room")

        with pytest.MonkeyPatch.context() as full:
            full.setattr("jotty.core.queue.points._listener", Full())
            with pytest.raises(StorageError, match="no room"):
                await queue.fail(held, "lost", retry=False)
        await queue.fail(held, "told", retry=False)
        refusal.paths.clear()

        assert [(1, "one"), (2, "end")] == await kinds(queue, task)
        assert "told" == ((await queue.get(task.id) or task).error or {})["message"]


async def test_a_worker_gets_over_files_that_it_may_not_read(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        tasks = [await queue.enqueue(goal, max_attempts=1) for goal in ("payload", "journal", "good")]

        async def handle(task: Task) -> Any:
            await queue.record(task, [{"kind": "begun"}])
            if task.goal == "journal":
                refusal.paths.add(file_of(path, task, "journal"))
                await queue.record(task, [{"kind": "more"}])
            return task.goal

        refusal.paths.add(file_of(path, tasks[0], "payload"))
        ended = await QueueManager(queue, handle).run(drain=True)
        states = [(await statuses(queue))[task.id] for task in tasks]
        refusal.paths.clear()
        ends = [(await kinds(queue, task))[-1][1] for task in tasks]

        assert 3 == ended
        assert [S.FAILED, S.FAILED, S.COMPLETED] == states
        assert ["end"] * 3 == ends


async def test_a_run_whose_journal_cannot_be_written_fails_and_is_not_tried_again(
    path: Path, refusal: Refusal
) -> None:
    runs = []

    @actor
    async def write(ctx: ActorContext) -> str:
        runs.append(1)
        await until(lambda: bool(journals(path)))
        refusal.paths.update(journals(path))
        ctx.text("more")
        await anyio.sleep(5)
        return "never"

    async with FileTaskQueue(path) as queue:
        workflow = WorkflowMode(Conductor([write]), execution="async", queue=queue)
        task_id = await workflow.enqueue_task("goal", {})
        with anyio.fail_after(4):
            await workflow.process_queue(drain=True)
        (task,) = [one async for one in queue.tasks()]

        assert (task_id, S.FAILED, [1]) == (task.id, task.status, runs)
        assert "StoreCorrupt" == (task.error or {})["type"]


async def test_a_task_runs_whose_earlier_error_cannot_be_read(path: Path, refusal: Refusal) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("goal")
        await queue.fail(await claimed(queue), "once", delay=0)
        refusal.paths.add(file_of(path, task, "outcome"))
        again = await claimed(queue)
        refusal.paths.clear()
        done = await queue.complete(again, "done")

        assert ("goal", None, "done") == (again.goal, again.error, done.result)


@pytest.mark.parametrize("move", ["retry", "accept", "reprioritise", "answer"])
async def test_a_client_is_told_of_its_move_though_the_payload_is_damaged(path: Path, move: str) -> None:
    async with FileTaskQueue(path) as queue:
        task = await queue.enqueue("goal", status="backlog")
        if move == "retry":
            await queue.cancel(task.id)
        file_of(path, task, "payload").write_bytes(b"garbage")
        moves: dict[str, Callable[[], Any]] = {
            "retry": lambda: queue.retry(task.id),
            "accept": lambda: queue.accept(task.id),
            "reprioritise": lambda: queue.reprioritise(task.id, 1),
            "answer": lambda: queue.answer(task.id, "question", 1),
        }
        moved = await moves[move]()
        (stored,) = await queue.backend.get([task.id], payload=False)

        assert stored is not None
        assert stored.head == moved.head
        assert "StoreCorrupt" == (moved.error or {})["type"]


@pytest.mark.parametrize("settle", ["release", "park", "fail"])
async def test_a_task_is_let_go_of_whose_earlier_error_is_damaged(path: Path, settle: str) -> None:
    async with FileTaskQueue(path) as queue:
        await queue.enqueue("goal")
        await queue.fail(await claimed(queue), "once", delay=0)
        task = await claimed(queue)
        file_of(path, task, "outcome").write_bytes(b"garbage")
        moves: dict[str, Callable[[], Any]] = {
            "release": lambda: queue.release(task),
            "park": lambda: queue.park(task, ["question"]),
            "fail": lambda: queue.fail(task, RetryLater(1)),
        }
        settled = await moves[settle]()

        assert {task.id: settled.status} == await statuses(queue)
        assert settled.status is not S.IN_PROGRESS


# What the log says of it


@given(
    st.lists(st.tuples(st.sampled_from(["told", "file"]), st.binary()) | st.lists(st.binary(), min_size=1))
)
def test_notes_tell_another_process_what_stands_where(
    steps: list[tuple[str, bytes] | list[bytes]],
) -> None:
    here = there = NEW
    for number, step in enumerate(steps):
        before = here
        if isinstance(step, list) and number % 2:
            here = here.with_late(step)
        elif isinstance(step, list):
            here = attrs.evolve(here, entries=here.entries + len(step), length=here.length + 9, late=())
        else:
            told = step[1] if step[0] == "told" else None
            here = attrs.evolve(here, outcome=here.outcome + 1, told=told)
        there = there.learnt(json.loads(json.dumps(here.notes_since(before))))

    assert here == there
    assert here == NEW.learnt(here.notes_since(NEW))
