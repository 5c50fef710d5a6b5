"""Finished tasks that nobody wants any more: deleted by the workers, little by little, never a live one."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import LIVE, MemoryTaskQueue, NewTask, QueueManager, Record, Task, TaskQueue, TaskStatus
from jotty.core.queue.worker.retention import Retention
from jotty.errors import StorageError
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import Query, QueueBackend

pytestmark = pytest.mark.anyio

DAY = 86_400.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def end(queue: TaskQueue, number: int) -> list[str]:
    """Complete so many new tasks now."""
    tasks = await queue.enqueue_many(NewTask(each) for each in range(number))
    for task in await queue.claim(worker="w", limit=number) if number else ():
        await queue.complete(task)
    return [task.id for task in tasks]


async def work_for(seconds: float, clock: VirtualClock, *managers: QueueManager) -> None:
    async with clock.autojump(), anyio.create_task_group() as group:
        for one in managers:
            group.start_soon(one.run)
        await clock.sleep(seconds)
        for one in managers:
            one.stop()


def idle(queue: TaskQueue, clock: VirtualClock, **options: Any) -> QueueManager:
    return QueueManager(queue, lambda _: clock.sleep(1), lanes=["none"], clock=clock, **options)


async def ids(queue: TaskQueue) -> set[str]:
    return {task.id async for task in queue.tasks()}


async def test_what_ended_a_week_ago_is_deleted_soon_after_a_worker_starts(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    await end(queue, 3)
    await clock.advance(7 * DAY)
    fresh = await end(queue, 2)
    waiting = await queue.enqueue("waits since long ago")

    await work_for(10, clock, idle(queue, clock))

    assert await ids(queue) == {*fresh, waiting.id}


async def test_a_worker_that_runs_on_deletes_as_time_goes_by(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    await end(queue, 3)
    manager = idle(queue, clock, retention=timedelta(minutes=10))
    left: list[int] = []

    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        for _ in range(2):
            await clock.sleep(590)
            left.append(len(await ids(queue)))
            await clock.sleep(80)
        manager.stop()

    assert left == [3, 0]


async def test_without_a_retention_everything_is_kept(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    old = await end(queue, 3)
    await clock.advance(10_000 * DAY)

    await work_for(300, clock, idle(queue, clock, retention=None))

    assert await ids(queue) == set(old)


async def test_many_are_deleted_in_small_batches_with_pauses(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    deleted: list[tuple[float, int]] = []

    class Watching(MemoryBackend):
        async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
            deleted.append((self.now() / 1e6, len(targets)))
            return await super().delete(targets)

    queue = TaskQueue(Watching(clock=clock), clock=clock)
    await end(queue, 1700)
    await clock.advance(8 * DAY)
    with caplog.at_level(logging.INFO, logger="jotty.queue"):
        await work_for(30, clock, idle(queue, clock))

    assert await ids(queue) == set()
    assert sum(number for _, number in deleted) == 1700
    assert max(number for _, number in deleted) <= 500
    pauses = [later[0] - earlier[0] for earlier, later in pairwise(deleted)]
    assert min(pauses) >= 0.04
    assert "Deleted 1700 tasks" in caplog.text


async def test_several_workers_do_not_delete_the_same(clock: VirtualClock) -> None:
    asked: list[int] = []

    class Watching(MemoryBackend):
        async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
            asked.append(len(targets))
            return await super().delete(targets)

    queue = TaskQueue(Watching(clock=clock), clock=clock)
    await end(queue, 3000)
    await clock.advance(8 * DAY)
    await work_for(200, clock, *(idle(queue, clock, random=Random(seed)) for seed in range(6)))

    assert await ids(queue) == set()
    assert sum(asked) <= 3000 + 6 * 500


async def test_a_live_child_is_told_how_its_parent_ended_before_that_is_deleted(clock: VirtualClock) -> None:
    """Nobody has seen to it, since the worker that failed the parent died right afterwards."""

    class Forgetful(MemoryBackend):
        is_dying = True

        async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
            if self.is_dying and not payload:
                raise StorageError(self.url, "died")
            return await super().get(ids, payload=payload)

    backend = Forgetful(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    parent = await queue.enqueue("parent")
    other = await queue.enqueue("other", status="backlog")
    child = await queue.enqueue("child", depends_on=[parent.id, other.id])
    (claimed,) = await queue.claim(worker="w")
    with pytest.raises(StorageError):
        await queue.fail(claimed, "no", retry=False)
    backend.is_dying = False
    await clock.advance(8 * DAY)

    async def store() -> QueueBackend:
        await anyio.lowlevel.checkpoint()
        return backend

    async with clock.autojump():  # no worker, which would reap before
        with clock.timeout(10):
            await Retention(timedelta(days=7), Random(0)).delete_on(store, clock)

    found = await queue.get(child.id)
    assert await queue.get(parent.id) is None
    assert found is not None
    assert found.status is TaskStatus.FAILED
    assert found.error is not None
    assert parent.id in found.error["message"]


async def test_whoever_finds_another_deleting_leaves_it_to_do_so(clock: VirtualClock) -> None:
    asked: list[float] = []

    class Contended(MemoryBackend):
        async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
            asked.append(self.now() / 1e6)
            await super().delete(targets[::2])  # another worker was faster with these
            return await super().delete(targets)

    queue = TaskQueue(Contended(clock=clock), clock=clock)
    await end(queue, 1000)
    await clock.advance(8 * DAY)
    await work_for(100, clock, idle(queue, clock))

    assert len(asked) > 1
    assert min(later - earlier for earlier, later in pairwise(asked)) > 20


async def test_a_store_that_fails_while_deleting_disturbs_no_work_and_is_said_once(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(MemoryBackend):
        async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
            del targets
            raise StorageError(self.url, "read-only")

    queue = TaskQueue(Stubborn(clock=clock), clock=clock)

    async def handler(_: Task) -> str:
        await clock.sleep(600)
        return "undisturbed"

    await end(queue, 1)
    await clock.advance(8 * DAY)
    task = await queue.enqueue("g", max_attempts=1)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump():
            await QueueManager(queue, handler, clock=clock).run(drain=True)

    assert await queue.result(task.id) == "undisturbed"
    assert caplog.text.count("could not be deleted") == 1


async def test_a_claim_gets_through_while_much_is_deleted(clock: VirtualClock) -> None:
    started: list[float] = []

    class Slow(MemoryBackend):
        async def find(self, query: Query) -> list[Record]:
            if query.finished_before is not None:
                await clock.sleep(0.01)
            return await super().find(query)

    queue = TaskQueue(Slow(clock=clock), clock=clock)

    async def handler(_: Task) -> None:
        started.append(clock.now() / 1e6)

    await end(queue, 4000)
    await clock.advance(8 * DAY)
    manager = QueueManager(queue, handler, clock=clock)
    enqueued: list[float] = []
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        for _ in range(50):
            await clock.sleep(0.2)
            enqueued.append(clock.now() / 1e6)
            await queue.enqueue("now")
        await clock.sleep(1)
        manager.stop()

    assert len(started) == 50
    assert max(late - early for early, late in zip(enqueued, started, strict=True)) < 0.1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(TaskStatus)), st.integers(0, 14)), max_size=12))
def test_only_what_is_over_and_old_enough_is_ever_deleted(made: list[tuple[TaskStatus, int]]) -> None:
    async def run() -> tuple[set[str], set[str]]:
        clock = VirtualClock()
        queue = MemoryTaskQueue(clock=clock)
        blocker = await queue.enqueue("blocker", status="backlog")
        kept = {blocker.id}
        born = clock.now()
        for status, day in sorted(made, key=lambda one: one[1]):
            await clock.advance(max(day * DAY - (clock.now() - born) / 1e6, 0))
            task_id = await _in_state(queue, status, blocker.id)
            if status in LIVE or day > 7:
                kept.add(task_id)
        await clock.advance(max(14.5 * DAY - (clock.now() - born) / 1e6, 0))
        await work_for(10, clock, idle(queue, clock))
        return kept, await ids(queue)

    kept, left = anyio.run(run)

    assert left == kept


async def _in_state(queue: TaskQueue, status: TaskStatus, blocker: str) -> str:
    if status in {TaskStatus.BACKLOG, TaskStatus.SUGGESTED}:
        return (await queue.enqueue("g", status=status)).id
    if status is TaskStatus.BLOCKED:
        return (await queue.enqueue("g", depends_on=[blocker])).id
    task = await queue.enqueue("g", lane=status)
    if status is TaskStatus.CANCELLED:
        await queue.cancel(task.id)
    elif status is not TaskStatus.PENDING:
        (held,) = await queue.claim(worker="w", lanes=[status], lease_timeout=100 * DAY)
        if status is TaskStatus.COMPLETED:
            await queue.complete(held)
        elif status is TaskStatus.FAILED:
            await queue.fail(held, "no", retry=False)
    return task.id


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (timedelta(seconds=1), "1 task that ended more than 1s ago"),
        (timedelta(seconds=90), "1 task that ended more than 90s ago"),
        (timedelta(minutes=15), "1 task that ended more than 15m ago"),
        (timedelta(hours=36), "1 task that ended more than 36h ago"),
        (timedelta(days=7), "1 task that ended more than 7d ago"),
    ],
)
async def test_an_age_is_told_as_it_is_given_to_the_command(
    caplog: pytest.LogCaptureFixture, keep: timedelta, told: str
) -> None:
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    await queue.cancel((await queue.enqueue("g")).id)
    manager = QueueManager(queue, lambda _: clock.sleep(1), retention=keep, clock=clock)
    with caplog.at_level(logging.INFO, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            await clock.sleep(keep.total_seconds() + 1)
            group.start_soon(manager.run)
            await clock.sleep(10)
            manager.stop()

    assert f"Deleted {told}." in caplog.text
