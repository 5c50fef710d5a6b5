"""A worker in a process of its own, for the questions that need two.

Run: python -m benchmarks.worker_process URL [--idle SECONDS]

It prints, for each task, what the clock showed when it started, in nanoseconds; or, with --idle, for each
second the CPU time that it took, in percent of a core. Its first line, empty, says that it is there.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

import anyio

from jotty.core.queue import QueueManager, open_queue

if TYPE_CHECKING:
    from jotty.core.queue import Task

__all__: list[str] = []

SETTLING: Final = 0.5


def main() -> None:
    """Work until killed, or tell what idling costs."""
    parser = argparse.ArgumentParser(description="A worker for the benchmarks.")
    parser.add_argument("url")
    parser.add_argument("--idle", type=int, default=0, metavar="SECONDS")
    given = parser.parse_args()
    anyio.run(_work, given.url, given.idle)


async def _work(url: str, idle: int) -> None:
    async with open_queue(url) as queue, anyio.create_task_group() as group:
        manager = QueueManager(queue, _tell)
        group.start_soon(manager.run)
        await anyio.sleep(SETTLING)
        _say("")
        if idle:
            await _watch(idle)
            manager.stop()


async def _tell(_: Task) -> None:
    _say(str(time.perf_counter_ns()))  # one clock for all processes of the machine


async def _watch(seconds: int) -> None:
    for _ in range(seconds):
        wall, cpu = time.perf_counter(), time.process_time()
        await anyio.sleep(1)
        _say(str(100 * (time.process_time() - cpu) / (time.perf_counter() - wall)))


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
