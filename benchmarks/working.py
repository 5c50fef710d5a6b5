"""What does a worker cost beside the bare queue?"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from benchmarks.measuring import Contender
from benchmarks.peers import GOAL, RESULT
from benchmarks.reporting import Answer, Group, Target, compare
from benchmarks.shapes import IN_FLIGHT, drained_by_turns, enqueued_in_bulk
from jotty import Conductor
from jotty.core.queue import QueueManager

if TYPE_CHECKING:
    from benchmarks.reporting import Table
    from benchmarks.setting import Setting
    from jotty.core.queue import Task

__all__ = ["ask"]

BARE: Final = "TaskQueue, turns"
WORKER: Final = "QueueManager, no-op handler"
CONDUCTOR: Final = "Conductor, no-op actor"
SCHEMES: Final = ("memory", "sqlite", "file")


async def ask(setting: Setting) -> Answer:
    """Have each drain as many tasks, with room for 100 at once; enqueueing them is not measured."""
    schemes = setting.installed(SCHEMES)
    async with AsyncExitStack() as stack:
        groups = [await _group(setting, stack, scheme) for scheme in schemes]
        tables = await compare(groups, setting.effort.rounds, setting.say)
    measured = zip(schemes, tables, strict=True)
    return Answer(tables, [target for scheme, table in measured for target in _targets(scheme, table)])


async def _group(setting: Setting, stack: AsyncExitStack, scheme: str) -> Group:
    bare, managed, conducted = [await stack.enter_async_context(setting.queue(scheme)) for _ in range(3)]
    manager = QueueManager(managed, _handle, max_concurrent=IN_FLIGHT)
    conductor = Conductor([act], conducted)
    tasks = setting.effort.drained
    return Group(
        f"Draining {tasks} tasks, {scheme}",
        {
            BARE: Contender(partial(drained_by_turns, bare), tasks, partial(enqueued_in_bulk, bare)),
            WORKER: Contender(partial(_drain, manager), tasks, partial(enqueued_in_bulk, managed)),
            CONDUCTOR: Contender(partial(_conduct, conductor), tasks, partial(_enqueue_goals, conductor)),
        },
        {"x bare": BARE},
    )


async def _handle(_: Task) -> str:
    return RESULT


async def act(goal: str) -> str:
    """Do nothing."""
    del goal
    return RESULT


async def _drain(manager: QueueManager, tasks: int) -> None:
    await manager.run(max_tasks=tasks)


async def _conduct(conductor: Conductor, tasks: int) -> None:
    await conductor.process_queue(max_tasks=tasks, max_concurrent=IN_FLIGHT)


async def _enqueue_goals(conductor: Conductor, tasks: int) -> None:
    async def enqueue() -> None:
        for _ in range(tasks // IN_FLIGHT):
            await conductor.enqueue_goal(GOAL)

    async with anyio.create_task_group() as group:
        for _ in range(IN_FLIGHT):
            group.start_soon(enqueue)


def _targets(scheme: str, table: Table) -> list[Target]:
    return [
        Target(f"{scheme}: {name}: speed beside {BARE}", 0.5, table.ratio(name, BARE))
        for name in (WORKER, CONDUCTOR)
    ]
