"""What can be read of a queue through any handle, also while its store fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jotty.core.queue import MICROSECONDS, TaskQueue, TaskStatus
from jotty.errors import TaskCancelled, TaskFailed, TaskNotFound

from .arguments import KEYS, LANES, TAGS, faults, handles, tasks
from .expectation import UNKNOWN, Expectations, told_of

if TYPE_CHECKING:
    from typing import Any

    from jotty.core.queue import JournalEntry, QueueStats
    from jotty.testing.faults import Fault

__all__ = ["ReaderRules"]

S = TaskStatus
REFUSALS = {S.FAILED: TaskFailed, S.CANCELLED: TaskCancelled}


class ReaderRules(Expectations):
    """`get`, `tasks`, `stats`, `result` and `events`."""

    @rule(handle=handles, fault=faults, task_id=tasks)
    def get(self, handle: int, fault: Fault | None, task_id: str) -> None:
        """Read a task (C39)."""
        task = self.expect(handle, fault, lambda queue: queue.get(task_id))
        model = self.model.tasks.get(task_id)
        expected = None if model is None else model.told()
        assert task is UNKNOWN or expected == (None if task is None else told_of(task))

    @rule(
        handle=handles,
        fault=faults,
        status=st.sampled_from([None, "pending", "blocked", "failed"]),
        lane=st.sampled_from([None, *LANES]),
        tag=st.sampled_from([None, *TAGS]),
        key=st.sampled_from([None, *KEYS]),
    )
    def find(  # noqa: PLR0917 - called by hypothesis, by name
        self,
        handle: int,
        fault: Fault | None,
        status: str | None,
        lane: str | None,
        tag: str | None,
        key: str | None,
    ) -> None:
        """List the tasks that fulfil every condition, in the order of enqueue."""
        expected = [
            task.id
            for task in self.model.tasks.values()
            if status in {None, task.status}
            and lane in {None, task.lane}
            and key in {None, task.key}
            and (tag is None or tag in task.tags)
        ]
        found = self.expect(
            handle, fault, lambda queue: _ids(queue, status=status, lane=lane, tag=tag, key=key)
        )
        assert found in (expected, UNKNOWN)

    @rule(handle=handles, fault=faults)
    def stats(self, handle: int, fault: Fault | None) -> None:
        """Count the tasks, and see how long the oldest ready one has waited."""
        stats: QueueStats | object = self.expect(handle, fault, TaskQueue.stats)
        ages = {lane: self.model.oldest(lane, self.now) for lane in LANES}
        expected = {lane: age / MICROSECONDS for lane, age in ages.items() if age is not None}
        assert stats is UNKNOWN or expected == getattr(stats, "oldest", None)

    @rule(handle=handles, fault=faults, task_id=tasks)
    def result(self, handle: int, fault: Fault | None, task_id: str) -> None:
        """Ask for a result without waiting; whoever waits for one has policy look first."""
        self.reap(handle)
        model = self.model.tasks.get(task_id)
        error: Any = ()
        if model is None:
            error = TaskNotFound
        elif model.status is not S.COMPLETED:
            error = REFUSALS.get(model.status, TimeoutError)
        value = self.expect(handle, fault, lambda queue: queue.result(task_id, timeout=0), error=error)
        assert error or value is UNKNOWN or (model and model.result == value), "C28"

    @rule(handle=handles, fault=faults, task_id=tasks, after=st.integers(0, 5))
    def events(self, handle: int, fault: Fault | None, task_id: str, after: int) -> None:
        """Read a journal after a number; that of a task which is over is followed to its end (C37)."""
        model = self.model.tasks.get(task_id)
        follow = model is None or not model.status.is_terminal
        found = self.expect(
            handle,
            fault,
            lambda queue: _entries(queue, task_id, after, follow=not follow),
            error=() if model else TaskNotFound,
        )
        if model is None or found is UNKNOWN:
            return
        assert list(range(after + 1, model.entries + 1)) == [entry.number for entry in found]


async def _ids(queue: TaskQueue, **conditions: Any) -> list[str]:
    return [task.id async for task in queue.tasks(**conditions)]


async def _entries(queue: TaskQueue, task_id: str, after: int, *, follow: bool) -> list[JournalEntry]:
    return [entry async for entry in queue.events(task_id, after, follow=follow)]
