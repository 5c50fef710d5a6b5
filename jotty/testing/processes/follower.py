"""A process that follows the journals of tasks until they are over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .child import run_program

if TYPE_CHECKING:
    from .child import Child

__all__ = ["FollowerOptions"]


@attrs.frozen(kw_only=True)
class FollowerOptions:
    """What to follow.

    Attributes:
        tasks: The tasks' ids.
    """

    tasks: list[str]


async def follow(child: Child[FollowerOptions]) -> None:
    """Tell of each entry of each task's journal, as it comes."""

    async def follow_one(task: str) -> None:
        after = 0
        while not child.is_ending:
            async with child.patience():
                async for entry in child.queue.events(task, after):
                    child.history.tell("seen", task, number=entry.number, entry=entry.kind)
                    after = entry.number
                return

    async with anyio.create_task_group() as group:
        for task in child.options.tasks:
            group.start_soon(follow_one, task)


if __name__ == "__main__":
    run_program(follow, FollowerOptions)
