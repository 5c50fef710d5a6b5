"""The ways in which people use a `TaskQueue`: one caller, many callers, a worker."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from benchmarks.peers import GOAL, RESULT
from jotty.core.queue import NewTask, settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import Task, TaskQueue
    from jotty.core.queue.settlement import Settlement
    from jotty.core.queue.task_queue import Turn

__all__ = [
    "IN_FLIGHT",
    "WORKER",
    "as_worker",
    "by_many_callers",
    "drained_by_turns",
    "enqueued_by_many_callers",
    "enqueued_in_bulk",
    "enqueued_one_by_one",
    "one_by_one",
    "turn",
]

IN_FLIGHT: Final = 100
WORKER: Final = "benchmark"
_JITTER: Final = Random(0)


async def one_by_one(queue: TaskQueue, tasks: int) -> None:
    """Do the life cycle of many tasks, one after the other."""
    for _ in range(tasks):
        await queue.enqueue(GOAL)
        (task,) = await queue.claim(worker=WORKER)
        await queue.complete(task, RESULT)


async def by_many_callers(queue: TaskQueue, tasks: int) -> None:
    """Do the same with many callers, each of whom goes one by one and knows nothing of the others."""
    await asyncio.gather(*(one_by_one(queue, tasks // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def as_worker(queue: TaskQueue, tasks: int) -> None:
    """Have many callers enqueue at once, and a worker settle what it has together with its next claim."""
    done: list[Settlement] = []
    for _ in range(tasks // IN_FLIGHT):
        await asyncio.gather(*(queue.enqueue(GOAL) for _ in range(IN_FLIGHT)))
        done = completions(queue, (await turn(queue, done, IN_FLIGHT)).claimed)
    await turn(queue, done, 0)


async def drained_by_turns(queue: TaskQueue, tasks: int) -> None:
    """Claim and complete what is in the queue, many at a time."""
    done: list[Settlement] = []
    for _ in range(tasks // IN_FLIGHT):
        done = completions(queue, (await turn(queue, done, IN_FLIGHT)).claimed)
    await turn(queue, done, 0)


async def turn(queue: TaskQueue, done: Sequence[Settlement], limit: int) -> Turn:
    """Settle and claim in one step.

    Raises:
        RuntimeError: There were fewer tasks than were asked for.
    """
    turned = await queue.turn(done, worker=WORKER, lanes=("default",), limit=limit, lease_timeout=30.0)
    if len(turned.claimed) != limit:
        raise RuntimeError(f"{limit} tasks were to be claimed, not {len(turned.claimed)}")
    return turned


def completions(queue: TaskQueue, tasks: Sequence[Task]) -> list[Settlement]:
    """Return what completes these tasks."""
    return [settlement.completion(task, RESULT, queue.max_payload, _JITTER) for task in tasks]


async def enqueued_one_by_one(queue: TaskQueue, tasks: int) -> None:
    """Enqueue with one caller, who waits each time."""
    for _ in range(tasks):
        await queue.enqueue(GOAL)


async def enqueued_by_many_callers(queue: TaskQueue, tasks: int) -> None:
    """Enqueue with many callers, who wait at the same time."""
    await asyncio.gather(*(enqueued_one_by_one(queue, tasks // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def enqueued_in_bulk(queue: TaskQueue, tasks: int) -> None:
    """Enqueue all with one call."""
    await queue.enqueue_many([NewTask(GOAL) for _ in range(tasks)])
