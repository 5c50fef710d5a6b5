"""A process with a QueueManager, whose handler sleeps, blocks, writes, fails or kills its process."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from jotty.core.queue import QueueManager

from .child import run_program

if TYPE_CHECKING:
    from jotty.core.queue import Task

    from .child import Child

__all__ = ["ManagerOptions"]


@attrs.frozen(kw_only=True)
class ManagerOptions:
    """How a managed worker works.

    A task's context may say otherwise for itself, by the names `seconds`, `blocks`, `records` and `fails`;
    one with `kills` true kills its worker as soon as it is begun.

    Attributes:
        max_concurrent: How many tasks run at once.
        lease_timeout: Seconds that a lease lasts.
        grace: Seconds that what runs may take to finish.
        seconds: How long the work on a task takes at most; it is a random part of it.
        blocks: How long it blocks the event loop, in seconds.
        records: How many journal entries to write for a task.
        fails: The share of attempts that fail, from 0.0 to 1.0.
        drain: Whether to end when the queue is empty.
    """

    max_concurrent: int = 3
    lease_timeout: float = 2.0
    grace: float = 5.0
    seconds: float = 0.02
    blocks: float = 0.0
    records: int = 0
    fails: float = 0.0
    drain: bool = False


class _Handler:
    def __init__(self, child: Child[ManagerOptions]) -> None:
        self._child = child

    async def __call__(self, task: Task) -> Any:
        child = self._child
        told = attrs.asdict(child.options) | task.context
        child.history.tell("started", task.id, task.lease)
        if told.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        for number in range(told["records"]):
            await child.queue.record(task, [{"kind": "step", "lease": task.lease, "number": number}])
        time.sleep(told["blocks"])  # noqa: ASYNC251 - some actors do, and must not lose their leases by it
        await anyio.sleep(child.random.random() * told["seconds"])
        child.history.tell("effect", task.id, task.lease)
        if child.random.random() < told["fails"]:
            raise RuntimeError("it was to fail")
        return {"by": child.name, "lease": task.lease}


async def manage(child: Child[ManagerOptions]) -> None:
    """Work until asked to end, or until the queue is empty."""
    options = child.options
    manager = QueueManager(
        child.queue,
        _Handler(child),
        max_concurrent=options.max_concurrent,
        lease_timeout=options.lease_timeout,
        grace=options.grace,
        worker=child.name,
    )

    async def stop_at_the_end() -> None:
        await child.ended()
        manager.stop()

    async with anyio.create_task_group() as group:
        group.start_soon(stop_at_the_end)
        await manager.run(drain=options.drain)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    run_program(manage, ManagerOptions)
