"""What a queue says of how it stands: the age of what waits, above all."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import MemoryTaskQueue, NewTask, Query, Record, TaskQueue, TaskStatus
from jotty.core.queue import reading as module
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

pytestmark = pytest.mark.anyio


@given(delays=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 100)), max_size=20))
def test_the_oldest_is_the_one_that_could_have_been_claimed_for_the_longest_time(
    delays: list[tuple[str, int]],
) -> None:
    """Each task is enqueued a second after the one before, to be run after some delay."""

    async def run() -> tuple[dict[str, float], dict[str, float]]:
        clock = VirtualClock()
        queue = MemoryTaskQueue(clock=clock)
        expected: dict[str, float] = {}
        for number, (lane, delay) in enumerate(delays):
            await queue.enqueue(number, lane=lane, delay=delay or None)
            age = len(delays) - number - delay
            if age >= 0:
                expected[lane] = max(age, expected.get(lane, 0.0))
            await clock.advance(1)
        return expected, (await queue.stats()).oldest

    expected, oldest = anyio.run(run)

    assert expected == oldest


async def test_what_is_only_scheduled_is_not_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue_many([NewTask("later", delay=3600) for _ in range(30)])
    await clock.advance(60)
    before = await queue.stats()
    ready = await queue.enqueue("now")
    await clock.advance(5)
    monkeypatch.setattr(module, "PAGE", 7)
    after = await queue.stats()

    assert ({}, {"default": {TaskStatus.PENDING: 30}}) == (before.oldest, before.lanes)
    assert {"default": 5.0} == after.oldest
    assert ready.status is TaskStatus.PENDING


async def test_a_task_of_a_later_page_may_have_waited_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue_many([NewTask("soon", delay=9), NewTask("soon", delay=9), NewTask("now")])
    await clock.advance(10)

    assert {"default": 10.0} == (await queue.stats()).oldest


async def test_the_age_of_a_task_that_was_tried_begins_when_it_can_be_tried_again() -> None:
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue("g")
    (task,) = await queue.claim(worker="w")
    await clock.advance(100)
    await queue.fail(task, "not yet", delay=10)
    waiting = (await queue.stats()).oldest
    await clock.advance(13)

    assert {} == waiting
    assert {"default": 3.0} == (await queue.stats()).oldest


async def test_the_look_for_the_oldest_of_very_many_scheduled_tasks_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE", 5)
    monkeypatch.setattr(module, "PAGES_OF_STATS", 2)
    queue = MemoryTaskQueue(clock=VirtualClock())
    await queue.enqueue_many([NewTask("later", delay=3600) for _ in range(10)])
    await queue.enqueue("beyond")

    assert {} == (await queue.stats()).oldest


class Counting(MemoryBackend):
    """Notes how many whole tasks are read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    async def find(self, query: Query) -> list[Record]:
        found = await super().find(query)
        self.reads.append(len(found) if query.payload else 0)
        return found


async def test_of_tasks_with_large_payloads_few_are_read_at_once() -> None:
    backend = Counting()
    queue = TaskQueue(backend)
    await queue.enqueue_many([NewTask(number) for number in range(300)])
    async for task in queue.tasks():
        if task.goal == 2:
            break
    few = sum(backend.reads)
    found = [task.goal async for task in queue.tasks()]

    assert few <= 5
    assert found == list(range(300))
    assert max(backend.reads) <= 64
