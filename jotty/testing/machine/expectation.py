"""Two handles on a store beside the model of it: what a call must do, and what it may have done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import attrs
from hypothesis.stateful import RuleBasedStateMachine

from jotty.core.queue import QueueBackend, Task, TaskQueue
from jotty.errors import JottyError, StorageError
from jotty.testing.clock import VirtualClock
from jotty.testing.faults import Fault, FaultyBackend
from jotty.testing.model import TOLD, QueueModel, TaskModel

from .arguments import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Coroutine, Sequence

    from jotty.core.queue import JournalEntry

__all__ = ["UNKNOWN", "Call", "Effect", "Expectations", "all_of", "nothing"]

Call = Callable[[TaskQueue], "Awaitable[Any]"]
Effect = Callable[[QueueModel], object]
UNKNOWN: Final = object()
HANDLES: Final = 2


@attrs.frozen
class _Answer:
    """What a call came to: a value, an error, or nothing that the caller was told."""

    value: Any = None
    error: Exception | None = None

    def __str__(self) -> str:
        return repr(self.value) if self.error is None else repr(self.error)


def nothing(_: QueueModel) -> None:
    """Have no effect."""


class Expectations(RuleBasedStateMachine):
    """The ground on which the rules stand.

    Attributes:
        clock: The time of the example.
        model: What the store must hold.
        queues: The handles on the store.
        observer: One more, which no fault strikes.
    """

    new_store: ClassVar[Callable[[VirtualClock], Callable[[], QueueBackend]]]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._opened = 0
        self.clock = VirtualClock()
        self.model = QueueModel()
        self._open_backend = type(self).new_store(self.clock)
        self._backends: list[FaultyBackend] = []
        self.queues = [self.open(number) for number in range(HANDLES)]
        self.observer = TaskQueue(self._open_backend(), clock=self.clock, random=Random(-1))

    def open(self, handle: int) -> TaskQueue:
        """Return a new handle in the place of this number; the second has a bound on the store's size."""
        backend = FaultyBackend(self._open_backend())
        self._backends[handle : handle + 1] = [backend]
        self._opened += 1
        bound = MAX_SIZE if handle else None
        return TaskQueue(backend, clock=self.clock, random=Random(self._opened), max_size=bound)

    def teardown(self) -> None:
        """Close what is open, whatever became of the example."""
        try:
            for queue in (*self.queues, self.observer):
                self.run(queue.aclose())
        finally:
            self._runner.close()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Make a call on the example's event loop."""
        return self._runner.run(call)

    @property
    def now(self) -> int:
        """The store's time."""
        return self.clock.now()

    def tasks_in(self, statuses: Collection[str]) -> list[TaskModel]:
        """Return the model's tasks in these states."""
        return [task for task in self.model.tasks.values() if task.status in statuses]

    # Calls

    def expect(
        self,
        handle: int,
        fault: Fault | None,
        call: Call,
        effect: Effect = nothing,
        *,
        error: type[Exception] | tuple[type[Exception], ...] = (),
        unknown: Sequence[Effect] | None = None,
    ) -> Any:
        """Make a call that must do this, or be refused, and have the model follow; return its value.

        Args:
            handle: Through which handle.
            fault: What goes wrong with it.
            call: The call.
            effect: What it does to the model.
            error: What it must raise instead, and change nothing; empty where it must not.
            unknown: What it may have done, beside nothing, if its outcome is unknown; None for that effect.

        Returns:
            Its value, the error that it had to raise, or UNKNOWN if it came to neither.
        """
        answer = self.ask(handle, fault, call)
        if answer is UNKNOWN:
            possible = (effect,) if unknown is None else unknown
            self.look(*(() if error else possible))
            return UNKNOWN
        if error:
            assert isinstance(answer.error, error), f"it must raise {_named(error)}, and came to {answer}"
            return answer.error
        if answer.error is not None:
            raise answer.error
        effect(self.model)
        return answer.value

    def ask(self, handle: int, fault: Fault | None, call: Call) -> Any:
        """Make a call, and return what it came to; UNKNOWN where a fault struck, so that nobody can know."""
        return self.run(self._make(self.queues[handle], self._backends[handle], fault, call))

    async def _make(self, queue: TaskQueue, backend: FaultyBackend, fault: Fault | None, call: Call) -> Any:
        with anyio.CancelScope() as scope:
            backend.arm(fault, scope)
            try:
                return _Answer(value=await call(queue))
            except StorageError as failure:
                if backend.has_struck and type(failure) is StorageError:
                    return UNKNOWN
                raise
            except (JottyError, ValueError, TimeoutError) as error:
                return _Answer(error=error)
            finally:
                backend.arm(None, scope)
        return UNKNOWN

    def reap(self, handle: int) -> None:
        """Make every move that is due, as claims and deletions do before anything else, by chance or not."""
        self.run(self.queues[handle].reap())
        self.model.reap(self.now)

    # Looking

    def look(self, *effects: Effect) -> None:
        """Find out which of these effects there was, or none, and have the model follow (C4, C42)."""
        self.run(self.observer.reap())
        seen = self.seen()
        for effect in (nothing, *effects):
            model = self.model.copy()
            effect(model)
            model.reap(self.now)
            if not difference(summary(model), seen):
                self.model = model
                return
        untouched = self.model.copy()
        untouched.reap(self.now)
        told = difference(summary(untouched), seen)
        raise AssertionError(
            f"C4: a call of unknown outcome must have its whole effect, or none; it had this one:\n{told}"
        )

    def seen(self) -> list[dict[str, Any]]:
        """Return what the store tells of all tasks, and how long their journals are."""
        tasks = self.run(_all(self.observer))
        return [{**told_of(task), "entries": len(self.journal(task.id))} for task in tasks]

    def journal(self, task_id: str) -> Sequence[JournalEntry]:
        """Return a task's journal."""
        found: Sequence[JournalEntry] = self.run(_journal(self.observer, task_id))
        return found


def all_of(*effects: Effect) -> Effect:
    """Return the effect of these, one after the other."""

    def effect(model: QueueModel) -> None:
        for one in effects:
            one(model)

    return effect


def told_of(task: Task) -> dict[str, Any]:
    """Return what a queue tells of a task, as the model does."""
    told = {name: getattr(task.head, name) for name in TOLD}
    return {**told, "lease_until": task.head.lease_until, "result": task.result}


def difference(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    """Return in words where tasks differ from what they must be, each by its place in their order."""
    lines = []
    if [one["id"] for one in expected] != [one["id"] for one in found]:
        lines.append(f"  {len(expected)} tasks must be there, in their order, and {len(found)} are")
    ours = {one["id"]: one for one in found}
    for place, task in enumerate(expected):
        theirs = ours.get(task["id"], task)
        lines += [
            f"  task {place}: {name} must be {value!r}, and is {theirs[name]!r}"
            for name, value in task.items()
            if type(value) is not type(theirs[name]) or value != theirs[name]
        ]
    return "\n".join(lines)


def _named(errors: type[Exception] | tuple[type[Exception], ...]) -> str:
    return " or ".join(one.__name__ for one in (errors if isinstance(errors, tuple) else (errors,)))


def summary(model: QueueModel) -> list[dict[str, Any]]:
    """Return what a queue must tell of all tasks, and how long their journals must be."""
    return [{**task.told(), "entries": task.entries} for task in model.tasks.values()]


async def _all(queue: TaskQueue) -> list[Task]:
    return [task async for task in queue.tasks()]


async def _journal(queue: TaskQueue, task_id: str) -> list[JournalEntry]:
    return [entry async for entry in queue.events(task_id, follow=False)]
