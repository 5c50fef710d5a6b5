"""What clients ask of a queue, whatever the task's state."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import consumes, precondition, rule

from jotty.core.queue import TaskStatus, microseconds
from jotty.errors import InvalidState, KeyInUse, TaskNotFound
from jotty.testing.model import BROKEN
from jotty.testing.moves import LIVE, TERMINAL

from .arguments import faults, handles, questions, tasks
from .expectation import UNKNOWN, Expectations

if TYPE_CHECKING:
    from typing import Any

    from jotty.testing.faults import Fault
    from jotty.testing.model import QueueModel

    from .expectation import Call, Effect

__all__ = ["ClientRules"]

places = st.integers(0, 9)
priorities = st.sampled_from([3, 1, 2, 4, 5])


class ClientRules(Expectations):
    """`cancel`, `retry`, `accept`, `reprioritise`, `answer`, `delete` and `purge`."""

    @rule(handle=handles, fault=faults, task_id=tasks)
    def cancel(self, handle: int, fault: Fault | None, task_id: str) -> None:
        """Cancel a task (C33)."""
        was_live = task_id in {task.id for task in self.tasks_in(LIVE)}
        told = self._demand(
            handle,
            fault,
            task_id,
            lambda queue: queue.cancel(task_id),
            lambda model: model.cancel(model.tasks[task_id], self.now),
        )
        assert not isinstance(told, bool) or told == was_live, "C33: whether it was live"

    @rule(handle=handles, fault=faults, task_id=tasks)
    def retry(self, handle: int, fault: Fault | None, task_id: str) -> None:
        """Retry a task, most often one that can't be."""
        self._retry(handle, fault, task_id)

    @precondition(lambda self: self.tasks_in(BROKEN))
    @rule(handle=handles, fault=faults, place=places)
    def retry_what_is_broken(self, handle: int, fault: Fault | None, place: int) -> None:
        """Retry a task that has failed or was cancelled."""
        broken = self.tasks_in(BROKEN)
        self._retry(handle, fault, broken[place % len(broken)].id)

    def _retry(self, handle: int, fault: Fault | None, task_id: str) -> None:
        error: type[Exception] | None = None
        if model := self.model.tasks.get(task_id):
            if not self.model.may_retry(model):
                error = InvalidState
            elif self.model.holder(model.key):
                error = KeyInUse
        self._demand(
            handle,
            fault,
            task_id,
            lambda queue: queue.retry(task_id),
            lambda model: model.retry(model.tasks[task_id], self.now),
            error=error,
        )

    @rule(handle=handles, fault=faults, task_id=tasks, run=st.booleans())
    def accept(self, handle: int, fault: Fault | None, task_id: str, *, run: bool) -> None:
        """Let a task run that waits for that, or put it in the backlog."""
        model = self.model.tasks.get(task_id)
        self._demand(
            handle,
            fault,
            task_id,
            lambda queue: queue.accept(task_id, run=run),
            lambda model: model.accept(model.tasks[task_id], self.now, run=run),
            error=None if model and self.model.may_accept(model, run=run) else InvalidState,
        )

    @rule(handle=handles, fault=faults, task_id=tasks, priority=priorities)
    def reprioritise(self, handle: int, fault: Fault | None, task_id: str, priority: int) -> None:
        """Give a task another priority."""

        def effect(model: QueueModel) -> None:
            model.tasks[task_id].priority = priority
            model.tasks[task_id].entries += 1

        is_over = task_id in {task.id for task in self.tasks_in(TERMINAL)}
        self._demand(
            handle,
            fault,
            task_id,
            lambda queue: queue.reprioritise(task_id, priority),
            effect,
            error=InvalidState if is_over else None,
        )

    @rule(handle=handles, fault=faults, task_id=tasks, key=questions)
    def answer(self, handle: int, fault: Fault | None, task_id: str, key: str) -> None:
        """Answer a question, asked or yet to be asked."""
        self._answer(handle, fault, task_id, key)

    @precondition(lambda self: self.tasks_in({TaskStatus.BLOCKED}))
    @rule(handle=handles, fault=faults, place=places, key=questions)
    def answer_what_waits(self, handle: int, fault: Fault | None, place: int, key: str) -> None:
        """Answer a task that is blocked."""
        blocked = self.tasks_in({TaskStatus.BLOCKED})
        self._answer(handle, fault, blocked[place % len(blocked)].id, key)

    def _answer(self, handle: int, fault: Fault | None, task_id: str, key: str) -> None:
        model = self.model.tasks.get(task_id)
        is_taken = model is not None and model.status in LIVE and key not in model.answered
        self._demand(
            handle,
            fault,
            task_id,
            lambda queue: queue.answer(task_id, key, 1),
            lambda model: model.answer(model.tasks[task_id], key),
            error=None if is_taken else InvalidState,
        )

    def _demand(
        self,
        handle: int,
        fault: Fault | None,
        task_id: str,
        call: Call,
        effect: Effect,
        *,
        error: type[Exception] | None = None,
    ) -> Any:
        """Ask for something, which is refused if there is no such task (C39)."""
        if task_id not in self.model.tasks:
            error = TaskNotFound
        return self.expect(handle, fault, call, effect, error=error or ())

    @rule(handle=handles, fault=faults, task_id=consumes(tasks))
    def delete(self, handle: int, fault: Fault | None, task_id: str) -> None:
        """Delete a task; before it does, a queue reaps."""
        self.reap(handle)
        model = self.model.tasks.get(task_id)
        call: Call = lambda queue: queue.delete(task_id)  # noqa: E731 - it reads as what it is
        if model is None:
            told = self.expect(handle, fault, call)
            assert told in {False, UNKNOWN}, "C39: there is no such task"
        elif model.status in LIVE:
            self.expect(handle, fault, call, error=InvalidState)
        else:
            told = self.expect(handle, fault, call, lambda model: model.delete(model.tasks[task_id]))
            assert told in {True, UNKNOWN}, "C34: it was over"

    @rule(handle=handles, fault=faults, seconds=st.sampled_from([0, 2, 3600]))
    def purge(self, handle: int, fault: Fault | None, seconds: float) -> None:
        """Delete what ended long ago; before it does, a queue reaps."""
        self.reap(handle)
        before = self.now - microseconds(seconds)
        number = len(self.model.old(before))

        def effect(model: QueueModel) -> None:
            for task in model.old(before):
                model.delete(task)

        told = self.expect(handle, fault, lambda queue: queue.purge(timedelta(seconds=seconds)), effect)
        assert told in {number, UNKNOWN}, f"C34: {number} tasks ended long ago"
