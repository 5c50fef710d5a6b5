"""Event-loop tasks that do one piece of work after the other, as a new one for each would cost a lot."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled, current_token

from jotty.core.queue.loop import EventLoop
from jotty.core.queue.within import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup

    from jotty.core.queue.loop import Signal

__all__ = ["Crew"]

T = TypeVar("T")
CHECKPOINT_EVERY: Final = 32  # work that never waits must not keep the loop from everyone else


class Crew(Generic[T]):
    """Starts each piece of work at once, as a task group would, in tasks that are kept for the next.

    Each piece has its own copy of the contextvars. Whose work waits calls others in for what is left, as many
    again as there are: a few steps of the loop for all of it, and nobody for work that never waits.

    Args:
        group: Where the tasks live, until it is cancelled. What has not begun by then never will.
        perform: Does a piece of work; what it raises ends the group.
    """

    def __init__(self, group: TaskGroup, perform: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        self._group = group
        self._perform = perform
        self._loop = EventLoop()
        self._waiting: deque[T] = deque()
        self._idle: list[Signal] = []
        self._called = 0
        self._busy = 0
        self._taking = 0  # of those, how many come back for more without anybody's help

    def give(self, work: T) -> None:
        """Have a piece of work begun soon."""
        self._waiting.append(work)
        self._call()

    def _call(self) -> None:
        if self._called or self._taking:
            return
        self._called = min(len(self._waiting), self._busy + 1)
        for _ in range(self._called):
            if self._idle:
                self._idle.pop().set()
            else:
                self._group.start_soon(self._take_part)

    async def _take_part(self) -> None:
        while True:
            self._called -= 1
            self._busy += 1
            self._taking += 1
            await self._work()
            self._taking -= 1
            self._busy -= 1
            signal = self._loop.signal()
            self._idle.append(signal)
            await signal.wait()

    async def _work(self) -> None:
        done, task = 0, _native_task()
        while self._waiting:
            rest = begin(copy_context(), self._perform(self._waiting.popleft()))
            if rest is not None:
                self._taking -= 1
                self._call()
                await rest
                self._taking += 1
            if task is not None and task.cancelling():
                await _shake_off(task)
            done += 1
            if done % CHECKPOINT_EVERY == 0:
                await checkpoint()


def _native_task() -> asyncio.Task[Any] | None:
    """Return asyncio's own task, on asyncio."""
    is_asyncio = isinstance(current_token().native_token, asyncio.AbstractEventLoop)
    return asyncio.current_task() if is_asyncio else None


async def _shake_off(task: asyncio.Task[Any]) -> None:
    """Bear a cancellation that work has asked of its task by asyncio's own means, so that no other has to.

    A cancellation of the group is not taken for one.
    """
    await checkpoint_if_cancelled()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    await checkpoint_if_cancelled()
    while task.cancelling():
        task.uncancel()
