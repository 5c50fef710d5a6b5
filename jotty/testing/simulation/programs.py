"""What the processes of a simulation do: produce, work, and change their minds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import NewTask, QueueManager, Ref, RetryLater, RetryPolicy
from jotty.errors import InvalidState, StorageError, TaskNotFound

if TYPE_CHECKING:
    from jotty.core.queue import Task

    from .process import SimulatedProcess

__all__ = ["SimulatedWorker", "change_minds", "produce"]

PAUSE: Final = 0.2
LARGEST_BATCH: Final = 5
RETRY: Final = RetryPolicy(delay=0.5, cap=5.0)


async def produce(process: SimulatedProcess, tasks: int) -> None:
    """Enqueue so many tasks, alone and in batches, with keys, delays and dependencies."""
    random, left, batch, last = process.random, tasks, 0, ""
    while left:
        size = min(random.randint(1, LARGEST_BATCH), left)
        left, batch = left - size, batch + 1
        new = [_new(process, batch, number, size, last) for number in range(size)]
        since = process.history.now()
        try:
            stored = await process.queue.enqueue_many(new)
        except StorageError:
            pass  # they are there, or not: the history does not tell
        else:
            for one, task in zip(new, stored, strict=True):
                _tell_enqueued(process, task, since, is_new=task.goal == one.goal)
            last = stored[-1].id
        await process.clock.sleep(random.random() * PAUSE)


def _new(process: SimulatedProcess, batch: int, number: int, size: int, last: str) -> NewTask:
    random = process.random
    before: str | Ref = Ref(number - 1) if number else last
    has_key = size == 1 and random.random() < 0.3
    goal: dict[str, Any] = {"by": process.name, "batch": batch, "number": number}
    return NewTask(
        goal if has_key else {**goal, "size": size},
        priority=random.choice([3, 3, 3, 1, 5]),
        key=f"key-{random.randrange(3)}" if has_key else None,
        depends_on=[before] if before and random.random() < 0.2 else [],
        on_dependency=random.choice(["fail", "cancel", "run"]),
        delay=random.random() * 5 if random.random() < 0.2 else None,
        max_attempts=random.randint(2, 5),
        retry=RETRY,
    )


def _tell_enqueued(process: SimulatedProcess, task: Task, since: int, *, is_new: bool) -> None:
    head = task.head
    process.history.tell(
        "enqueued",
        task.id,
        since=since,
        key=head.key,
        depends_on=list(head.depends_on),
        on_dependency=head.on_dependency,
        delay_us=max(head.run_at - head.created_at, 0) if is_new else 0,
        max_attempts=head.max_attempts,
        is_new=is_new,
    )


async def change_minds(process: SimulatedProcess, times: int) -> None:
    """Cancel tasks, or give them another priority, so many times, whatever their state."""
    for _ in range(times):
        await process.clock.sleep(process.random.random() * 2)
        try:
            ids = [task.id async for task in process.queue.tasks()]
            if not ids:
                continue
            task_id = process.random.choice(ids)
            if process.random.random() < 0.3:
                await process.queue.cancel(task_id)
            else:
                await process.queue.reprioritise(task_id, process.random.randint(1, 5))
        except (InvalidState, StorageError, TaskNotFound):
            pass  # others were faster, or nobody knows


class SimulatedWorker:
    """A `QueueManager` whose handler writes, takes its time, fails and postpones, as chance has it.

    Args:
        process: Where it works.
        max_concurrent: How many tasks it runs at once.
    """

    def __init__(self, process: SimulatedProcess, max_concurrent: int) -> None:
        self._process = process
        self._is_stopping = False
        self.manager = QueueManager(
            process.queue,
            self._handle,
            max_concurrent=max_concurrent,
            lease_timeout=process.world.lease,
            retention=None,
            worker=process.name,
            clock=process.clock,
            random=process.random,
        )

    def stop(self) -> None:
        """Have it end at once."""
        self._is_stopping = True
        self.manager.stop(0)

    async def work(self) -> None:
        """Work until stopped; begun anew where the store does not answer at the start."""
        while True:
            try:
                await self.manager.run()
            except StorageError:
                self._process.history.tell("error")
            else:
                return
            if self._process.is_dead or self._is_stopping:
                return
            await self._process.clock.sleep(PAUSE)

    async def _handle(self, task: Task) -> Any:
        process, random = self._process, self._process.random
        process.history.tell("started", task.id, task.lease)
        size = random.randint(0, 3)
        entries = [{"kind": "step", "number": number, "of": size} for number in range(size)]
        if entries:
            await process.queue.record(task, entries)
        await process.clock.sleep(random.expovariate(1.0))
        process.history.tell("effect", task.id, task.lease)
        chance = random.random()
        if chance < 0.05:
            raise RuntimeError("it was to fail")
        if chance < 0.1:
            raise RetryLater(random.random())
        return {"by": process.name, "lease": task.lease}
