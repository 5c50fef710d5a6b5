"""C1 to C5, broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import LIVE, QueueState, TaskQueue, TaskStatus, lifecycle, task_queue

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches

S = TaskStatus


def test_c01_any_live_task_can_be_accepted(suite_catches: SuiteCatches) -> None:
    def accepted(accepted: Any, head: Any, parents: Any, *, run: bool) -> Any:
        return accepted(
            attrs.evolve(head, status=S.BACKLOG) if head.status in LIVE else head, parents, run=run
        )

    suite_catches(lifecycle, "accepted", accepted)


def test_c01_a_parked_task_is_pending(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "parked",
        lambda parked, head, now, **how: attrs.evolve(
            parked(head, now, **how), status=S.PENDING, awaiting=()
        ),
    )


def test_c01_a_failed_attempt_is_final(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle, "failed", lambda failed, head, now, **how: failed(head, now, **how | {"retry": False})
    )


def test_c02_what_is_completed_can_be_cancelled(suite_catches: SuiteCatches) -> None:
    def cancelled(cancelled: Any, head: Any, now: int) -> Any:
        return cancelled(attrs.evolve(head, status=S.PENDING) if head.status == "completed" else head, now)

    suite_catches(lifecycle, "cancelled", cancelled)


def test_c02_the_reaper_sweeps_up_what_is_over(suite_catches: SuiteCatches) -> None:
    async def reap(reap: Any, self: TaskQueue) -> int:
        for task in [task async for task in self.tasks() if task.status.is_terminal]:
            await self.backend.delete([(task.id, task.version)])
        moved: int = await reap(self)
        return moved

    suite_catches(TaskQueue, "reap", reap)


def test_c03_ids_begin_anew_once_their_tasks_are_gone(suite_catches: SuiteCatches) -> None:
    def new_records(new_records: Any, self: TaskQueue, batch: Any, payloads: Any) -> Any:
        return [
            attrs.evolve(record, head=attrs.evolve(record.head, id=f"task-{number}"))
            for number, record in enumerate(new_records(self, batch, payloads))
        ]

    suite_catches(TaskQueue, "_new_records", new_records)


def test_c03_ids_tell_nothing_of_the_time(suite_catches: SuiteCatches) -> None:
    suite_catches(
        task_queue, "_time_ordered_id", lambda _, wall, random: f"{random.getrandbits(62):016x} {wall}"
    )


def test_c04_what_precedes_a_wrong_entry_is_written(suite_catches: SuiteCatches) -> None:
    async def record(record: Any, self: TaskQueue, task: Any, entries: Any) -> int:
        last = 0
        for entry in entries:
            last = await record(self, task, [entry])
        return last

    suite_catches(TaskQueue, "record", record)


def test_c05_a_deleted_task_is_counted(suite_catches: SuiteCatches) -> None:
    def remove(remove: Any, self: QueueState, head: Any) -> None:
        remove(self, head)
        self._counts[head.lane, head.status] += 1

    suite_catches(QueueState, "_remove", remove)


def test_c05_counts_have_zeros(suite_catches: SuiteCatches) -> None:
    suite_catches(QueueState, "count", lambda _, self: dict(self._counts))
