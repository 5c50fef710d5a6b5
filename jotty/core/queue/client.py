"""What clients ask of a task queue: cancel, retry, accept, reorder, answer, delete, purge, reap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jotty.errors import InvalidState, KeyInUse, TaskNotFound

from . import journal, lifecycle
from .backend import Outcome, Query, Swapped
from .clock import microseconds
from .reading import QueueReader
from .reaper import examine_all
from .record import change
from .task import LIVE, TERMINAL, Head, Task, TaskStatus, check_name, check_priority, may_exist

if TYPE_CHECKING:
    from .backend import QueueBackend
    from .clock import Clock

__all__ = ["QueueClient"]

PURGED_AT_ONCE = 200  # a step of a few milliseconds, between which others get their turn
Move = Callable[[Head, "Sequence[Head | None]", int], "Head | None"]


class QueueClient(QueueReader):
    """What those ask of a queue who have not claimed the task. People hold its child, `TaskQueue`."""

    def __init__(self, backend: QueueBackend, clock: Clock, max_payload: int) -> None:
        super().__init__(backend, clock)
        self.max_payload = max_payload

    async def cancel(self, id: str) -> bool:  # noqa: A002
        """Cancel a task: at once if it waits, else by asking its worker.

        The worker learns of it at once where the backend can wake it (from other processes, see the
        backend), else at its next heartbeat, at most a third of its lease later, and stops the task; one that
        completes meanwhile stays completed.

        Returns:
            Whether the task was live.

        Raises:
            TaskNotFound: There is no such task.
        """
        head, is_changed = await self._rewrite(
            id,
            lambda head, _, now: lifecycle.cancelled(head, now),
            lambda now: journal.client_call("cancel", now),
        )
        return is_changed or head.status is TaskStatus.IN_PROGRESS

    async def retry(self, id: str) -> Task:  # noqa: A002
        """Start a failed or cancelled task afresh, with all its attempts; blocked if dependencies are live.

        Raises:
            InvalidState: It is neither, or a task it depends on failed, was cancelled or is missing.
            KeyInUse: Another live task has its key.
            TaskNotFound: There is no such task.
        """
        await self._rewrite(
            id,
            lambda head, parents, _: lifecycle.retried(head, parents),
            lambda now: journal.client_call("retry", now),
        )
        return await self._moved(id)

    async def accept(self, id: str, *, run: bool = True) -> Task:  # noqa: A002
        """Let a suggested or backlog task run; without `run`, only move a suggested one to the backlog.

        Raises:
            InvalidState: It is neither.
            TaskNotFound: There is no such task.
        """
        await self._rewrite(
            id,
            lambda head, parents, _: lifecycle.accepted(head, parents, run=run),
            lambda now: journal.client_call("accept", now, run=run),
        )
        return await self._moved(id)

    async def reprioritise(self, id: str, priority: int) -> Task:  # noqa: A002
        """Give a live task another priority, from 1 (most urgent) to 5.

        Raises:
            InvalidState: It is over.
            TaskNotFound: There is no such task.
            ValueError: That is no priority.
        """
        check_priority(priority)
        await self._rewrite(
            id,
            lambda head, _, __: lifecycle.reprioritised(head, priority),
            lambda now: journal.client_call("reprioritise", now, priority=priority),
        )
        return await self._moved(id)

    async def answer(self, id: str, key: str, value: Any) -> Task:  # noqa: A002
        """Answer a question of a live task, asked or yet to be asked; one that waits for it is pending again.

        Answer and wake-up are one atomic step. The first answer stands.

        Raises:
            InvalidState: The task is over, or the question has its answer.
            PayloadError: The value is not strict JSON, or longer than `max_payload`.
            TaskNotFound: There is no such task.
        """
        check_name("a question's key", key)
        journal.answer(key, value, 0, self.max_payload)
        await self._rewrite(
            id,
            lambda head, _, __: lifecycle.answered(head, key),
            lambda now: journal.answer(key, value, now, self.max_payload),
        )
        return await self._moved(id)

    async def delete(self, id: str) -> bool:  # noqa: A002
        """Delete a task that is over, with its journal; False if there is none with this id.

        Raises:
            InvalidState: The task is live.
        """
        backend = await self._open()
        while may_exist(id) and (record := (await backend.get([id], payload=False))[0]):
            head = record.head
            if head.status in LIVE:
                raise InvalidState(id, head.status, "delete", "it is live. Cancel it first")
            await self._examine_fired()
            if (await backend.delete([(id, head.version)]))[0]:
                return True
        return False

    async def purge(self, older_than: timedelta) -> int:
        """Delete the tasks that ended longer ago than this, in small batches, and return how many."""
        if not isinstance(older_than, timedelta) or older_than < timedelta(0):
            raise ValueError(f"older_than must be a timedelta >= 0, not {older_than!r}.")
        backend = await self._open()
        before = max(backend.now() - microseconds(older_than.total_seconds()), 0)
        deleted = 0
        over = Query(statuses=TERMINAL, finished_before=before, limit=PURGED_AT_ONCE)
        while page := await backend.find(over):
            await self._examine_fired()
            gone = sum(await backend.delete([(one.head.id, one.head.version) for one in page]))
            deleted += gone
            if not gone:
                break
        return deleted

    async def _examine_fired(self) -> None:
        """Have every blocked child see how the dependencies ended that are about to be deleted."""
        while await self.backend.find(Query(due_before=0, limit=1)):
            await self.reap()

    async def _rewrite(self, task_id: str, move: Move, entry: Callable[[int], bytes]) -> tuple[Head, bool]:
        """Make a client's move, read again and again until nobody else came between; tell it in the journal.

        Returns:
            The head as it is now, and whether this call changed it.
        """
        backend = await self._open()
        while True:
            head = (await self._existing(task_id, payload=False)).head
            parents = await backend.get(head.depends_on, payload=False) if head.depends_on else []
            now = backend.now()
            moved = move(head, [parent.head if parent else None for parent in parents], now)
            if moved is None:
                return head, False
            swapped = (await backend.swap([change(head, moved, entries=[entry(now)])]))[0]
            if swapped.outcome is Outcome.KEY_TAKEN and swapped.record and head.key:
                raise KeyInUse(head.key, swapped.record.head.id)
            if swapped.outcome is Outcome.OK and swapped.record:
                await self._drain(swapped)
                return swapped.record.head, True

    async def _moved(self, task_id: str) -> Task:
        """Return a task that was moved; be it damaged, it was moved all the same."""
        record = (await self.backend.get([task_id]))[0]
        if record is None:
            raise TaskNotFound(task_id)
        return self._shown(record)

    async def _drain(self, swapped: Swapped) -> None:
        """Have policy look at what a swap fired, and at the task itself if it became due by it."""
        ids = list(swapped.fired)
        if swapped.record and swapped.record.head.due == 0:
            ids.append(swapped.record.head.id)
        if ids:
            records = await self.backend.get(ids, payload=False)
            await examine_all(self.backend, [record.head for record in records if record])
