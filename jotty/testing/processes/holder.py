"""A process that claims one task, waits for the word to go, and then tries every write under its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from jotty.errors import LeaseLost, QueueError

from .child import run_program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.core.queue import Task, TaskQueue

    from .child import Child

__all__ = ["WRITES", "HolderOptions"]

WRITES: Final[Mapping[str, Callable[[TaskQueue, Task], Awaitable[object]]]] = {
    "record": lambda queue, task: queue.record(task, [{"kind": "step"}]),
    "fail": lambda queue, task: queue.fail(task, "error"),
    "release": lambda queue, task: queue.release(task),
    "park": lambda queue, task: queue.park(task, ["question"]),
    "complete": lambda queue, task: queue.complete(task, "of the lost lease"),
}
SLACK: Final = 10.0  # seconds, until the lease of another is seen to be over


@attrs.frozen(kw_only=True)
class HolderOptions:
    """How to hold.

    Attributes:
        lease_timeout: Seconds that the lease lasts.
    """

    lease_timeout: float = 30.0


async def hold(child: Child[HolderOptions]) -> None:
    """Tell of each write, once told to go, whether it was `taken`, `lost` or an error of another name."""
    queue = child.queue
    (task,) = await queue.claim(
        worker=child.name, lease_timeout=child.options.lease_timeout, wait=child.options.lease_timeout + SLACK
    )
    await child.go()
    (renewed,) = await queue.heartbeat([task])
    child.history.tell(
        "tried", task.id, task.lease, write="heartbeat", outcome="taken" if renewed else "lost"
    )
    for name, write in WRITES.items():
        outcome = "taken"
        try:
            await write(queue, task)
        except LeaseLost:
            outcome = "lost"
        except QueueError as error:
            outcome = type(error).__name__
        child.history.tell("tried", task.id, task.lease, write=name, outcome=outcome)


if __name__ == "__main__":
    run_program(hold, HolderOptions)
