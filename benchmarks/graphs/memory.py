"""What does a node take up while it waits?"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from benchmarks.graphs.contenders import ALONE, TASKS, WATCHED
from benchmarks.graphs.on_jotty import GOAL
from benchmarks.measuring import Figures
from benchmarks.reporting import Answer, Table, Target
from jotty import Actor, Conductor
from jotty.core.orchestration import GraphOrchestrator

if TYPE_CHECKING:
    from benchmarks.graphs.setting import Setting

__all__ = ["ask"]

ANYIO: Final = "one anyio task a node"
MOST: Final = 2200
TIMES: Final = 3  # what is allocated hardly differs from time to time

Hold: TypeAlias = Callable[[], Awaitable[object]]


async def ask(setting: Setting) -> Answer:
    """Have many nodes wait for one event, and see what was allocated since there was only their graph."""
    nodes = setting.size.nodes
    samples: dict[str, list[float]] = {name: [] for name in HOLDERS}
    for number in range(TIMES + 1):
        setting.say(f"time {number} of {TIMES}" if number else "warming up")
        for name, make in HOLDERS.items():
            taken = await _sample(make, nodes)
            if number:
                samples[name].append(taken)
    rows = {name: Figures(tuple(taken)) for name, taken in samples.items()}
    table = Table(f"Memory while {nodes} nodes wait", rows, {"x task": TASKS}, "time", "bytes a node")
    text = f"{table.title}: {WATCHED}"
    return Answer([table], [Target(text, MOST, rows[WATCHED].median, is_least=False, unit=" bytes a node")])


async def _sample(make: Callable[[_Gate, int], Hold], nodes: int) -> float:
    gate = _Gate(nodes)
    hold = make(gate, nodes)
    gc.collect()
    tracemalloc.start()
    try:
        running = asyncio.ensure_future(hold())
        await gate.full.wait()
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        gate.open.set()
        await running
    finally:
        tracemalloc.stop()
    return taken / nodes


class _Gate:
    """Holds all who come until it is opened."""

    def __init__(self, awaited: int) -> None:
        self._awaited = awaited
        self.open = asyncio.Event()
        self.full = asyncio.Event()

    async def pass_through(self) -> None:
        self._awaited -= 1
        if not self._awaited:
            self.full.set()
        await self.open.wait()


def _tasks(gate: _Gate, nodes: int) -> Hold:
    async def hold() -> None:
        tasks = [asyncio.create_task(gate.pass_through()) for _ in range(nodes)]
        for task in tasks:
            await task

    return hold


def _anyio_tasks(gate: _Gate, nodes: int) -> Hold:
    async def hold() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(nodes):
                group.start_soon(gate.pass_through)

    return hold


def _alone(gate: _Gate, nodes: int) -> Hold:
    orchestrator = _orchestrator(gate, nodes)
    return lambda: orchestrator.run(GOAL, max_iterations=nodes)


def _watched(gate: _Gate, nodes: int) -> Hold:
    orchestrator = _orchestrator(gate, nodes)

    async def hold() -> None:
        async with orchestrator.run_stream(GOAL, max_iterations=nodes) as stream:
            async for _ in stream:
                pass
            await stream.result()

    return hold


def _orchestrator(gate: _Gate, nodes: int) -> GraphOrchestrator:
    actors = [Actor(name=f"n{at}", call=gate.pass_through) for at in range(nodes)]
    orchestrator = GraphOrchestrator(Conductor(actors))
    orchestrator.graph(context={})
    return orchestrator


HOLDERS: Final = {TASKS: _tasks, ANYIO: _anyio_tasks, ALONE: _alone, WATCHED: _watched}
