"""Graphs as one would write them with nothing but asyncio."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.graphs.shapes import JOIN, SOURCE, Dag, Trial, add

if TYPE_CHECKING:
    from benchmarks.graphs.shapes import Shape, Work

__all__ = ["by_group", "by_task", "by_turns"]


async def by_task(shape: Shape) -> Trial | None:
    """Make each node a task that awaits those of its parents; of a loop, each turn."""
    if not isinstance(shape, Dag):
        return Trial(partial(_turn_by_turn, shape.turns))
    nodes = [(name, parents, shape.work(name)) for name, parents in shape.parents.items()]
    sinks = shape.sinks

    async def run() -> dict[str, int]:
        tasks: dict[str, asyncio.Task[int]] = {}

        async def node(work: Work, parents: tuple[str, ...]) -> int:
            return await work(*[await tasks[parent] for parent in parents])

        for name, parents, work in nodes:
            tasks[name] = asyncio.create_task(node(work, parents))
        return {name: await tasks[name] for name in sinks}

    return Trial(run)


async def _turn_by_turn(turns: int) -> int:
    value = 0
    for _ in range(turns):
        value = await asyncio.create_task(add(value))
    return value


async def by_group(shape: Shape) -> Trial | None:
    """Make each leaf of a fan-out a task of one TaskGroup."""
    if not isinstance(shape, Dag) or shape.name != "fan-out":
        return None
    leaves = [shape.work(name) for name in shape.parents if name not in {SOURCE, JOIN}]

    async def run() -> dict[str, int]:
        value = await add()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leaf(value)) for leaf in leaves]
        return {JOIN: await add(*[task.result() for task in tasks])}

    return Trial(run)


async def by_turns(shape: Shape) -> Trial | None:
    """Await one node after the other, in the task that there is: the least that a loop or a chain costs."""
    if isinstance(shape, Dag) and shape.name != "chain":
        return None

    async def run() -> int | dict[str, int]:
        value = 0
        for _ in range(len(shape)):
            value = await add(value)
        return {shape.sinks[0]: value} if isinstance(shape, Dag) else value

    return Trial(run)
