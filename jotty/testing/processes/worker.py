"""A process that works without a QueueManager: claims, heartbeats and settles by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .child import run_program

if TYPE_CHECKING:
    from jotty.core.queue import Task

    from .child import Child

__all__ = ["WorkerOptions"]


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """What a bare worker does; a share is that of the tasks, from 0.0 to 1.0.

    Attributes:
        limit: How many tasks to claim at once; they are worked on one after the other.
        lease_timeout: Seconds that a lease lasts.
        seconds: How long the work on a task takes at most; it is a random part of it.
        heartbeats: Whether to renew the leases, three times in their length.
        fails: The share of attempts that fail.
        releases: The share that is given back.
        records: How many journal entries to write for a task, in calls of one to three.
        tasks: After how many tasks to end; 0 for no bound.
    """

    limit: int = 1
    lease_timeout: float = 2.0
    seconds: float = 0.02
    heartbeats: bool = True
    fails: float = 0.0
    releases: float = 0.0
    records: int = 0
    tasks: int = 0


class _Worker:
    def __init__(self, child: Child[WorkerOptions]) -> None:
        self._child = child
        self._options = child.options
        self._held: list[Task] = []
        self._worked = 0

    async def work(self) -> None:
        child, options = self._child, self._options
        while not child.is_ending and not 0 < options.tasks <= self._worked:
            async with child.patience():
                self._held = await child.queue.claim(
                    worker=child.name, limit=options.limit, lease_timeout=options.lease_timeout, wait=0.5
                )
            while self._held:
                async with child.patience():
                    await self._work_on(self._held[0])
                self._held = self._held[1:]
                self._worked += 1

    async def _work_on(self, task: Task) -> None:
        history = self._child.history
        history.tell("started", task.id, task.lease)
        await self._record(task)
        await self._take_time()
        history.tell("effect", task.id, task.lease)
        await self._settle(task)

    async def _record(self, task: Task) -> None:
        left = self._options.records
        while left > 0:
            number = min(self._child.random.randrange(1, 4), left)
            left -= number
            entry = {"kind": "step", "lease": task.lease, "of": number}
            await self._child.queue.record(task, [entry | {"number": at} for at in range(number)])

    async def _take_time(self) -> None:
        left = self._child.random.random() * self._options.seconds
        beat = self._options.lease_timeout / 3
        while left > beat:
            await anyio.sleep(beat)
            left -= beat
            if self._options.heartbeats:
                await self._child.queue.heartbeat(self._held, lease_timeout=self._options.lease_timeout)
        await anyio.sleep(left)

    async def _settle(self, task: Task) -> None:
        queue, chance = self._child.queue, self._child.random.random()
        if chance < self._options.fails:
            await queue.fail(task, "it was to fail")
        elif chance < self._options.fails + self._options.releases:
            await queue.release(task)
        else:
            await queue.complete(task, {"by": self._child.name, "lease": task.lease})


async def work(child: Child[WorkerOptions]) -> None:
    """Work until asked to end, or until so many tasks were worked on."""
    await _Worker(child).work()


if __name__ == "__main__":
    run_program(work, WorkerOptions)
