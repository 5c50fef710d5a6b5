"""What a store may not look like after a kill is found out, by stores that were made so on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import MemoryTaskQueue, NewTask, Query
from jotty.testing.processes.inspection import inspect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import Task

pytestmark = pytest.mark.anyio


async def broken_rules(queue: MemoryTaskQueue, **options: Any) -> list[str]:
    return [violation.rule for violation in await inspect(queue, **options)]


def batch(*numbers: int, size: int) -> list[NewTask]:
    return [NewTask({"by": "producer", "batch": 0, "number": number, "size": size}) for number in numbers]


async def claimed(queue: MemoryTaskQueue) -> Task:
    (task,) = await queue.claim(worker="worker")
    return task


def steps(*places: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"kind": "step", "number": number, "of": size} for number, size in places]


async def test_a_whole_store_is_found_whole() -> None:
    queue = MemoryTaskQueue()
    parent, *_ = await queue.enqueue_many(batch(0, 1, 2, size=3))
    await queue.enqueue("child", depends_on=[parent.id])
    held = await claimed(queue)
    await queue.record(held, steps((0, 2), (1, 2), (0, 1)))
    await queue.complete(held, "result")
    await queue.fail(await claimed(queue), "error", retry=False)

    assert [] == await inspect(queue)


@pytest.mark.parametrize("numbers", [(0, 1), (0, 2, 1)])
async def test_half_a_batch_and_another_order_are_found(numbers: Sequence[int]) -> None:
    queue = MemoryTaskQueue()
    await queue.enqueue_many(batch(*numbers, size=3))

    assert ["C8"] == await broken_rules(queue)


async def test_a_batch_of_which_some_were_deleted_is_let_be() -> None:
    queue = MemoryTaskQueue()
    await queue.enqueue_many(batch(0, 1, size=3))

    assert [] == await broken_rules(queue, torn={("producer", 0)})


@pytest.mark.parametrize(
    "places", [[(0, 2)], [(1, 2)], [(1, 2), (0, 2)], [(0, 1), (0, 3), (1, 3)], [(0, 2), (0, 2), (1, 2)]]
)
async def test_half_of_what_was_journaled_at_once_is_found(places: list[tuple[int, int]]) -> None:
    queue = MemoryTaskQueue()
    await queue.enqueue("goal")
    await queue.record(await claimed(queue), steps(*places))

    assert ["C38"] == await broken_rules(queue)


async def test_only_what_the_programs_write_is_taken_for_a_group() -> None:
    """A workflow's journal tells of its progress, too: so many steps `of` those there are."""
    queue = MemoryTaskQueue()
    await queue.enqueue("goal")
    await queue.record(await claimed(queue), [{"kind": "progress", "of": 3}, *steps((0, 1))])

    assert [] == await broken_rules(queue)


async def test_a_completion_without_its_result_is_found() -> None:
    queue = MemoryTaskQueue()
    await queue.enqueue("goal")
    await queue.complete(await claimed(queue))  # with None, which the programs never do

    assert ["C28"] == await broken_rules(queue)


async def test_counts_that_lie_are_found() -> None:
    class Lying(MemoryTaskQueue):
        async def stats(self) -> Any:
            return await MemoryTaskQueue().stats()

    queue = Lying()
    await queue.enqueue("goal")

    assert ["C5"] == await broken_rules(queue)


async def test_a_task_that_would_be_blocked_for_ever_is_found() -> None:
    queue = MemoryTaskQueue()
    parent = await queue.enqueue("parent")
    child = await queue.enqueue("child", depends_on=[parent.id])
    held = await claimed(queue)
    backend = queue.backend
    stored = {record.head.id: record for record in await backend.find(Query())}
    await queue.complete(held, "result")
    await queue.reap()

    assert [] == await broken_rules(queue)
    assert stored[child.id].head.due is None
