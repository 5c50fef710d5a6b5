"""The tasks in which a worker runs its handlers: kept for the next, and yet as good as new ones."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import MemoryTaskQueue, NewTask, QueueManager, Task, TaskStatus
from jotty.core.queue.worker.crew import Crew
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

seen: ContextVar[str] = ContextVar("seen", default="nothing")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def with_crew(perform: Callable[[Any], Any], use: Callable[[Crew[Any]], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        await use(Crew(group, perform))
        group.cancel_scope.cancel()


async def test_each_task_has_contextvars_of_its_own(clock: VirtualClock) -> None:
    found: list[str] = []

    async def handler(task: Task) -> None:
        found.append(seen.get())
        seen.set(str(task.goal))
        await anyio.lowlevel.checkpoint()
        found.append(seen.get())

    queue = MemoryTaskQueue(clock=clock)
    for number in range(3):
        await queue.enqueue(number)
    seen.set("the caller's")
    await QueueManager(queue, handler, max_concurrent=1, clock=clock).run(drain=True)

    assert found == ["the caller's", "0", "the caller's", "1", "the caller's", "2"]
    assert seen.get() == "the caller's"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=20), min_size=1, max_size=5))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whatever_is_given_is_begun_before_anything_waits_for_long(
    backend: str, rounds: list[list[int]]
) -> None:
    """Each piece of work takes some steps of the loop, or waits for all that were given with it."""

    async def run() -> tuple[int, int]:
        begun = ended = 0
        all_begun = anyio.Event()

        async def perform(work: tuple[int, int]) -> None:
            nonlocal begun, ended
            steps, goal = work
            begun += 1
            if begun == goal:
                all_begun.set()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            if steps == 4:
                await all_begun.wait()  # nobody would be there to set it if one had to wait for another
            ended += 1

        async def use(crew: Crew[tuple[int, int]]) -> None:
            nonlocal all_begun
            goal = 0
            for number in rounds:
                all_begun = anyio.Event()
                goal += len(number)
                for steps in number:
                    crew.give((steps, goal))
                with anyio.fail_after(5):
                    while ended < goal:
                        await anyio.lowlevel.checkpoint()

        await with_crew(perform, use)
        return ended, sum(map(len, rounds))

    ended, given_out = anyio.run(run, backend=backend)

    assert ended == given_out


async def test_work_that_never_waits_takes_no_more_than_a_few_tasks(anyio_backend: str) -> None:
    tasks: set[Any] = set()

    async def perform(_: int) -> None:
        tasks.add(anyio.get_current_task().id)

    async def use(crew: Crew[int]) -> None:
        for _ in range(3):
            for number in range(100):
                crew.give(number)
            await anyio.wait_all_tasks_blocked()

    await with_crew(perform, use)

    assert len(tasks) == 1


async def test_work_that_never_waits_lets_others_go_on(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue_many(NewTask(number) for number in range(1000))
    ended = 0
    most = 0

    async def handler(_: Task) -> None:
        nonlocal ended
        ended += 1

    async def look() -> None:
        nonlocal most
        before = 0
        while ended < 1000:
            most = max(most, ended - before)
            before = ended
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await QueueManager(queue, handler, max_concurrent=500, clock=clock).run(drain=True)

    assert most <= 100


async def test_what_had_no_time_to_begin_goes_back_when_the_worker_is_cancelled(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    tasks = await queue.enqueue_many(NewTask(number) for number in range(20))
    with anyio.CancelScope() as scope:

        async def handler(_: Task) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        await QueueManager(queue, handler, max_concurrent=20, clock=clock).run()

    found = [await queue.get(task.id) for task in tasks]
    assert {(one.status, one.attempt, one.lease) for one in found if one} == {(TaskStatus.PENDING, 0, 1)}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_handler_that_cancels_its_own_task_harms_no_other(
    clock: VirtualClock, *, waits: bool
) -> None:
    """By asyncio's own means; the task is used again for the next handler, which must not notice."""
    left_over: list[int] = []

    async def handler(task: Task) -> str:
        mine = asyncio.current_task()
        assert mine is not None
        left_over.append(mine.cancelling())
        if task.goal == "cancels itself":
            mine.cancel()
            if waits:
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0)
        return "done"

    queue = MemoryTaskQueue(clock=clock)
    for goal in ("cancels itself", "a", "cancels itself", "b"):
        await queue.enqueue(goal, max_attempts=1)
    async with clock.autojump():
        assert await QueueManager(queue, handler, max_concurrent=1, clock=clock).run(drain=True) == 4

    assert left_over == [0, 0, 0, 0]
    states = [task.status.value async for task in queue.tasks()]
    assert states[1::2] == ["completed"] * 2
    assert states[::2] == [("failed" if waits else "completed")] * 2
