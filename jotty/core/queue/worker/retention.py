"""Deleting finished tasks that are older than anyone wants them, without getting in the way of work."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jotty.core.queue.backend import Query
from jotty.core.queue.clock import microseconds
from jotty.core.queue.reaper import reap
from jotty.core.queue.task import TERMINAL
from jotty.errors import QueueClosed, QueueError

if TYPE_CHECKING:
    from jotty.core.queue.backend import QueueBackend
    from jotty.core.queue.clock import Clock
    from jotty.core.queue.retry import Random

    from .keeper import Store

__all__ = ["Retention", "check_retention"]

logger = logging.getLogger("jotty.queue")

GO_EVERY: Final = 60.0  # seconds, of which a half is random, so that workers do not go together
BATCH: Final = 200
PAUSE: Final = 0.05  # seconds between two batches, in which claims and settlements get through


def check_retention(retention: object) -> None:
    """Refuse what is no time to keep finished tasks for.

    Raises:
        ValueError: It is neither None nor a timedelta above zero.
    """
    if retention is None or (isinstance(retention, timedelta) and retention > timedelta(0)):
        return
    raise ValueError(
        f"retention must be a timedelta above zero, like timedelta(days=7), not {retention!r}. "
        "None keeps finished tasks for ever."
    )


class Retention:
    """Deletes the tasks that ended longer ago than this, in small batches with pauses; never a live one.

    Any number of workers may: each task is deleted by one, and who finds another at it stops until later.

    Args:
        keep: How long finished tasks are kept.
        random: Spreads the workers over time.
    """

    def __init__(self, keep: timedelta, random: Random) -> None:
        self._keep = keep
        self._random = random
        self._is_failing = False

    async def delete_on(self, store: Store, clock: Clock) -> None:
        """Delete what is too old: soon, and then about every minute, until this is cancelled."""
        pause = GO_EVERY / 10
        while True:
            await clock.sleep(pause * (0.5 + self._random.random() / 2))
            pause = GO_EVERY
            try:
                await self._go(await store(), clock)
                self._is_failing = False
            except QueueClosed:
                return
            except QueueError as failure:
                level = logging.DEBUG if self._is_failing else logging.WARNING
                logger.log(level, "Old tasks could not be deleted, trying again later: %s", failure)
                self._is_failing = True

    async def _go(self, backend: QueueBackend, clock: Clock) -> None:
        before = backend.now() - microseconds(self._keep.total_seconds())
        deleted, is_more = 0, before > 0
        while is_more:
            found, gone = await _delete_batch(backend, before)
            deleted += gone
            # less than was found: another worker is at it
            is_more = found == gone == BATCH
            if is_more:
                await clock.sleep(PAUSE)
        if deleted:
            tasks = "1 task" if deleted == 1 else f"{deleted} tasks"
            logger.info("Deleted %s that ended more than %s ago.", tasks, _told(self._keep))


def _told(age: timedelta) -> str:
    """Return an age in the largest unit of which it is a whole number, as it may be given to the command."""
    seconds = age.total_seconds()
    units = ((86_400, "d"), (3_600, "h"), (60, "m"))
    return next((f"{seconds / size:g}{unit}" for size, unit in units if not seconds % size), f"{seconds:g}s")


async def _delete_batch(backend: QueueBackend, before: int) -> tuple[int, int]:
    """Return how many tasks were found, and how many were deleted here."""
    page = await backend.find(Query(statuses=TERMINAL, finished_before=before, limit=BATCH))
    if not page:
        return 0, 0
    await _settle_children(backend)
    gone = await backend.delete([(one.head.id, one.head.version) for one in page])
    return len(page), sum(gone)


async def _settle_children(backend: QueueBackend) -> None:
    """Have every blocked child see how the dependencies ended that are about to be deleted."""
    while await backend.find(Query(due_before=0, limit=1)):
        await reap(backend)
