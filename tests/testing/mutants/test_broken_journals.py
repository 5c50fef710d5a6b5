"""C37 and C38, broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from anyio.lowlevel import checkpoint

from jotty.core.queue import Change, QueueState, Record, TaskQueue, lifecycle, reaper, state
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches


def test_c37_a_journal_with_a_hole(suite_catches: SuiteCatches) -> None:
    def read(read: Any, self: QueueState, task_id: str, after: int = 0, limit: int = 1000) -> Any:
        return [(number + (number > 2), data) for number, data in read(self, task_id, after, limit)]

    suite_catches(QueueState, "read", read)


def test_c37_a_journal_that_begins_anew_with_each_lease(suite_catches: SuiteCatches) -> None:
    def claimed(claimed: Any, head: Any, **how: Any) -> Any:
        return attrs.evolve(claimed(head, **how), progress=(head.lease + 1, 0))

    def put(put: Any, self: QueueState, head: Any) -> None:
        if head.status == "in_progress" and self._heads[head.id].status == "pending":
            self._journals.pop(head.id, None)
        put(self, head)

    suite_catches(QueueState, "_put", put)


def test_c37_a_journal_that_a_lost_lease_may_write_to(suite_catches: SuiteCatches) -> None:
    suite_catches(state, "_is_held", lambda _, head, lease: head.status == "in_progress")


def test_c37_an_end_that_the_reaper_does_not_tell(suite_catches: SuiteCatches) -> None:
    def change(change: Any, *heads: Any, **how: Any) -> Any:
        return attrs.evolve(change(*heads, **how), entries=())

    suite_catches(reaper, "change", change)


def test_c37_two_ends_for_one(suite_catches: SuiteCatches) -> None:
    async def complete(complete: Any, self: TaskQueue, task: Any, result: Any = None) -> Any:
        done = await complete(self, task, result)
        again = attrs.evolve(done.head, version=done.version + 1)
        entries = [b'{"kind":"end","status":"completed","time":1,"attempt":1}']
        await self.backend.swap([Change(done.version, Record(again), entries)])
        return done

    suite_catches(TaskQueue, "complete", complete)


def test_c37_a_client_call_that_is_told_later(suite_catches: SuiteCatches) -> None:
    async def swap(swap: Any, self: MemoryBackend, changes: Any) -> Any:
        swapped = await swap(self, [attrs.evolve(one, entries=()) for one in changes])
        await checkpoint()
        for change, done in zip(changes, swapped, strict=True):
            if done.outcome == "ok" and change.entries:
                later = attrs.evolve(done.record.head, version=done.record.head.version + 1)
                told = Change(done.record.head.version, Record(later), change.entries)
                await swap(self, [told])
        return swapped

    suite_catches(MemoryBackend, "swap", swap)


def test_c37_reading_after_a_number_leaves_one_out(suite_catches: SuiteCatches) -> None:
    def read(read: Any, self: QueueState, task_id: str, after: int = 0, limit: int = 1000) -> Any:
        return read(self, task_id, after + (after > 0), limit)

    suite_catches(QueueState, "read", read)


def test_c38_a_task_that_parks_beside_its_answer(suite_catches: SuiteCatches) -> None:
    def parked(parked: Any, head: Any, now: int, **how: Any) -> Any:
        return attrs.evolve(parked(attrs.evolve(head, answered=()), now, **how), answered=head.answered)

    suite_catches(lifecycle, "parked", parked)


def test_c38_an_answer_that_wakes_nobody(suite_catches: SuiteCatches) -> None:
    def answered(answered: Any, head: Any, key: str) -> Any:
        after = answered(head, key)
        return attrs.evolve(after, status=head.status, awaiting=head.awaiting)

    suite_catches(lifecycle, "answered", answered)


def test_c38_a_question_that_never_expires(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle, "parked", lambda parked, head, now, **how: parked(head, now, **how | {"until": None})
    )


def test_c38_the_last_answer_stands(suite_catches: SuiteCatches) -> None:
    def answered(answered: Any, head: Any, key: str) -> Any:
        return answered(attrs.evolve(head, answered=tuple(one for one in head.answered if one != key)), key)

    suite_catches(lifecycle, "answered", answered)
