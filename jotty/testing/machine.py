"""A hypothesis state machine: a queue and a plain-Python model of it, side by side, call by call."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from jotty.core.queue import MICROSECONDS, QueueBackend, RetryPolicy, Task, TaskQueue, TaskStatus
from jotty.errors import InvalidState, KeyInUse, LeaseLost, TaskNotFound

from .clock import VirtualClock
from .model import BROKEN, QueueModel, TaskModel
from .moves import LIVE, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

__all__ = ["TaskQueueMachine", "task_queue_machine"]

RETRY = RetryPolicy(delay=2, factor=2, cap=1e6, jitter=0)
LANES = ["default", "other"]

lanes = st.sampled_from(LANES)
questions = st.sampled_from(["a", "b"])
handles = st.integers(0, 1)
endings = st.sampled_from(["complete", "fail", "fail for good", "release", "park", "nothing"])
_PASSED_ON = ("priority", "lane", "key", "max_attempts")


class TaskQueueMachine(RuleBasedStateMachine):
    """Every operation of a queue against a model, through two handles, on a virtual clock.

    Make one with `task_queue_machine`. Each example has an event loop (asyncio) and a store of its own.

    Attributes:
        new_store: Gives, for a clock, a function that opens a fresh store, again and again.
    """

    new_store: ClassVar[Callable[[VirtualClock], Callable[[], QueueBackend]]]

    tasks = Bundle("tasks")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = VirtualClock()
        self.model = QueueModel()
        self.open_backend = type(self).new_store(self.clock)
        self.queues = [self._open(number) for number in range(2)]
        self.opened = 2

    def _open(self, seed: int) -> TaskQueue:
        return TaskQueue(self.open_backend(), clock=self.clock, random=Random(seed))

    def teardown(self) -> None:
        """Close what is open."""
        for queue in self.queues:
            self.run(queue.aclose())
        self.runner.close()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Make a call on the example's event loop."""
        return self.runner.run(call)

    @property
    def now(self) -> int:
        """The store's time."""
        return self.clock.now()

    # Time and handles

    @rule(seconds=st.sampled_from([0.5, 1, 2, 4, 31, 3600]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.run(self.clock.advance(seconds))

    @rule(handle=handles)
    def reap(self, handle: int) -> None:
        """Have policy look at what is due."""
        self.run(self.queues[handle].reap())
        self.model.reap(self.now)

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        """Close a handle, and open another."""
        self.run(self.queues[handle].aclose())
        self.queues[handle] = self._open(self.opened)
        self.opened += 1

    # Producers

    @initialize(target=tasks)
    def first_tasks(self) -> Any:
        """Begin with two tasks."""
        return multiple(*(self._enqueue(0, {}) for _ in range(2)))

    @rule(
        target=tasks,
        handle=handles,
        priority=st.integers(1, 5),
        lane=lanes,
        delay=st.sampled_from([None, None, 0, 1, 30]),
        key=st.sampled_from([None, None, "k", "l"]),
        max_attempts=st.integers(1, 3),
        status=st.sampled_from(["pending", "pending", "pending", "backlog", "suggested"]),
    )
    def enqueue(self, handle: int, **options: Any) -> Any:
        """Enqueue a task."""
        return self._enqueue(handle, options)

    @rule(
        target=tasks,
        handle=handles,
        depends_on=st.lists(tasks, min_size=1, max_size=3),
        on_dependency=st.sampled_from(["fail", "fail", "cancel", "run"]),
        status=st.sampled_from(["pending", "pending", "backlog"]),
        max_attempts=st.integers(1, 2),
    )
    def enqueue_dependent(self, handle: int, **options: Any) -> Any:
        """Enqueue a task that depends on others."""
        return self._enqueue(handle, options)

    def _enqueue(self, handle: int, options: dict[str, Any]) -> Any:
        call = self.queues[handle].enqueue("goal", retry=RETRY, **options)
        holder = self.model.holder(options.get("key"))
        if holder is not None:
            assert holder.id == self.run(call).id, "C9: a live key gives its task"
            return multiple()
        depends_on = tuple(dict.fromkeys(options.get("depends_on", ())))
        if not all(one in self.model.tasks for one in depends_on):
            self._refused(call, TaskNotFound)
            return multiple()
        task = self.run(call)
        model = TaskModel(
            id=task.id,
            seq=self.model.enqueued + 1,
            status=TaskStatus(options.get("status", "pending")),
            depends_on=depends_on,
            run_at=self.now + int((options.get("delay") or 0) * MICROSECONDS),
            **{
                name: options[name] for name in ("priority", "lane", "key", "max_attempts") if name in options
            },
            on_dependency=options.get("on_dependency", "fail"),
        )
        self.model.add(model, self.now)
        return task.id

    # Workers

    @rule(
        target=claims,
        handle=handles,
        asked=st.sampled_from([["default"], ["other"], LANES]),
        limit=st.integers(1, 3),
        lease_timeout=st.sampled_from([1, 30, 5000]),
    )
    def claim(self, handle: int, asked: list[str], limit: int, lease_timeout: float) -> Any:
        """Claim tasks: those the model has first in line, and no other."""
        return multiple(*self._claim(handle, asked, limit, lease_timeout))

    @rule(target=claims, handle=handles, limit=st.integers(1, 2), ending=endings, again=endings)
    def work(self, handle: int, limit: int, ending: str, again: str) -> Any:
        """Claim tasks and settle them, perhaps twice."""
        claimed = self._claim(handle, LANES, limit, 30)
        for held in claimed:
            self._settle(handle, held, ending)
            self._settle(handle, held, again)
        return multiple(*claimed)

    def _claim(self, handle: int, asked: list[str], limit: int, lease_timeout: float) -> list[Task]:
        self.reap(handle)
        expected = self.model.ready(asked, self.now)[:limit]
        call = self.queues[handle].claim(worker="w", lanes=asked, limit=limit, lease_timeout=lease_timeout)
        claimed: list[Task] = self.run(call)

        assert [task.id for task in expected] == [task.id for task in claimed], "C12, C13, C14, C17"
        for task in expected:
            self.model.claim(task, self.now + int(lease_timeout * MICROSECONDS))
        return claimed

    def _settle(self, handle: int, held: Task, ending: str) -> None:
        if ending == "complete":
            self.complete(handle, held, 7)
        elif ending == "release":
            self.release(handle, held)
        elif ending == "park":
            self.park(handle, held, ["a"], None)
        elif ending != "nothing":
            self.fail(handle, held, retry=ending == "fail")

    @rule(handle=handles, held=st.lists(claims, max_size=3), lease_timeout=st.sampled_from([1, 30, 5000]))
    def heartbeat(self, handle: int, held: list[Task], lease_timeout: float) -> None:
        """Renew leases."""
        unique = list({task.id: task for task in held}.values())
        renewed = self.run(self.queues[handle].heartbeat(unique, lease_timeout=lease_timeout))
        until = self.now + int(lease_timeout * MICROSECONDS)
        for task, found in zip(unique, renewed, strict=True):
            model = self._held(task)
            assert (model is None) == (found is None), "C18: None stands for a lost lease, and for no other"
            if model is not None:
                model.lease_until = max(model.lease_until, until)
                assert model.cancel_requested == found.cancel_requested, "C20"

    @rule(handle=handles, held=claims, result=st.integers(0, 9))
    def complete(self, handle: int, held: Task, result: int) -> None:
        """Complete a task, perhaps again, perhaps too late."""
        model = self.model.tasks.get(held.id)
        call = self.queues[handle].complete(held, result)
        if model and model.status is TaskStatus.COMPLETED and model.lease == held.lease:
            assert model.result == self.run(call).result, "C29: the first result stays"
        elif self._may_settle(held, call):
            assert TaskStatus.COMPLETED is self.run(call).status
            self.model.complete(self.model.tasks[held.id], result, self.now)

    @rule(handle=handles, held=consumes(claims), retry=st.booleans())
    def fail(self, handle: int, held: Task, *, retry: bool) -> None:
        """Fail an attempt."""
        call = self.queues[handle].fail(held, "error", retry=retry)
        if self._may_settle(held, call):
            self.run(call)
            self.model.fail(self.model.tasks[held.id], self.now, retry=retry)

    @rule(handle=handles, held=consumes(claims))
    def release(self, handle: int, held: Task) -> None:
        """Give a task back."""
        call = self.queues[handle].release(held)
        if self._may_settle(held, call):
            self.run(call)
            self.model.release(self.model.tasks[held.id], self.now)

    @rule(
        handle=handles,
        held=claims,
        keys=st.lists(questions, min_size=1, max_size=2, unique=True),
        seconds=st.sampled_from([None, 1, 30]),
    )
    def park(self, handle: int, held: Task, keys: list[str], seconds: float | None) -> None:
        """Wait for an answer."""
        wall = datetime.fromtimestamp(self.clock.wall() / 1e6, UTC)
        until = None if seconds is None else wall + timedelta(seconds=seconds)
        call = self.queues[handle].park(held, keys, until=until)
        if self._may_settle(held, call):
            self.run(call)
            expires_at = None if seconds is None else self.now + int(seconds * MICROSECONDS)
            self.model.park(self.model.tasks[held.id], tuple(keys), expires_at, self.now)

    @rule(handle=handles, held=claims, number=st.integers(0, 3))
    def record(self, handle: int, held: Task, number: int) -> None:
        """Append to the journal."""
        call = self.queues[handle].record(held, [{"kind": "event"}] * number)
        if self._may_settle(held, call):
            model = self.model.tasks[held.id]
            model.entries += number
            assert model.entries == self.run(call), "C37: numbered without holes"

    def _held(self, task: Task) -> TaskModel | None:
        model = self.model.tasks.get(task.id)
        return model if model and model.holds(task.lease) else None

    def _may_settle(self, held: Task, call: Coroutine[Any, Any, Any]) -> bool:
        if self._held(held) is None:
            self._refused(call, LeaseLost)
            return False
        return True

    # Clients

    @rule(
        handle=handles,
        task_id=tasks,
        call=st.sampled_from(["cancel", "retry", "accept", "accept later", "reprioritise", "answer"]),
        priority=st.integers(1, 5),
        key=questions,
    )
    def ask(self, handle: int, task_id: str, call: str, priority: int, key: str) -> None:
        """Ask for something, whatever the task's state."""
        calls: dict[str, Callable[[], None]] = {
            "cancel": lambda: self._cancel(handle, task_id),
            "retry": lambda: self._retry(handle, task_id),
            "accept": lambda: self._accept(handle, task_id, run=True),
            "accept later": lambda: self._accept(handle, task_id, run=False),
            "reprioritise": lambda: self._reprioritise(handle, task_id, priority),
            "answer": lambda: self._answer(handle, task_id, key),
        }
        calls[call]()

    @precondition(lambda self: self.tasks_in(BROKEN))
    @rule(handle=handles, number=st.integers(0, 9))
    def retry_what_is_broken(self, handle: int, number: int) -> None:
        """Retry a task that has failed or was cancelled."""
        broken = self.tasks_in(BROKEN)
        self._retry(handle, broken[number % len(broken)].id)

    @precondition(lambda self: self.tasks_in({TaskStatus.BLOCKED}))
    @rule(handle=handles, number=st.integers(0, 9), key=questions)
    def answer_what_waits(self, handle: int, number: int, key: str) -> None:
        """Answer a task that is blocked."""
        blocked = self.tasks_in({TaskStatus.BLOCKED})
        self._answer(handle, blocked[number % len(blocked)].id, key)

    def tasks_in(self, statuses: Collection[TaskStatus]) -> list[TaskModel]:
        """Return the model's tasks in these states."""
        return [model for model in self.model.tasks.values() if model.status in statuses]

    def _cancel(self, handle: int, task_id: str) -> None:
        call = self.queues[handle].cancel(task_id)
        if model := self._known(task_id, call):
            assert self.model.cancel(model, self.now) == self.run(call), "C33"

    def _retry(self, handle: int, task_id: str) -> None:
        call = self.queues[handle].retry(task_id)
        if (model := self._known(task_id, call)) is None:
            return
        if not self.model.may_retry(model):
            self._refused(call, InvalidState)
        elif self.model.holder(model.key):
            self._refused(call, KeyInUse)
        else:
            self.model.retry(model, self.now)
            assert model.status is self.run(call).status, "C36"

    def _accept(self, handle: int, task_id: str, *, run: bool) -> None:
        call = self.queues[handle].accept(task_id, run=run)
        if model := self._known(task_id, call):
            if not self.model.may_accept(model, run=run):
                self._refused(call, InvalidState)
                return
            self.run(call)
            self.model.accept(model, self.now, run=run)

    def _reprioritise(self, handle: int, task_id: str, priority: int) -> None:
        call = self.queues[handle].reprioritise(task_id, priority)
        if model := self._known(task_id, call):
            if model.status in TERMINAL:
                self._refused(call, InvalidState)
                return
            self.run(call)
            model.priority = priority
            model.entries += 1

    def _answer(self, handle: int, task_id: str, key: str) -> None:
        call = self.queues[handle].answer(task_id, key, 1)
        if model := self._known(task_id, call):
            if self.model.answer(model, key):
                self.run(call)
            else:
                self._refused(call, InvalidState)

    @rule(handle=handles, task_id=consumes(tasks))
    def delete(self, handle: int, task_id: str) -> None:
        """Delete a task; before it does, a queue reaps."""
        self.reap(handle)
        call = self.queues[handle].delete(task_id)
        model = self.model.tasks.get(task_id)
        if model is None:
            assert False is self.run(call), "C39"
        elif model.status in LIVE:
            self._refused(call, InvalidState)
        else:
            assert True is self.run(call), "C34"
            self.model.delete(model)

    @rule(handle=handles, seconds=st.sampled_from([0, 2, 3600]))
    def purge(self, handle: int, seconds: float) -> None:
        """Delete what ended long ago; before it does, a queue reaps."""
        self.reap(handle)
        before = self.now - int(seconds * MICROSECONDS)
        old = [
            one for one in self.model.tasks.values() if one.status in TERMINAL and one.finished_at < before
        ]
        for model in old:
            self.model.delete(model)
        assert len(old) == self.run(self.queues[handle].purge(timedelta(seconds=seconds))), "C34"

    def _known(self, task_id: str, call: Coroutine[Any, Any, Any]) -> TaskModel | None:
        model = self.model.tasks.get(task_id)
        if model is None:
            self._refused(call, TaskNotFound)
        return model

    def _refused(self, call: Coroutine[Any, Any, Any], error: type[Exception]) -> None:
        try:
            self.run(call)
        except error:
            return
        raise AssertionError(f"{call!r} must raise {error.__name__}")

    # What always holds

    @invariant()
    def tasks_are_as_the_model_has_them(self) -> None:
        """Nothing lost, nothing twice, and every field as it must be (C5)."""
        found = self.run(_all(self.queues[0]))
        expected = [_told(model) for model in self.model.tasks.values()]

        assert expected == [_told_of(task) for task in found]
        assert self.model.enqueued - self.model.deleted == len(found)

    @invariant()
    def counts_are_true(self) -> None:
        """The counts equal the model's (C5)."""
        total = dict.fromkeys(TaskStatus, 0)
        for model in self.model.tasks.values():
            total[model.status] += 1

        assert total == self.run(self.queues[1].stats()).total

    @invariant()
    def keys_are_unique(self) -> None:
        """At most one live task has a key (C9)."""
        keys = [model.key for model in self.model.tasks.values() if model.key and model.status in LIVE]

        assert len(keys) == len(set(keys))

    @invariant()
    def journals_tell_each_end_once(self) -> None:
        """One terminal event for each terminal transition, and numbers without holes (C37)."""
        for model in self.model.tasks.values():
            entries = self.run(_journal(self.queues[1], model.id))
            assert list(range(1, model.entries + 1)) == [entry.number for entry in entries]
            assert model.ends == [entry.data["status"] for entry in entries if entry.kind == "end"]


async def _all(queue: TaskQueue) -> list[Task]:
    return [task async for task in queue.tasks()]


async def _journal(queue: TaskQueue, task_id: str) -> list[Any]:
    return [entry async for entry in queue.events(task_id, follow=False)]


def _told(model: TaskModel) -> dict[str, Any]:
    fields = ("id", "status", "priority", "lane", "key", "run_at", "lease", "attempt", "cancel_requested")
    told = {name: getattr(model, name) for name in (*fields, "awaiting", "answered", "finished_at")}
    until = model.lease_until if model.status is TaskStatus.IN_PROGRESS else 0
    return {**told, "lease_until": until, "result": model.result}


def _told_of(task: Task) -> dict[str, Any]:
    fields = ("id", "status", "priority", "lane", "key", "run_at", "lease", "attempt", "cancel_requested")
    told = {name: getattr(task.head, name) for name in (*fields, "awaiting", "answered", "finished_at")}
    return {**told, "lease_until": task.head.lease_until, "result": task.result}


def task_queue_machine(
    new_store: Callable[[VirtualClock], Callable[[], QueueBackend]],
) -> type[TaskQueueMachine]:
    """Return a state machine over a backend, to be run by `hypothesis.stateful.run_state_machine_as_test`.

    Its `TestCase` can be collected by pytest as well. Settings are left to the caller.

    Args:
        new_store: Called with the example's clock; gives a function that opens a fresh store, each time as
            another handle: `lambda clock: MemoryBackend(clock=clock).clone`.
    """
    return type("TaskQueueMachineOver", (TaskQueueMachine,), {"new_store": staticmethod(new_store)})
