"""One claimed task: running the handler for it, and what is to become of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.core.queue import journal, settlement
from jotty.core.queue.forked import end_if_forked
from jotty.core.queue.lineage import generation
from jotty.core.queue.payload import ROOM
from jotty.core.queue.task import Task
from jotty.errors import (
    ActorError,
    GraphError,
    MaxIterationsExceeded,
    PayloadError,
    StoreCorrupt,
    Unhandled,
)

if TYPE_CHECKING:
    from jotty.core.queue.clock import Clock
    from jotty.core.queue.retry import Random
    from jotty.core.queue.settlement import Settlement

    from .unhandled import UnhandledTasks

__all__ = ["Finished", "Handler", "Handling", "Held", "Parked"]

logger = logging.getLogger("jotty.queue")

Handler = Callable[[Task], Awaitable[Any]]
# Errors that another attempt would only repeat
POINTLESS: Final = (PayloadError, GraphError, MaxIterationsExceeded, StoreCorrupt)


@attrs.frozen
class Finished:
    """What a handler may return instead of a bare result: last journal entries, stored in the same step.

    Attributes:
        result: The task's result, strict JSON.
        entries: As for `TaskQueue.record`.
    """

    result: Any
    entries: Sequence[dict[str, Any] | journal.EncodedEntry] = ()


@attrs.frozen
class Parked:
    """What a handler may return instead of a result: the task waits for an answer, held by no worker.

    Attributes:
        awaiting: The keys of the questions of which one is to be answered.
        until: When it is to go on without an answer, in microseconds of the store; None for never.
        entries: As for `TaskQueue.record`.
    """

    awaiting: Sequence[str]
    until: int | None = None
    entries: Sequence[dict[str, Any] | journal.EncodedEntry] = ()


@attrs.define(eq=False)
class Held:
    """A task that runs here, and why its scope was cancelled, if it was.

    Attributes:
        task: The task, as it was claimed.
        reason: "cancel", "lost" or "release" once it was stopped.
        is_given_back: Whether others have it, although its handler has not ended.
        scope: That of its handler.
    """

    task: Task
    reason: str = ""
    is_given_back: bool = False
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)

    def stop(self, reason: str) -> None:
        """Cancel the handler; the first reason counts."""
        self.reason = self.reason or reason
        self.scope.cancel()


class Handling:
    """Runs a handler, and makes a settlement of whatever it comes to, be it a KeyboardInterrupt.

    Args:
        handler: What to call with each task.
        limit: The most bytes of JSON that a result may have.
        clock: Where the time of a task comes from.
        random: Where the jitter of retries comes from.
        unhandled: Told of the tasks that the handler leaves to others.

    Attributes:
        interrupt: The KeyboardInterrupt, if the handler has raised one: it is to end the worker, too.
    """

    def __init__(
        self, handler: Handler, *, limit: int, clock: Clock, random: Random, unhandled: UnhandledTasks
    ) -> None:
        self._handler = handler
        self._limit = limit
        self._clock = clock
        self._random = random
        self._unhandled = unhandled
        self._home = generation()
        self.interrupt: KeyboardInterrupt | None = None

    async def settlement_of(self, held: Held) -> Settlement | None:
        """Run the handler, and return how the task is to be settled; None where it is not ours any more.

        Raises only what is no exception of the handler's: the worker's own cancellation.
        """
        task = held.task
        results: list[Any] = []
        try:
            with held.scope:
                results.append(await self._call(task))
            if results:
                return self._completion(task, results[0])
        except anyio.get_cancelled_exc_class() as cancelled:
            return await self._cancelled(task, cancelled)
        except BaseExceptionGroup as group:  # on trio, one may hold a cancellation beside an error
            if not isinstance(group, Exception):
                return await self._cancelled(task, group)
            return self._failure(task, group)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is the outcome
            return self._failure(task, error)
        return self._stopped(held)

    async def _call(self, task: Task) -> Any:
        try:
            value = await self._called(task)
        except BaseException as error:
            end_if_forked(self._home, error)
            raise
        end_if_forked(self._home)
        return value

    async def _called(self, task: Task) -> Any:
        if task.head.timeout is None:
            return await self._handler(task)
        with self._clock.timeout(task.timeout):
            return await self._handler(task)
        raise TimeoutError(f"The task took longer than its timeout of {task.timeout} s.")

    def _completion(self, task: Task, result: Any) -> Settlement:
        limit = self._limit
        entries: tuple[bytes, ...] = ()
        if isinstance(result, (Finished, Parked)):
            entries = tuple(journal.entry(one, limit) for one in result.entries)
        self._unhandled.forget(task.head.id)
        if isinstance(result, Parked):
            return settlement.parking(task, result.awaiting, until=result.until, entries=entries)
        if isinstance(result, Finished):
            result = result.result
            limit += ROOM  # what it wraps was held to the limit when it was told
        return settlement.completion(task, result, limit, self._random, entries)

    def _failure(self, task: Task, error: BaseException) -> Settlement:
        if isinstance(error, Unhandled):
            return settlement.release(task, delay=self._unhandled.leave(task, error))
        self.interrupt = self.interrupt or _interrupt_in(error)
        retry = not isinstance(error, POINTLESS)
        self._unhandled.forget(task.head.id)
        return settlement.failure(task, error, retry=retry, delay=None, random=self._random)

    def _stopped(self, held: Held) -> Settlement | None:
        self._unhandled.forget(held.task.head.id)
        if held.reason == "lost":
            logger.warning("The lease of task %s was lost, its work is dropped.", held.task.id)
            return None
        return settlement.release(held.task)  # of a task whose cancel was requested, this makes it cancelled

    async def _cancelled(self, task: Task, cause: BaseException) -> Settlement:
        """Raise if this worker is being cancelled; else the handler cancelled itself, and has failed."""
        await checkpoint_if_cancelled()
        is_group = isinstance(cause, BaseExceptionGroup)
        return self._failure(task, cause if is_group else ActorError(str(task.goal)))


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt that an error is or holds, or for which it names the actor."""
    if isinstance(error, KeyboardInterrupt):
        return error
    if isinstance(error, ActorError):
        return _interrupt_in(error.__cause__)
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_interrupt_in, error.exceptions)), None)
    return None
