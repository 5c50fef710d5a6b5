"""The tasks that a worker has met and cannot run: left to others, never discarded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jotty.core.queue.retry import Random, RetryPolicy
from jotty.core.queue.task import TaskStatus
from jotty.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jotty.core.queue.clock import Clock
    from jotty.core.queue.task import Head, Task
    from jotty.errors import Unhandled

    from .keeper import Store

__all__ = ["UnhandledTasks"]

logger = logging.getLogger("jotty.queue")

# Doubling, the waits together are hardly longer than the task has been waiting already.
LEAVE_FOR: Final = RetryPolicy(delay=0.25, cap=60.0)
REVIEW_EVERY: Final = 10.0
MAX_KNOWN: Final = 1000


class UnhandledTasks:
    """Remembers which tasks were left, a thousand at most, and for how long to leave each the next time.

    Args:
        worker: Who leaves them.
        random: Where the jitter comes from.
        on_new: Called when there is one more.
    """

    def __init__(self, worker: str, random: Random, on_new: Callable[[], object]) -> None:
        self._worker = worker
        self._random = random
        self._on_new = on_new
        self._times: dict[str, int] = {}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._times

    def __bool__(self) -> bool:
        return bool(self._times)

    @property
    def ids(self) -> Sequence[str]:
        """Those that still wait, as far as is known; from any thread."""
        return tuple(self._times)

    def leave(self, task: Task, refusal: Unhandled) -> float:
        """Take note of a task that cannot be run here, and return the seconds for which to leave it.

        The first time a short while, in which whoever can run it gets it; then more and more, up to a minute.
        """
        times = self._times.pop(task.id, 0) + 1
        self._times[task.id] = times
        if times == 1:
            logger.warning("Task %s is left to other workers: %s", task.id, refusal.reason)
            if len(self._times) > MAX_KNOWN:
                self.forget(next(iter(self._times)))
            self._on_new()
        return LEAVE_FOR.backoff(times, self._random)

    def forget(self, task_id: str) -> None:
        """Take note that a task is not among them any more."""
        self._times.pop(task_id, None)

    async def review_on(self, store: Store, clock: Clock) -> None:
        """Forget those that others have taken up, or that are gone, every ten seconds until cancelled."""
        while True:
            await clock.sleep(REVIEW_EVERY)
            ids = self.ids
            if not ids:
                continue
            try:
                records = await (await store()).get(ids, payload=False)
            except QueueError as failure:
                logger.debug("The tasks left to others could not be looked at: %s", failure)
                continue
            for task_id, record in zip(ids, records, strict=True):
                if record is None or not self._waits(record.head):
                    self.forget(task_id)

    def _waits(self, head: Head) -> bool:
        if head.status is TaskStatus.IN_PROGRESS:
            return head.worker == self._worker  # which is just about to leave it again
        return head.status is TaskStatus.PENDING
