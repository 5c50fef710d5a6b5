"""The places that executions take: one of `max_parallel`, and one under the limit that their actor shares."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .execution import Execution
    from .slots import Slots
    from .state import RunState
    from .timer import Timer

__all__ = ["Places"]


class Places:
    """Gives up the places of who waits for others, and takes them again afterwards.

    Args:
        slots: Those of the run.
        state: What counts who is at work.
    """

    def __init__(self, slots: Slots, state: RunState) -> None:
        self._slots = slots
        self._state = state

    def free(self, execution: Execution, *, quietly: bool = True) -> None:
        """Give up the place of an execution, if it has one; unless quietly, tell that there is room."""
        if execution.has_slot:
            execution.has_slot = False
            self._slots.give_back(quietly=quietly)

    @asynccontextmanager
    async def waiting(self, execution: Execution, *, is_timed: bool = True) -> AsyncIterator[None]:
        """Let an actor wait for others, or for an answer: its place and its limit are others' meanwhile.

        The wait for these afterwards counts towards nobody's timeout.

        Args:
            execution: Who waits.
            is_timed: Whether the wait counts towards the timeout of the actor, and of those that wait for it.
        """
        timers = [] if is_timed else list(_timers(execution))
        execution.waits += 1
        self._lend(execution)
        for timer in timers:
            timer.pause()
        self._state.idle(execution.work)
        is_cancelled = False
        try:
            yield
        except get_cancelled_exc_class():
            is_cancelled = True
            raise
        finally:
            execution.waits -= 1
            self._state.wake(execution.work)
            if is_cancelled:  # maybe by a scope of the actor's own, after which it goes on
                self._seize(execution)
            elif not execution.waits:
                await self._regain(execution)
            for timer in timers:
                timer.resume()

    def _lend(self, execution: Execution) -> None:
        if execution.limiter is not None:
            execution.lent, execution.limiter = execution.limiter, None
            execution.lent.release()
        if execution.has_slot:
            execution.has_slot = False
            self._slots.give_back()

    async def _regain(self, execution: Execution) -> None:
        if execution.timer is not None:
            execution.timer.pause()
        try:
            # always in this order, so that nobody who holds a place waits for a limit
            if execution.lent is not None:
                await execution.lent.acquire(counts=False)
                execution.limiter, execution.lent = execution.lent, None
            if not execution.has_slot:
                await self._slots.take()
                execution.has_slot = True
        except BaseException:
            self._seize(execution)
            raise
        finally:
            if execution.timer is not None:
                execution.timer.resume()

    def _seize(self, execution: Execution) -> None:
        """Take again what was lent, at once: who is cancelled cannot wait, and may yet go on."""
        if execution.lent is not None:
            execution.lent.seize()
            execution.limiter, execution.lent = execution.lent, None
        if not execution.has_slot:
            self._slots.seize()
            execution.has_slot = True

    @asynccontextmanager
    async def without_slot(self, execution: Execution) -> AsyncIterator[None]:
        """Let others have the place of an execution that waits for its limit."""
        self.free(execution, quietly=False)
        yield
        await self._slots.take()
        execution.has_slot = True


def _timers(execution: Execution | None) -> Iterator[Timer]:
    """Yield the timers of an execution, and of those that wait for it."""
    while execution is not None:
        if execution.timer is not None:
            yield execution.timer
        execution = execution.spawner
