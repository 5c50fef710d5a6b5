"""Hearing of cancels as soon as the backend can tell of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jotty.errors import QueueClosed, StorageError

from .outage import RECONNECT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from jotty.core.queue.backend import QueueBackend
    from jotty.core.queue.clock import Clock
    from jotty.core.queue.retry import Random

__all__ = ["hear_of_cancels"]

PATIENCE: Final = 60.0
PAUSE: Final = 0.1  # seconds: a busy store must not make us look more often


async def hear_of_cancels(
    backend: QueueBackend,
    worker: str,
    running: Callable[[], Collection[str]],
    stop_task: Callable[[str, str], object],
    *,
    clock: Clock,
    random: Random,
) -> None:
    """Have tasks stopped whose cancel is asked for, until this is cancelled or the queue is closed.

    Where the backend cannot tell, the lease keeper finds out later.

    Args:
        backend: The store.
        worker: Whose tasks these are.
        running: Gives the ids of the tasks that run.
        stop_task: Called with the id and "cancel".
        clock: Where waits come from.
        random: Where the jitter comes from while the store does not answer; that it does not, others say.
    """
    topic, failures, mark = f"worker:{worker}", 0, -1
    with suppress(QueueClosed):  # the others find out, and end the run
        while True:
            try:
                if mark == -1:
                    mark = await backend.wait(topic, mark, 0)
                mark = await backend.wait(topic, mark, clock.every(PATIENCE))
                for task_id in await _cancelled(backend, list(running())):
                    stop_task(task_id, "cancel")
                failures = 0
            except StorageError:
                failures += 1
            await clock.sleep(RECONNECT.backoff(failures, random) if failures else PAUSE)


async def _cancelled(backend: QueueBackend, ids: list[str]) -> list[str]:
    records = await backend.get(ids, payload=False) if ids else []
    return [record.head.id for record in records if record is not None and record.head.cancel_requested]
