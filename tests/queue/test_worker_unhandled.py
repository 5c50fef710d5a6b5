"""Tasks that a worker cannot run: left to others, shown, never discarded."""

from __future__ import annotations

import logging
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    MemoryTaskQueue,
    NewTask,
    QueueManager,
    RetryLater,
    Task,
    TaskStatus,
    WorkerInfo,
)
from jotty.errors import Unhandled
from jotty.testing import VirtualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


class Choosy:
    """Handles numbers, and notes when it was asked for anything else."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.refused_at: list[float] = []

    async def __call__(self, task: Task) -> Any:
        if isinstance(task.goal, int):
            return task.goal
        self.refused_at.append(self._clock.now() / 1e6)
        raise Unhandled("it is no number")


async def test_a_task_that_nobody_handles_stays_as_it_was_however_often_it_is_refused(
    queue: MemoryTaskQueue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    choosy = Choosy(clock)
    task = await queue.enqueue("text", max_attempts=1)
    listed: list[WorkerInfo] = []
    manager = QueueManager(queue, choosy, clock=clock)
    with caplog.at_level(logging.INFO, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(3600)
            listed += await queue.workers()
            manager.stop()

    (seen,) = listed
    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt, found.error) == (TaskStatus.PENDING, 0, None)
    assert len(choosy.refused_at) > 60
    assert caplog.text.count(task.id) == 2  # that it began, and that it is left
    assert (seen.unhandled, seen.unhandled_ids) == (1, (task.id,))


@pytest.mark.parametrize(("number", "longest"), [(1, 5), (40, 5), (200, 20), (2000, 60)])
async def test_refused_tasks_are_taken_less_and_less_often_and_many_of_them_seldom(
    queue: MemoryTaskQueue, clock: VirtualClock, number: int, longest: float
) -> None:
    choosy = Choosy(clock)
    await queue.enqueue_many([NewTask(f"text {at}") for at in range(number)])
    manager = QueueManager(queue, choosy, max_concurrent=50, clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(300)
        manager.stop()

    refused_at = choosy.refused_at
    settled = [at for at in refused_at if at - refused_at[0] > 150]
    assert len(refused_at) > 3 * number
    assert len(settled) / 150 / number == pytest.approx(1 / longest, rel=0.6)


async def test_many_refused_tasks_are_told_in_few_lines(
    queue: MemoryTaskQueue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    manager = QueueManager(queue, Choosy(clock), max_concurrent=10, clock=clock)
    tasks: list[Task] = []
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            for _ in range(5):
                tasks += await queue.enqueue_many([NewTask("text") for _ in range(60)])
                await clock.sleep(60)
            await queue.enqueue("text")
            await clock.sleep(1)
            manager.stop()

    lines = [record.getMessage() for record in caplog.records]
    counts = [int(line.split()[0]) for line in lines[1:]]
    assert "is left to other workers: it is no number" in lines[0]
    assert 300 == sum(counts)
    assert 1 == counts[-1]
    assert len(lines) <= 8
    assert max(line.count(tasks[0].id[:8]) for line in lines) <= 3


async def test_a_worker_that_comes_up_gets_within_seconds_what_others_have_refused_for_an_hour(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    able_at: list[int] = []

    async def able(_: Task) -> None:
        able_at.append(clock.now())

    await queue.enqueue("text")
    since = 0
    refusing, taking = QueueManager(queue, Choosy(clock), clock=clock), QueueManager(queue, able, clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(refusing.run)
        await clock.sleep(3600)
        since = clock.now()
        group.start_soon(taking.run)
        await clock.sleep(60)
        refusing.stop()
        taking.stop()

    assert len(able_at) == 1
    assert (able_at[0] - since) / 1e6 < 12  # who refuses it may be faster, once


async def test_a_refused_task_is_in_the_workers_list_within_seconds(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    tasks: list[Task] = []
    listed: list[WorkerInfo] = []
    manager = QueueManager(queue, Choosy(clock), clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(5)
        tasks += [await queue.enqueue("text") for _ in range(12)]
        await clock.sleep(2)
        listed += await queue.workers()
        manager.stop()

    (seen,) = listed
    assert seen.unhandled == 12
    assert len(seen.unhandled_ids) == 10
    assert {task.id for task in tasks}.issuperset(seen.unhandled_ids)


@settings(max_examples=15, deadline=None)
@given(choosy=st.integers(1, 8), number=st.integers(1, 10), seed=st.integers(0, 2**32))
def test_whoever_can_run_a_task_gets_it_soon_though_others_refuse_it(
    choosy: int, number: int, seed: int
) -> None:
    async def run() -> tuple[float, set[TaskStatus]]:
        clock = VirtualClock()
        queue = MemoryTaskQueue(clock=clock)
        random = Random(seed)
        started = clock.now() + 1_000_000
        ended_at: list[int] = []

        async def able(_: Task) -> None:
            await clock.sleep(0.01)
            ended_at.append(clock.now())

        handlers: list[Any] = [*(Choosy(clock) for _ in range(choosy)), able]
        managers = [QueueManager(queue, one, clock=clock, random=random) for one in handlers]
        async with clock.autojump(), anyio.create_task_group() as group:
            for one in managers:
                group.start_soon(one.run)
            await clock.sleep(1)
            for _ in range(number):
                await queue.enqueue("text", max_attempts=1)
            await clock.sleep(60)
            for one in managers:
                one.stop()
        return (max(ended_at) - started) / 1e6, {task.status async for task in queue.tasks()}

    took, states = anyio.run(run)

    assert states == {TaskStatus.COMPLETED}
    assert took < 5


async def test_draining_leaves_what_it_cannot_run_and_counts_none_of_it(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    text = await queue.enqueue("text")
    number = await queue.enqueue(1)
    async with clock.autojump():
        with clock.timeout(60):
            ended = await QueueManager(queue, Choosy(clock), clock=clock).run(drain=True)

    left = await queue.get(text.id)
    assert left is not None
    assert (ended, left.status) == (1, TaskStatus.PENDING)
    assert await queue.result(number.id) == 1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("number", [1, 60, 300])
async def test_draining_waits_for_what_another_worker_has_only_put_off(
    queue: MemoryTaskQueue, clock: VirtualClock, number: int, seed: int
) -> None:
    async def able(task: Task) -> Any:
        if not isinstance(task.goal, str):
            raise Unhandled("it is no text")
        await clock.sleep(0.5)

    texts = await queue.enqueue_many([NewTask("text") for _ in range(number)])
    mine = await queue.enqueue_many([NewTask(at) for at in range(3)])
    refused = await queue.enqueue([])  # which neither can run
    choosy, ended = QueueManager(queue, Choosy(clock), clock=clock, random=Random(seed)), 0
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(choosy.run)
        await clock.sleep(5)
        with clock.timeout(3600):
            ended = await QueueManager(queue, able, clock=clock, random=Random(seed)).run(drain=True)
            choosy.stop()

    assert number == ended
    states = {task.id: task.status async for task in queue.tasks()}
    assert {TaskStatus.COMPLETED} == {states[task.id] for task in (*texts, *mine)}
    assert states[refused.id] is TaskStatus.PENDING


async def test_draining_waits_for_nothing_that_is_only_scheduled(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    await queue.enqueue("later", delay=3)
    await queue.enqueue("postponed")
    (task,) = await queue.claim(worker="other")
    await queue.fail(task, RetryLater(20))
    await queue.enqueue("given back for long")
    (task,) = await queue.claim(worker="other")
    await queue.release(task, delay=600)
    started = clock.now()
    async with clock.autojump():
        ended = await QueueManager(queue, Choosy(clock), clock=clock).run(drain=True)

    assert ended == 0
    assert (clock.now() - started) / 1e6 < 2


async def test_what_was_refused_is_none_of_the_max_tasks(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    await queue.enqueue("text", priority=1)
    for number in range(3):
        await queue.enqueue(number)
    async with clock.autojump():
        with clock.timeout(60):
            ended = await QueueManager(queue, Choosy(clock), max_concurrent=1, clock=clock).run(max_tasks=2)

    assert ended == 2


async def test_what_another_worker_has_taken_up_is_not_listed_any_more(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    await queue.enqueue("text", priority=1)
    await queue.enqueue("gone")
    manager = QueueManager(queue, Choosy(clock), worker="choosy", clock=clock)
    seen: list[int] = []
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(3)
        seen.append((await queue.workers())[0].unhandled)
        await queue.claim(worker="able", wait=60, lease_timeout=600)
        (ended,) = await queue.claim(worker="able", wait=60)
        await queue.complete(ended)
        await clock.sleep(30)
        seen.append((await queue.workers())[0].unhandled)
        manager.stop()

    assert seen == [2, 0]


async def test_a_refused_task_whose_cancel_was_asked_for_is_cancelled(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(task: Task) -> None:
        await queue.cancel(task.id)
        raise Unhandled("not here")

    task = await queue.enqueue("text")
    async with clock.autojump():
        await QueueManager(queue, handler, clock=clock).run(drain=True)

    found = await queue.get(task.id)
    assert found is not None
    assert found.status is TaskStatus.CANCELLED


async def test_a_handler_that_learns_to_run_a_task_runs_it(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    asked = 0

    async def handler(_: Task) -> str:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise Unhandled("not yet")
        return "learnt"

    task = await queue.enqueue("text", max_attempts=1)
    async with clock.autojump():
        with clock.timeout(60):
            assert await QueueManager(queue, handler, clock=clock).run(max_tasks=1) == 1

    assert await queue.result(task.id) == "learnt"
