"""The queue contract as plain Python, without a store: what a state machine compares a queue with."""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue import MICROSECONDS, TaskStatus

from .moves import LIVE, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["BROKEN", "MAX_POSTPONEMENTS", "TOLD", "QueueModel", "TaskModel"]

S = TaskStatus
BROKEN: Final = frozenset({S.FAILED, S.CANCELLED})
FIRST_WAIT: Final = 2 * MICROSECONDS
MAX_POSTPONEMENTS: Final = 2
TOLD: Final = (
    "id",
    "status",
    "priority",
    "lane",
    "key",
    "tags",
    "run_at",
    "lease",
    "worker",
    "attempt",
    "postponed",
    "cancel_requested",
    "awaiting",
    "answered",
    "finished_at",
)


@attrs.define(kw_only=True)
class TaskModel:
    """A task; the fields are those of a `Head`, and its result and the states in which it ended."""

    id: str
    seq: int
    status: TaskStatus
    priority: int = 3
    lane: str = "default"
    key: str | None = None
    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    on_dependency: str = "fail"
    run_at: int = 0
    max_attempts: int = 3
    lease: int = 0
    lease_until: int = 0
    worker: str | None = None
    attempt: int = 0
    postponed: int = 0
    cancel_requested: bool = False
    awaiting: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    expires_at: int | None = None
    created_at: int = 0
    finished_at: int = 0
    result: object = None
    entries: int = 0
    ends: list[TaskStatus] = attrs.field(factory=list)

    @property
    def place(self) -> tuple[int, int, int]:
        """Its place in line (C13)."""
        return self.priority, self.run_at, self.seq

    def holds(self, lease: int) -> bool:
        """Whether this lease is the current one (C18)."""
        return self.status is S.IN_PROGRESS and self.lease == lease

    def told(self) -> dict[str, Any]:
        """Return what a queue must tell of it."""
        until = self.lease_until if self.status is S.IN_PROGRESS else 0
        told = {name: getattr(self, name) for name in TOLD}
        return {**told, "lease_until": until, "result": self.result}

    def end(self, status: TaskStatus, now: int) -> None:
        """Make it terminal."""
        self.status, self.finished_at = status, now
        self.ends.append(status)
        self.awaiting, self.expires_at = (), None
        self.entries += 1


