"""The tasks that a worker has met and cannot run: left to others, never discarded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs

from jotty.core.queue.backend import Query
from jotty.core.queue.clock import microseconds
from jotty.core.queue.retry import Random, RetryPolicy
from jotty.core.queue.task import TaskStatus
from jotty.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jotty.core.queue.backend import QueueBackend
    from jotty.core.queue.clock import Clock
    from jotty.core.queue.task import Head, Task
    from jotty.errors import Unhandled

    from .keeper import Store

__all__ = ["UnhandledTasks"]

logger = logging.getLogger("jotty.queue")

# Doubling, the waits together are hardly longer than the task has been waiting already.
FIRST: Final = 0.25
LONGEST_OF_FEW: Final = 5.0  # seconds; many are waited for longer, to bound the looks at all of them
LOOKS_PER_SECOND: Final = 10
LONGEST: Final = 60.0
REVIEW_EVERY: Final = 10.0
TELL_EVERY: Final = 60.0
MAX_KNOWN: Final = 1000
MAX_NAMED: Final = 3
MAX_PAGES: Final = 10


class UnhandledTasks:
    """Remembers which tasks were left, a thousand at most, and for how long to leave each the next time.

    The first is a warning in the log at once; the others are told together, once a minute and at the end.

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
        self._untold: list[str] = []
        self._reason = ""
        self._has_told = False

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

        The first time a short while, in which whoever can run it gets it; then more and more, up to 5
        seconds, or a minute where there are many.
        """
        is_full = len(self._times) >= MAX_KNOWN  # whatever is new now may have been known before
        times = self._times.pop(task.id, 0) + 1
        self._times[task.id] = times
        if times == 1:
            self._note(task.id, refusal.reason, is_told=not is_full)
        longest = min(max(LONGEST_OF_FEW, len(self._times) / LOOKS_PER_SECOND), LONGEST)
        policy = RetryPolicy(delay=LONGEST if is_full else FIRST, cap=longest)
        return policy.backoff(times, self._random)

    def _note(self, task_id: str, reason: str, *, is_told: bool) -> None:
        if is_told:
            level = logging.INFO if self._has_told else logging.WARNING
            logger.log(level, "Task %s is left to other workers: %s", task_id, reason)
            if self._has_told:
                self._untold.append(task_id)
            self._has_told, self._reason = True, reason
        if len(self._times) > MAX_KNOWN:
            self.forget(next(iter(self._times)))
        self._on_new()

    def tell(self) -> None:
        """Say how many more were left since it was said last; from any thread."""
        untold, self._untold = self._untold, []
        if not untold:
            return
        tasks = "1 more task is" if len(untold) == 1 else f"{len(untold)} more tasks are"
        some = ", ".join(untold[:MAX_NAMED])
        logger.warning("%s left to other workers, like %s: %s", tasks, some, self._reason)

    def forget(self, task_id: str) -> None:
        """Take note that a task is not among them any more."""
        self._times.pop(task_id, None)

    async def review_on(self, store: Store, clock: Clock) -> None:
        """Forget those that others have taken up, or that are gone, every ten seconds until cancelled."""
        tell_at = 0
        while True:
            await clock.sleep(clock.every(REVIEW_EVERY))
            if clock.now() >= tell_at:
                self.tell()
                tell_at = clock.now() + microseconds(TELL_EVERY)
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

    async def first_of_others(self, backend: QueueBackend, lanes: Sequence[str]) -> int | None:
        """Return when the first task can be claimed again that another worker has left, and this one has not.

        None if there is none; it is looked for among the first ten thousand waiting tasks of each lane. Who
        has left too many tasks to know them all does not look.
        """
        if len(self._times) >= MAX_KNOWN:
            return None
        found, latest = [], backend.now() + microseconds(LONGEST)
        for lane in lanes:
            query = Query(statuses=(TaskStatus.PENDING,), lane=lane)
            for _ in range(MAX_PAGES):
                page = await backend.find(query)
                found += [one.head.run_at for one in page if self._is_of_others(one.head, latest)]
                if len(page) < query.limit:
                    break
                query = attrs.evolve(query, after_seq=page[-1].head.seq)
        return min(found, default=None)

    def _is_of_others(self, head: Head, latest: int) -> bool:
        """Whether a waiting task was claimed and given back unused for a while, and not by this worker."""
        was_left = head.lease > 0 and head.attempt == 0 and not head.postponed and head.run_at <= latest
        return was_left and head.worker != self._worker and head.id not in self._times
