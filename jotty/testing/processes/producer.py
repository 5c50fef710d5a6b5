"""A process that enqueues: one by one or many, with keys, dependencies and delays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from jotty.core.queue import NewTask, Ref, RetryPolicy
from jotty.testing.history import now_us

from .child import run_program

if TYPE_CHECKING:
    from .child import Child

__all__ = ["ProducerOptions"]


@attrs.frozen(kw_only=True)
class ProducerOptions:
    """What a producer does; a share is that of the tasks, from 0.0 to 1.0.

    Attributes:
        tasks: How many to enqueue.
        batch: How many in one call; with 1, each by a call of its own.
        lane: Their lane.
        keys: How many keys there are, of which each task has one; 0 for no keys.
        depends: The share that depends on the task before.
        delays: The share that is not to be run at once.
        longest: The longest delay, in seconds.
        max_attempts: How often a task may be tried.
        pause: Seconds between two calls.
        context: What each task has as its context.
        waits: Whether to wait for the word to go.
    """

    tasks: int = 1
    batch: int = 1
    lane: str = "default"
    keys: int = 0
    depends: float = 0.0
    delays: float = 0.0
    longest: float = 0.2
    max_attempts: int = 3
    pause: float = 0.0
    context: dict[str, object] = attrs.field(factory=dict)
    waits: bool = False


async def produce(child: Child[ProducerOptions]) -> None:
    """Enqueue what the options ask for, and tell of each task that was acknowledged."""
    options = child.options
    last: str | None = None
    if options.waits:
        await child.queue.stats()
        await child.go()
    for first in range(0, options.tasks, options.batch):
        if child.is_ending:
            return
        numbers = range(first, min(first + options.batch, options.tasks))
        batch = [_new(child, number, is_first=number == first, last=last) for number in numbers]
        async with child.patience():
            since = now_us()
            tasks = await child.queue.enqueue_many(batch)
            for new, task in zip(batch, tasks, strict=True):
                child.tell_enqueued(task, since, is_new=task.goal == new.goal)
            last = tasks[-1].id
        await anyio.sleep(options.pause)


def _new(child: Child[ProducerOptions], number: int, *, is_first: bool, last: str | None) -> NewTask:
    options, random = child.options, child.random
    batch, last_batch = number // options.batch, (options.tasks - 1) // options.batch
    size = options.batch if batch < last_batch else (options.tasks - 1) % options.batch + 1
    before = last if is_first else Ref(number % options.batch - 1)
    return NewTask(
        {"by": child.name, "number": number} | ({} if options.keys else {"batch": batch, "size": size}),
        options.context,
        lane=options.lane,
        key=f"key-{number % options.keys}" if options.keys else None,
        depends_on=[before] if before is not None and random.random() < options.depends else [],
        delay=random.random() * options.longest if random.random() < options.delays else None,
        max_attempts=options.max_attempts,
        retry=RetryPolicy(delay=0.02, cap=0.1),
    )


if __name__ == "__main__":
    run_program(produce, ProducerOptions)