class QueueModel:
    """All tasks of a store, in plain dicts; every method looks at all of them."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskModel] = {}
        self.deleted = 0
        self.enqueued = 0
        self._fired: list[str] | None = None  # while moves of children are put off

    def copy(self) -> QueueModel:
        """Return another one with the same tasks."""
        return deepcopy(self)

    def told(self) -> list[dict[str, Any]]:
        """Return what a queue must tell of all tasks, in the order of enqueue."""
        return [task.told() for task in self.tasks.values()]

    def held(self, task_id: str, lease: int) -> TaskModel | None:
        """Return a task that is in progress under this lease (C18)."""
        task = self.tasks.get(task_id)
        return task if task and task.holds(lease) else None

    def live(self) -> int:
        """Return how many tasks are live (C11)."""
        return sum(task.status in LIVE for task in self.tasks.values())

    def holder(self, key: str | None) -> TaskModel | None:
        """Return the live task that has a key (C9)."""
        return next(
            (one for one in self.tasks.values() if key and one.key == key and one.status in LIVE), None
        )

    def add(self, tasks: Sequence[TaskModel], now: int) -> None:
        """Enqueue tasks (C35: blocked while a dependency is live)."""
        blocked = [task for task in tasks if task.depends_on and task.status is S.PENDING]
        for task in tasks:
            self.enqueued += 1
            self.tasks[task.id] = task
            task.created_at = now
        for task in blocked:
            task.status = S.BLOCKED
        for task in blocked:
            if task.status is S.BLOCKED:
                self._look_at(task, now)

    def ready(self, lanes: Collection[str], now: int) -> list[TaskModel]:
        """Return what may be claimed, in order (C12 to C17)."""
        found = (one for one in self.tasks.values() if one.status is S.PENDING and one.run_at <= now)
        return sorted((one for one in found if one.lane in lanes), key=lambda one: one.place)

    def oldest(self, lane: str, now: int) -> int | None:
        """Return for how long the oldest ready task of a lane could have been claimed; None without one."""
        since = [max(task.created_at, task.run_at) for task in self.ready([lane], now)]
        return now - min(since) if since else None

    def claim(
        self, lanes: Collection[str], limit: int, worker: str, lease_us: int, now: int
    ) -> list[TaskModel]:
        """Give the first tasks in line to a worker (C12, C13)."""
        claimed = self.ready(lanes, now)[:limit]
        for task in claimed:
            task.status, task.lease_until, task.worker = S.IN_PROGRESS, now + lease_us, worker
            task.lease += 1
            task.attempt += 1
        return claimed

    def complete(self, task: TaskModel, result: object, now: int) -> None:
        """C28."""
        task.result = result
        self._end(task, S.COMPLETED, now)

    def fail(self, task: TaskModel, now: int, *, retry: bool, delay_us: int | None = None) -> None:
        """C31, with the policy of 2 s, doubled each time, without jitter."""
        if task.cancel_requested:
            self._end(task, S.CANCELLED, now)
        elif retry and task.attempt < task.max_attempts:
            wait = FIRST_WAIT * 2 ** (task.attempt - 1) if delay_us is None else delay_us
            task.status, task.run_at, task.postponed = S.PENDING, now + wait, 0
        else:
            self._end(task, S.FAILED, now)

    def postpone(self, task: TaskModel, now: int, *, delay_us: int) -> None:
        """C31: `RetryLater`, so many times in a row."""
        if task.cancel_requested:
            self._end(task, S.CANCELLED, now)
        elif task.postponed >= MAX_POSTPONEMENTS:
            self._end(task, S.FAILED, now)
        else:
            task.status, task.run_at = S.PENDING, now + delay_us
            task.attempt -= 1
            task.postponed += 1

    def release(self, task: TaskModel, now: int, *, delay_us: int = 0) -> None:
        """C26."""
        if task.cancel_requested:
            self._end(task, S.CANCELLED, now)
        else:
            task.status = S.PENDING
            task.run_at = now + delay_us if delay_us else task.run_at
            task.attempt -= 1

    def park(self, task: TaskModel, keys: tuple[str, ...], expires_at: int | None, now: int) -> None:
        """C31, C38."""
        if task.cancel_requested:
            self._end(task, S.CANCELLED, now)
            return
        task.attempt -= 1
        task.postponed = 0
        if set(keys) & set(task.answered):
            task.status = S.PENDING
        else:
            task.status, task.awaiting, task.expires_at = S.BLOCKED, keys, expires_at

    def answer(self, task: TaskModel, key: str) -> bool:
        """C38; whether the answer is taken."""
        if task.status in TERMINAL or key in task.answered:
            return False
        task.answered += (key,)
        task.entries += 1
        if key in task.awaiting:
            task.status, task.awaiting, task.expires_at = S.PENDING, (), None
        return True

    def cancel(self, task: TaskModel, now: int) -> bool:
        """C33; whether the task was live."""
        if task.status in TERMINAL:
            return False
        if task.status is S.IN_PROGRESS:
            task.entries += not task.cancel_requested
            task.cancel_requested = True
        else:
            task.entries += 1
            self._end(task, S.CANCELLED, now)
        return True

    def may_retry(self, task: TaskModel) -> bool:
        """C36."""
        parents = [self.tasks.get(one) for one in task.depends_on]
        is_broken = any(parent is None or parent.status in BROKEN for parent in parents)
        return task.status in BROKEN and (task.on_dependency == "run" or not is_broken)

    def retry(self, task: TaskModel, now: int) -> None:
        """C36."""
        is_blocked = any(parent.status in LIVE for parent in self._parents(task))
        task.status = S.BLOCKED if is_blocked else S.PENDING
        task.run_at, task.attempt, task.finished_at, task.cancel_requested = now, 0, 0, False
        task.postponed = 0
        task.entries += 1

    def may_accept(self, task: TaskModel, *, run: bool) -> bool:
        """C1; one that depends on what is no longer there can't be accepted to run."""
        if not run:
            return task.status is S.SUGGESTED
        is_whole = all(one in self.tasks for one in task.depends_on)
        return task.status in {S.SUGGESTED, S.BACKLOG} and is_whole

    def accept(self, task: TaskModel, now: int, *, run: bool) -> None:
        """C1, C35."""
        task.entries += 1
        task.status = S.BLOCKED if run else S.BACKLOG
        if run:
            self._look_at(task, now)

    def reap(self, now: int) -> None:
        """C24, and questions that expire."""
        for task in list(self.tasks.values()):
            if task.status is S.IN_PROGRESS and task.lease_until <= now:
                if task.cancel_requested:
                    self._end(task, S.CANCELLED, now)
                elif task.attempt >= task.max_attempts:
                    self._end(task, S.FAILED, now)
                else:
                    task.status = S.PENDING
            elif task.expires_at is not None and task.expires_at <= now:
                task.status, task.awaiting, task.expires_at = S.PENDING, (), None

    def old(self, before: int) -> list[TaskModel]:
        """Return what ended before an instant (C34)."""
        return [task for task in self.tasks.values() if task.status in TERMINAL and task.finished_at < before]

    def delete(self, task: TaskModel) -> None:
        """C34."""
        del self.tasks[task.id]
        self.deleted += 1

    @contextmanager
    def children_later(self, now: int) -> Iterator[None]:
        """Have children move at the end of this, as they do after a worker's turn."""
        self._fired = []
        yield
        fired, self._fired = self._fired, None
        for task in fired:
            self._look_at_children(task, now)

    def _end(self, task: TaskModel, status: TaskStatus, now: int) -> None:
        task.end(status, now)
        if self._fired is None:
            self._look_at_children(task.id, now)
        else:
            self._fired.append(task.id)

    def _look_at_children(self, task_id: str, now: int) -> None:
        for child in list(self.tasks.values()):
            if task_id in child.depends_on and child.status is S.BLOCKED and not child.awaiting:
                self._look_at(child, now)

    def _look_at(self, task: TaskModel, now: int) -> None:
        """Decide about a task that depends on others (C35)."""
        states = [parent.status for parent in self._parents(task)]
        if task.on_dependency != "run" and BROKEN & set(states):
            self._end(task, S.FAILED if task.on_dependency == "fail" else S.CANCELLED, now)
        elif not LIVE & set(states):
            task.status = S.PENDING

    def _parents(self, task: TaskModel) -> Iterator[TaskModel]:
        return (self.tasks[one] for one in task.depends_on if one in self.tasks)
