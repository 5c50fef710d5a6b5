"""How long after enqueue() has returned does the handler begin?"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Final

import anyio

from benchmarks.measuring import Figures
from benchmarks.peers import GOAL
from benchmarks.reporting import Answer, Table, Target
from benchmarks.workers import worker_process
from jotty.core.queue import QueueManager, open_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from benchmarks.setting import Setting
    from jotty.core.queue import Task, TaskQueue

__all__ = ["ask"]

Ping = Callable[[], Awaitable[float]]
Started = Callable[[], Awaitable[int]]
PATIENCE: Final = 10.0
WAKING: Final = 10_000.0


async def ask(setting: Setting) -> Answer:
    """Time starts in one process, then from one process to another, the stores in turns."""
    tables = []
    for title, schemes, ping_in in (
        ("in one process", ("memory", "sqlite", "file"), _in_process),
        ("across two processes", ("sqlite", "file"), _across_processes),
    ):
        setting.say(title)
        async with AsyncExitStack() as stack:
            pings = {
                f"jotty {scheme}": await stack.enter_async_context(ping_in(setting.url(scheme)))
                for scheme in setting.installed(schemes)
            }
            rows = await _take_turns(pings, setting.effort.pings)
        tables.append(Table(f"Start latency, {title}", rows, unit="µs", has_tail=True))
    targets = [
        Target(f"{name}, median start across processes", WAKING, figures.median, is_least=False, unit=" µs")
        for name, figures in tables[1].rows.items()
    ]
    return Answer(tables, targets)


async def _take_turns(pings: Mapping[str, Ping], rounds: int) -> dict[str, Figures]:
    """Ping each store once a round, after a pause that keeps step with no poll."""
    random = Random(rounds)
    taken: dict[str, list[float]] = {name: [] for name in pings}
    for _ in range(rounds):
        for name, ping in pings.items():
            await anyio.sleep(random.uniform(0.01, 0.05))
            taken[name].append(await ping())
    return {name: Figures(tuple(values)) for name, values in taken.items()}


@asynccontextmanager
async def _in_process(url: str) -> AsyncIterator[Ping]:
    tell, told = anyio.create_memory_object_stream[int](1)

    async def handler(_: Task) -> None:
        tell.send_nowait(time.perf_counter_ns())

    async with open_queue(url) as queue, tell, told, anyio.create_task_group() as group:
        manager = QueueManager(queue, handler)
        group.start_soon(manager.run)
        yield lambda: _ping(queue, told.receive)
        manager.stop()


@asynccontextmanager
async def _across_processes(url: str) -> AsyncIterator[Ping]:
    async with open_queue(url) as queue:
        await queue.stats()  # makes the store
        async with worker_process(url) as lines:

            async def started() -> int:
                return int(await lines.next())

            yield lambda: _ping(queue, started)


async def _ping(queue: TaskQueue, started: Started) -> float:
    """Return the microseconds from the return of enqueue() to the handler's first line."""
    await queue.enqueue(GOAL)
    returned = time.perf_counter_ns()
    with anyio.fail_after(PATIENCE):
        return (await started() - returned) / 1000
