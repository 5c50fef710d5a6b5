"""Gives back, from beside a blocked event loop, what the loop can't give back itself."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import anyio

from jotty.core.queue import lifecycle
from jotty.core.queue.loop import EventLoop
from jotty.core.queue.record import change
from jotty.core.queue.task import TaskStatus
from jotty.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from jotty.core.queue.backend import QueueBackend
    from jotty.core.queue.clock import Clock

    from .keeper import Store

__all__ = ["Rescue"]

logger = logging.getLogger("jotty.queue")

ANSWER_WITHIN: Final = 0.2  # seconds; the loop releases at the end of the grace time itself, if it can
LOOK_AGAIN: Final = 0.1


class Rescue:
    """Releases the tasks of a worker whose grace time is over while an actor blocks its event loop (C49).

    To be made on that loop. What the loop does for the tasks later is refused by the store: their leases
    are over.

    Args:
        held: The leases, by task; those that are released are taken out.
        on_released: Called when that was done.
    """

    def __init__(self, held: MutableMapping[str, int], on_released: Callable[[], object]) -> None:
        self._held = held
        self._on_released = on_released
        self._owner = EventLoop()
        self._until: float | None = None
        self._is_told: anyio.Event | None = None
        self._is_answered = False
        self._is_failing = False

    def stop_after(self, grace: float) -> None:
        """Have what is held then released, if the loop doesn't; from any thread, and the earliest counts."""
        until = time.monotonic() + grace
        self._until = until if self._until is None else min(self._until, until)

    def wake(self) -> None:
        """Take note that `stop_after` was called; from the loop that runs `wait_on`."""
        if self._is_told is not None:
            self._is_told.set()

    async def wait_on(self, store: Store, clock: Clock) -> None:
        """Wait for the end of the grace time, then see to it that every task is given back."""
        self._is_told = anyio.Event()
        if self._until is None:
            await self._is_told.wait()
        while self._until is not None and time.monotonic() < self._until:
            await clock.sleep(LOOK_AGAIN)
        while True:
            if self._held and not await self._loop_answers(clock):
                try:
                    await self._release(await store())
                    self._on_released()
                except QueueError as failure:
                    self._tell(failure)
            await clock.sleep(LOOK_AGAIN)

    async def _loop_answers(self, clock: Clock) -> bool:
        self._is_answered = False
        self._owner.call_soon(self._answer)
        with anyio.move_on_after(ANSWER_WITHIN):
            while not self._is_answered:
                await clock.sleep(ANSWER_WITHIN / 10)
        return self._is_answered

    def _answer(self) -> None:
        self._is_answered = True

    def _tell(self, failure: QueueError) -> None:
        level = logging.DEBUG if self._is_failing else logging.WARNING
        logger.log(level, "%d tasks could not be given back, trying again: %s", len(self._held), failure)
        self._is_failing = True

    async def _release(self, backend: QueueBackend) -> None:
        leases = dict(self._held)
        records = await backend.get(list(leases), payload=False)
        heads = [record.head for record in records if record is not None]
        mine = [
            head for head in heads if head.status is TaskStatus.IN_PROGRESS and head.lease == leases[head.id]
        ]
        changes = [change(head, lifecycle.released(head, backend.now())) for head in mine]
        swapped = await backend.swap(changes) if changes else []
        stale = {one.record.head.id for one in swapped if one.outcome != "ok" and one.record}
        for task_id, lease in leases.items():
            if task_id not in stale and self._held.get(task_id) == lease:
                self._held.pop(task_id, None)
        for head in mine:
            if head.id not in stale:
                logger.warning("Task %s is released: the event loop is blocked and its time up.", head.id)
