"""A clock that passes only when a test says so, or when nothing else can happen."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint, current_token

from jotty.core.queue import MICROSECONDS, microseconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["VirtualClock"]

START = 1_767_225_600 * MICROSECONDS  # 2026-01-01T00:00:00Z


class VirtualClock:
    """A `Clock` for tests: hours pass in microseconds, in a fixed order.

    It belongs to one event loop at a time. Give it to a queue, a worker and an
    orchestrator alike, then either move it by hand with `advance`, or run the
    test within `autojump`, where it jumps to the next deadline whenever every
    other task waits.

    Args:
        start: Microseconds since the Unix epoch at which it begins.
        idle: Seconds, at least, between two looks that are mere safety nets: a worker's for leases that have
            ended, say. 0 leaves them as in real time; with 3600, weeks without news pass in a moment.

    Attributes:
        is_virtual: Always true.
    """

    is_virtual = True

    def __init__(self, start: int = START, *, idle: float = 0.0) -> None:
        self._now = start
        self._idle = idle
        self._wall_offset = 0
        self._alarms: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        self._live: set[int] = set()
        self._timeouts: dict[anyio.CancelScope, Callable[[], None]] = {}
        self._held = 0
        self._news = anyio.Event()
        self._is_jumping = False
        self._jumper_left = anyio.Event()

    def now(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self._now

    def wall(self) -> int:
        """Return the time plus all that `set_wall` has added."""
        return self._now + self._wall_offset

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forth, or back, by this much; no time passes."""
        self._wall_offset += microseconds(seconds)

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been moved this far; a checkpoint even for zero."""
        if seconds <= 0:
            await checkpoint()
            return
        event = anyio.Event()
        drop = self.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            drop()

    @contextmanager
    def timeout(self, seconds: float | None) -> Iterator[anyio.CancelScope]:
        """Open a cancel scope that is cancelled once the clock has been moved this far."""
        with anyio.CancelScope() as scope:
            self.move_timeout(scope, seconds)
            try:
                yield scope
            finally:
                self.move_timeout(scope, None)

    def move_timeout(self, scope: anyio.CancelScope, seconds: float | None) -> None:
        """Have a scope cancelled once the clock has been moved this far from now instead; None for never."""
        if drop := self._timeouts.pop(scope, None):
            drop()
        if seconds is not None and seconds <= 0:
            scope.cancel()
        elif seconds is not None:
            self._timeouts[scope] = self.call_later(seconds, scope.cancel)

    def every(self, seconds: float) -> float:
        """Return these seconds, or `idle` where that is longer."""
        return max(seconds, self._idle)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep `autojump` from jumping while a thread works."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def skip(self, seconds: float) -> None:
        """Let this much time pass at once, as while a machine is asleep: what falls due meanwhile is late."""
        self._now += microseconds(seconds)
        self._news.set()

    def call_later(self, seconds: float, action: Callable[[], object]) -> Callable[[], None]:
        """Have something done once the clock has been moved this far.

        Args:
            seconds: How far.
            action: Called without waiting, before anyone else is woken who is due later.

        Returns:
            What calls it off; it may be called at any time.
        """
        alarm = self._set(seconds, action)
        return lambda: self._live.discard(alarm)

    async def advance(self, seconds: float) -> None:
        """Let this much time pass, stopping at each deadline until all that it wakes has come to rest."""
        end = self._now + microseconds(seconds)
        await self._rest()
        while (at := self._next()) is not None and at <= end:
            self._ring(at)
            await self._rest()
        self._now = max(self._now, end)

    @asynccontextmanager
    async def autojump(self) -> AsyncIterator[None]:
        """Within this, jump to the next deadline whenever every other task waits; it may be nested."""
        raised: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._jump_on)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below, as the group would wrap it
                raised = error
            finally:
                group.cancel_scope.cancel()
        if raised is not None:
            raise raised

    async def _jump_on(self) -> None:
        # one at a time, since two would wait for each other to wait
        while self._is_jumping:
            await self._jumper_left.wait()
        self._is_jumping, self._jumper_left = True, anyio.Event()
        try:
            while True:
                await self._rest()
                if (at := self._next()) is None:
                    self._news = anyio.Event()
                    await self._news.wait()
                else:
                    self._ring(at)
        finally:
            self._is_jumping = False
            self._jumper_left.set()

    def _set(self, seconds: float, action: Callable[[], object]) -> int:
        self._order += 1
        heapq.heappush(self._alarms, (self._now + microseconds(seconds), self._order, action))
        self._live.add(self._order)
        self._news.set()
        return self._order

    def _next(self) -> int | None:
        while self._alarms and self._alarms[0][1] not in self._live:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def _ring(self, at: int) -> None:
        self._now = max(self._now, at)
        while (due := self._next()) is not None and due <= self._now:
            _, alarm, action = heapq.heappop(self._alarms)
            self._live.discard(alarm)
            action()

    async def _rest(self) -> None:
        """Return when every other task waits for something, and no thread works for one."""
        while True:
            await _wait_all_tasks_blocked()
            if not self._held:
                return
            await anyio.sleep(0.0005)


async def _wait_all_tasks_blocked() -> None:
    loop = current_token().native_token
    if not isinstance(loop, asyncio.AbstractEventLoop):
        await anyio.wait_all_tasks_blocked()
        return
    # anyio's own wait polls every 0.1 s on asyncio, which would make a virtual hour last real minutes
    me = asyncio.current_task()
    while True:
        await asyncio.sleep(0)
        others = (task for task in asyncio.all_tasks(loop) if task is not me)
        if not getattr(loop, "_ready", ()) and all(map(_is_waiting, others)):
            return


def _is_waiting(task: asyncio.Task[object]) -> bool:
    waiter: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
    return waiter is not None and not waiter.done()
