"""A process that forks while it has the store open: both use their handle, and the child a new one."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

import anyio

from jotty.core.queue import open_queue
from jotty.errors import QueueError
from jotty.testing.history import History

from .child import Order, tune

if TYPE_CHECKING:
    from jotty.core.queue import TaskQueue

PATIENCE = 10


def fork(order: Order) -> None:
    """Tell of the parent before, of the child with the old and a new handle, and of the parent afterwards."""
    signal.alarm(order.lifetime)
    tune(order.tuning)
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
    queue, history = open_queue(order.url), History(order.directory, order.name)

    def use(who: str, handle: TaskQueue) -> None:
        history.tell("used", by=who, outcome=anyio.run(_outcome, handle, backend=order.loop))

    use("parent", queue)
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        for who, handle in (("the old", queue), ("a new", open_queue(order.url))):
            use(f"child with {who} handle", handle)
            anyio.run(handle.aclose, backend=order.loop)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    history.tell("ended", by="child", outcome=os.waitstatus_to_exitcode(status))
    use("parent afterwards", queue)
    anyio.run(queue.aclose, backend=order.loop)


async def _outcome(queue: TaskQueue) -> str:
    try:
        await queue.enqueue("goal")
        (task,) = await queue.claim(worker="worker")
        return (await queue.complete(task, "result")).status
    except QueueError as error:
        return type(error).__name__


if __name__ == "__main__":
    fork(Order(**json.loads(sys.argv[1])))
