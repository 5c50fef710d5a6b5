"""What the groups of rules have in common: their fixtures, and the steps that most of them take."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.util import find_spec
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint

from jotty.core.queue import MAX_PAYLOAD, Head, JournalEntry, Query, QueueBackend, Task, TaskQueue, TaskStatus
from jotty.errors import QueueError

from .terms import Terms, leave_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterator

    from jotty.testing.clock import VirtualClock

__all__ = [
    "Call",
    "QueueFactory",
    "Rules",
    "brought_to",
    "cancelled_at",
    "claim_one",
    "collect",
    "current",
    "everything",
    "head_of",
    "on_another_loop",
    "under_way",
    "watched",
]


@attrs.define
class QueueFactory:
    """Opens the store under test, each time as another handle.

    Attributes:
        open_backend: Gives a backend on the same store each time.
        clock: The clock of them all.
        queue_class: What to make of a backend.
    """

    open_backend: Callable[[], QueueBackend]
    clock: VirtualClock
    queue_class: type[TaskQueue] = TaskQueue
    _seeds: Iterator[int] = attrs.field(factory=count, init=False)

    def open(
        self,
        *,
        backend: QueueBackend | None = None,
        max_size: int | None = None,
        max_payload: int = MAX_PAYLOAD,
        random: Random | None = None,
    ) -> TaskQueue:
        """Return another handle on the store; the caller closes it."""
        return self.queue_class(
            backend or self.open_backend(),
            clock=self.clock,
            random=random or Random(next(self._seeds)),
            max_size=max_size,
            max_payload=max_payload,
        )


class Rules(Terms):
    """The fixtures of rules that one process can check, on a virtual clock, and on both event loops."""

    queue_class: ClassVar[type[TaskQueue]] = TaskQueue

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """The event loops on which every rule is checked."""
        if find_spec(request.param) is None:
            leave_out(request, f"{request.param} is not installed")
        return str(request.param)

    @pytest.fixture
    def factory(self, open_backend: Callable[[], QueueBackend], clock: VirtualClock) -> QueueFactory:
        """The store under test."""
        return QueueFactory(open_backend, clock, self.queue_class)

    @pytest.fixture
    async def queue(self, factory: QueueFactory) -> AsyncIterator[TaskQueue]:
        """A handle on the store."""
        async with factory.open() as queue:
            yield queue

    @pytest.fixture
    async def backend(self, open_backend: Callable[[], QueueBackend]) -> AsyncIterator[QueueBackend]:
        """An open handle on the store."""
        backend = open_backend()
        await backend.open()
        yield backend
        await backend.aclose()


# Steps


async def claim_one(queue: TaskQueue, *, lane: str = "default", lease_timeout: float = 30.0) -> Task:
    """Claim the one task that must be ready."""
    claimed = await queue.claim(worker="worker", lanes=[lane], lease_timeout=lease_timeout)
    assert len(claimed) == 1, f"one task must be ready in the lane {lane!r}"
    return claimed[0]


async def brought_to(queue: TaskQueue, status: TaskStatus, **options: Any) -> Task:
    """Return a new task that has come to this state, each in a lane named after it."""
    options = {"lane": status.value} | options
    if status in {TaskStatus.SUGGESTED, TaskStatus.BACKLOG}:
        return await queue.enqueue("goal", status=status, **options)
    if status is TaskStatus.BLOCKED:
        parent = await queue.enqueue("parent", lane="parents")
        return await queue.enqueue("goal", depends_on=[parent.id], **options)
    task = await queue.enqueue("goal", priority=1, **options)
    if status is TaskStatus.PENDING:
        return task
    if status is TaskStatus.CANCELLED:
        await queue.cancel(task.id)
        return await current(queue, task)
    held = await claim_one(queue, lane=options["lane"])
    if status is TaskStatus.COMPLETED:
        return await queue.complete(held, "result")
    if status is TaskStatus.FAILED:
        return await queue.fail(held, "error", retry=False)
    return held


async def current(queue: TaskQueue, task: Task) -> Task:
    """Return the task as the store has it."""
    found = await queue.get(task.id)
    assert found is not None, f"task {task.id} must be in the store"
    return found


async def head_of(queue: TaskQueue, task: Task) -> Head:
    """Return the head of a task as the store has it."""
    return (await current(queue, task)).head


async def collect(items: AsyncIterable[Any]) -> list[Any]:
    """Return all that an iterator gives."""
    return [item async for item in items]


async def everything(queue: TaskQueue) -> dict[str, tuple[Task, list[JournalEntry]]]:
    """Return all that the store holds: each task with its journal."""
    await queue.stats()  # opens it
    records = await queue.backend.find(Query(limit=10_000))
    return {
        record.head.id: (
            await current(queue, Task(head=record.head)),
            await collect(queue.events(record.head.id, follow=False)),
        )
        for record in records
    }


@attrs.define
class Call:
    """A call that runs beside the test.

    Attributes:
        is_over: Whether it has returned or raised.
        value: What it returned.
        error: What it raised.
    """

    is_over: bool = False
    value: Any = None
    error: BaseException | None = None

    async def run(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Make the call, and keep what comes of it."""
        try:
            self.value = await call()
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.is_over = True


@asynccontextmanager
async def under_way(clock: VirtualClock, call: Callable[[], Awaitable[Any]]) -> AsyncIterator[Call]:
    """Have a call run, until it waits, beside the body; it is cancelled at the end of it."""
    running = Call()
    async with anyio.create_task_group() as group:
        group.start_soon(running.run, call)
        await clock.advance(0)
        yield running
        group.cancel_scope.cancel()


async def watched(call: Callable[[], Awaitable[Any]], look: Callable[[], Awaitable[object]]) -> Any:
    """Make a call, look again and again while it is under way, and return what it returned."""
    running = Call()
    async with anyio.create_task_group() as group:
        group.start_soon(running.run, call)
        while not running.is_over:
            await look()
            await checkpoint()
    if running.error:
        raise running.error
    return running.value


async def on_another_loop(clock: VirtualClock, kind: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """Make a call on an event loop of that kind in a thread of its own, while time stands still."""
    with clock.hold():
        return await anyio.to_thread.run_sync(partial(anyio.run, call, backend=kind))


@attrs.define
class _Counted:
    """An awaitable that has something done each time the awaited call suspends."""

    call: Callable[[], Awaitable[Any]]
    at_suspension: Callable[[int], None]

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self.call().__await__()
        resume = partial(steps.send, None)
        for suspension in count():
            try:
                waited = resume()
            except StopIteration as stop:
                return stop.value
            self.at_suspension(suspension)
            try:
                resume = partial(steps.send, (yield waited))
            except BaseException as error:  # noqa: BLE001 - passed on to the call
                resume = partial(steps.throw, error)
        raise AssertionError("count() is endless")


async def cancelled_at(suspension: int, call: Callable[[], Awaitable[Any]]) -> bool:
    """Make a call and cancel it when it suspends for the n-th time (from 0); whether it came to that."""
    reached = False
    with anyio.CancelScope() as scope:

        def at(number: int) -> None:
            nonlocal reached
            if number == suspension:
                reached = True
                scope.cancel()

        with suppress(QueueError):
            await _Counted(call, at)
        await checkpoint()
    assert reached == scope.cancelled_caught, "cancellation must propagate"
    return reached
