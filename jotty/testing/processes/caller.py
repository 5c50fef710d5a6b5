"""A process that makes a list of calls, each told before and after: to be killed in the midst of one."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from jotty.core.queue import NewTask, Ref
from jotty.core.queue.settlement import completion
from jotty.testing.history import now_us

from .child import run_program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.core.queue import Task

    from .child import Child

__all__ = ["ALL_CALLS", "CallerOptions"]

# A life of tasks in which each call of the seam happens, and has something to do.
ALL_CALLS: Final = (
    *("enqueue", "enqueue_many", "claim", "record", "heartbeat", "complete"),
    *("claim", "fail", "claim", "release", "enqueue", "cancel", "delete", "purge", "reap", "stats"),
)


@attrs.frozen(kw_only=True)
class CallerOptions:
    """What to call.

    Attributes:
        calls: Names, as in `ALL_CALLS`, or "turn", "migrate" (which must come first) and "now", which tells
            the store's time. One that needs a held task does nothing where there is none.
        before: What to call first, once.
        times: How often to make the others all.
        pause: Seconds after each call.
        size: How many characters the larger values have.
        lease_timeout: Seconds that a lease lasts.
        waits: Whether to wait for the word to go between the two.
    """

    calls: list[str]
    before: list[str] = attrs.field(factory=list)
    times: int = 1
    pause: float = 0.0
    size: int = 100
    lease_timeout: float = 30.0
    waits: bool = False


class _Caller:
    def __init__(self, child: Child[CallerOptions]) -> None:
        self._child = child
        self._queue = child.queue
        self._number = 0
        self._held: list[Task] = []
        self._over: list[Task] = []
        self._calls: Mapping[str, Callable[[], Awaitable[object]]] = {
            name: getattr(self, f"_{name}") for name in {*ALL_CALLS, "migrate", "now", "turn"}
        }

    async def call(self, name: str) -> None:
        self._number += 1
        self._child.history.tell("calling", call=name, number=self._number)
        async with self._child.patience():
            await self._calls[name]()
            self._child.history.tell("called", call=name, number=self._number)

    async def _enqueue(self) -> None:
        await self._enqueue_batch(1)

    async def _enqueue_many(self) -> None:
        await self._enqueue_batch(3)

    async def _enqueue_batch(self, size: int) -> None:
        filler = "x" * self._child.options.size
        batch = [
            NewTask(
                {"by": self._child.name, "batch": self._number, "number": number, "size": size},
                {"filler": filler},
                depends_on=[Ref(0)] if number == size - 1 > 0 else [],
                key=f"{self._child.name} {self._number} {number}",
                tags=["tag"],
            )
            for number in range(size)
        ]
        since = now_us()
        for task in await self._queue.enqueue_many(batch):
            self._child.tell_enqueued(task, since)

    async def _claim(self) -> None:
        lease_timeout = self._child.options.lease_timeout
        self._held += await self._queue.claim(worker=self._child.name, limit=2, lease_timeout=lease_timeout)
        for task in self._held:
            self._child.history.tell("held", task.id, task.lease)

    async def _record(self) -> None:
        entry = {"kind": "step", "of": 2, "filler": "x" * self._child.options.size}
        for task in self._held:
            await self._queue.record(task, [entry | {"number": number} for number in range(2)])

    async def _heartbeat(self) -> None:
        await self._queue.heartbeat(self._held, lease_timeout=self._child.options.lease_timeout)

    async def _complete(self) -> None:
        while self._held:
            task = self._held.pop()
            await self._queue.complete(
                task, {"by": self._child.name, "filler": "x" * self._child.options.size}
            )
            self._over.append(task)

    async def _turn(self) -> None:
        """Complete what is held and claim the next, as a QueueManager does."""
        result = {"by": self._child.name, "filler": "x" * self._child.options.size}
        limit, random = self._queue.max_payload, self._child.random
        turn = await self._queue.turn(
            [completion(task, result, limit, random) for task in self._held],
            worker=self._child.name,
            lanes=["default"],
            limit=2,
            lease_timeout=self._child.options.lease_timeout,
        )
        self._held = turn.claimed

    async def _migrate(self) -> None:
        await self._queue.backend.migrate()

    async def _fail(self) -> None:
        while self._held:
            await self._queue.fail(self._held.pop(), "it was to fail", delay=0)

    async def _release(self) -> None:
        while self._held:
            await self._queue.release(self._held.pop())

    async def _cancel(self) -> None:
        async for task in self._queue.tasks(status="pending"):
            await self._queue.cancel(task.id)
            self._over.append(task)
            return

    async def _delete(self) -> None:
        while self._over:
            task = self._over.pop()
            self._tell_deleting(task)
            await self._queue.delete(task.id)

    async def _purge(self) -> None:
        async for task in self._queue.tasks():
            if task.status.is_terminal:
                self._tell_deleting(task)
        await self._queue.purge(timedelta(0))

    def _tell_deleting(self, task: Task) -> None:
        self._child.history.tell("deleting", task.id, batch=[task.goal["by"], task.goal["batch"]])

    async def _now(self) -> None:
        self._child.history.tell("clock", now=self._queue.backend.now())

    async def _reap(self) -> None:
        await self._queue.reap()

    async def _stats(self) -> Any:
        return await self._queue.stats()


async def call_all(child: Child[CallerOptions]) -> None:
    """Make the calls that the options name."""
    caller = _Caller(child)
    for name in child.options.before:
        await caller.call(name)
    if child.options.waits:
        await child.go()
    for name in chain.from_iterable(repeat(child.options.calls, child.options.times)):
        if child.is_ending:
            return
        await caller.call(name)
        await anyio.sleep(child.options.pause)


if __name__ == "__main__":
    run_program(call_all, CallerOptions)
