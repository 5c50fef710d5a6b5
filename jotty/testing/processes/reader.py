"""A process that reads stores which were damaged, and tells what it was given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import open_queue

from .child import run_program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from jotty.core.queue import TaskQueue

    from .child import Child

__all__ = ["ReaderOptions"]


@attrs.frozen(kw_only=True)
class ReaderOptions:
    """What to read.

    Attributes:
        urls: The stores.
        goals: By id, the tasks that each of them held before it was damaged, with their goals.
    """

    urls: list[str]
    goals: Mapping[str, Any]


async def read_all(child: Child[ReaderOptions]) -> None:
    """Tell of each store how many tasks are the same, have another goal or are missing, and of the errors."""
    for url in child.options.urls:
        queue = open_queue(url)
        found: Counter[str] = Counter()
        opened = await _name(queue.backend.open(), "opened")
        for task, goal in child.options.goals.items():
            found[await _kind(queue, task, goal)] += 1
        stored = await _name(queue.enqueue("after the damage"), "stored")
        await queue.aclose()
        child.history.tell("read", url=url, opened=opened, found=found, stored=stored)


async def _name(call: Awaitable[object], otherwise: str) -> str:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - whatever leaves the API is told
        return type(error).__name__
    return otherwise


async def _kind(queue: TaskQueue, task_id: str, goal: object) -> str:
    try:
        task = await queue.get(task_id)
        if task is None:
            return "missing"
        [entry async for entry in queue.events(task_id, follow=False)]
    except Exception as error:  # noqa: BLE001 - whatever leaves the API is told
        return type(error).__name__
    return "same" if task.goal == goal else "other"


if __name__ == "__main__":
    run_program(read_all, ReaderOptions)
