"""Steps on a store that callers on event loops hand to the one thread that has the store."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import QueueError

from .lineage import generation
from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

__all__ = ["Inbox", "Operation", "deliver"]

S = TypeVar("S")
T = TypeVar("T")
logger = logging.getLogger("jotty.queue")


class Operation(Generic[S, T]):
    """A step on a store, and its outcome. Made on the caller's event loop, taken in the store's thread.

    Args:
        step: What to do with the store.
        patience: Seconds that the thread may try to begin it.
        loop: Where the caller waits, if that is known already.
        undo: What makes up for the step, given its result, where its caller cannot be told of that.
        is_brief: Whether the step takes no longer than to hand it to another thread.

    Attributes:
        patience: As above.
        deadline: When that is over, on the monotonic clock; None until the thread has tried, since before
            that it is the caller's own event loop that may be late.
        loop: Where the caller waits.
        done: Set there once the outcome is here.
        error: What the step raised; None if it did not.
        is_brief: As above.
        is_making_up: Whether it undoes another, and nobody may be waiting for it.
    """

    __slots__ = (
        "_result",
        "_undo",
        "deadline",
        "done",
        "error",
        "is_brief",
        "is_making_up",
        "loop",
        "patience",
        "step",
    )

    _result: T

    def __init__(
        self,
        step: Callable[[S], T],
        patience: float = 0.0,
        *,
        loop: EventLoop | None = None,
        undo: Callable[[S, T], None] | None = None,
        is_brief: bool = False,
    ) -> None:
        self.step = step
        self.is_brief = is_brief
        self._undo = undo
        self.is_making_up = False
        self.patience = patience
        self.deadline: float | None = None
        self.loop = loop or EventLoop()
        self.done = self.loop.signal()
        self.error: Exception | None = None

    def run(self, store: S) -> None:
        """Take the step."""
        self.error = None
        self._result = self.step(store)

    def outcome(self) -> T:
        """Return or raise what the step did."""
        if self.error is not None:
            raise self.error
        return self._result

    @property
    def can_be_undone(self) -> bool:
        """Whether something makes up for the step."""
        return self._undo is not None

    def making_up(self) -> Operation[S, None] | None:
        """Return what undoes this, whose result nobody gets; None where there is nothing to undo."""
        if self._undo is None or not hasattr(self, "_result"):
            return None
        undo, result = self._undo, self._result
        back: Operation[S, None] = Operation(lambda store: undo(store, result), self.patience, loop=self.loop)
        back.is_making_up = True
        return back

    async def see_through(self) -> None:
        """Wait for the outcome, whoever cancels."""
        with anyio.CancelScope(shield=True):
            while not self.done.is_set():
                # asyncio's own Task.cancel knows no shield; the caller raises the first cancellation again
                with suppress(anyio.get_cancelled_exc_class()):
                    await self.done.wait()


class Inbox(Generic[S]):
    """Operations on their way to the thread; used from any thread and event loop.

    The thread is woken once for all that the ready tasks of an event loop submit in one round, so that they
    make one group, and not while the loop is still busy with them.

    Args:
        patience: Seconds that the thread may try to begin an operation before that fails.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self._guard = threading.Lock()
        self._watchers = 0
        self._reads: dict[Operation[S, Any], None] = {}
        self._writes: dict[Operation[S, Any], None] = {}
        self._waking: object = None
        self._ending: Exception | None = None
        # held while there is no news; far quicker than a Condition, whose own lock both sides would want
        self._news = threading.Lock()
        self._news.acquire()
        self._generation = generation()
        self._loop: EventLoop | None = None

    @property
    def is_inherited(self) -> bool:
        """Whether this is the copy in a forked child, where the thread is not."""
        return self._generation != generation()

    @property
    def is_ended(self) -> bool:
        """Whether the thread has ended: it was closed, or could not go on."""
        return self._ending is not None

    # For the callers, on their event loops

    def take(
        self,
        step: Callable[[S], T],
        *,
        writes: bool = True,
        undo: Callable[[S, T], None] | None = None,
        is_brief: bool = False,
    ) -> Awaitable[T]:
        """Return or raise what a step does.

        Args:
            step: What to do; run again from the start where a neighbour in its group failed.
            writes: Whether it needs the right to write.
            undo: What makes up for a step whose caller was cancelled meanwhile, or cannot be told its result.
            is_brief: See `Operation`.

        Raises:
            StorageError: The store failed, or the step could not begin in time.
            QueueClosed: It was closed.
        """
        operation = Operation(step, self._patience, loop=self._current_loop(), undo=undo, is_brief=is_brief)
        return self.perform(operation, writes=writes)

    def _current_loop(self) -> EventLoop:
        """Return the running event loop, most often the one of the last call."""
        if self._loop is None or not self._loop.is_running():
            self._loop = EventLoop()
        return self._loop

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, the thread looks for what other processes change."""
        with self._guard:
            self._watchers += 1
            is_first = self._watchers == 1
        if is_first:
            self.wake()
        try:
            yield
        finally:
            with self._guard:
                self._watchers -= 1

    async def perform(self, operation: Operation[S, T], *, writes: bool = True) -> T:
        """Return or raise what a step does.

        If this is cancelled, a step that has not begun never will; one that has is awaited to its end, and
        undone.

        Args:
            operation: The step; run again from the start where a neighbour in its group failed.
            writes: Whether it needs the right to write.
        """
        self.submit(operation, writes=writes)
        try:
            await operation.done.wait()
            if operation.can_be_undone:  # it may have been served before its cancellation could be delivered
                await checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            if not self._withdraw(operation):
                await operation.see_through()
                if operation.error is None and (back := operation.making_up()):
                    await self._make_up(back)
            raise
        except BaseException:  # Ctrl-C, or the coroutine is being closed and cannot wait
            self._withdraw(operation)
            raise
        return operation.outcome()

    async def _make_up(self, back: Operation[S, Any]) -> None:
        """Have this done, whoever cancels; its failure is no error of the caller, who is being cancelled."""
        try:
            self.submit(back)
        except QueueError as failure:
            _tell_of_expiry(failure)
        else:
            await back.see_through()

    def submit(self, operation: Operation[S, Any], *, writes: bool = True) -> None:
        """Put an operation where the thread finds it; on its event loop.

        Raises:
            Exception: What the thread ended with.
        """
        with self._guard:
            if self._ending is not None:
                raise self._ending.with_traceback(None)  # which would grow with each call
            (self._writes if writes else self._reads)[operation] = None
        if self._waking is not operation.loop.native:
            self._waking = operation.loop.native
            operation.loop.after_this_round(self._wake_for_round)

    def _wake_for_round(self) -> None:
        self._waking = None
        if not self.serve_here():
            self.wake()

    def serve_here(self) -> bool:
        """Do what waits at once, on the event loop that calls this, and tell whether nothing is left to do.

        This default leaves all to the thread.
        """
        return False

    def _withdraw(self, operation: Operation[S, Any]) -> bool:
        """Whether the operation had not begun, and now never will."""
        with self._guard:
            for waiting in (self._writes, self._reads):
                if operation in waiting:
                    del waiting[operation]
                    return True
        return False

    def wake(self) -> None:
        """Have the thread look for what is new."""
        with suppress(RuntimeError):  # it is awake already
            self._news.release()

    # For the thread

    def undo(self, operations: Iterable[Operation[S, Any]]) -> None:
        """Have undone what was done, though its callers are told that it failed; before all that waits."""
        backs = [back for operation in operations if (back := operation.making_up())]
        with self._guard:
            self._writes = dict.fromkeys(backs) | self._writes

    def sleep(self, seconds: float | None) -> None:
        """Return at the next `wake`, at once if there was one since the last time, or after the seconds."""
        self._news.acquire(timeout=-1 if seconds is None else seconds)

    def has_reads(self) -> bool:
        """Whether an operation waits that only reads."""
        return bool(self._reads)

    def has_writes(self) -> bool:
        """Whether an operation waits that needs the right to write."""
        return bool(self._writes)

    def take_reads(self) -> list[Operation[S, Any]]:
        """Return what waits to read; from now on, none of it can be withdrawn."""
        return self._take(self._reads)

    def take_writes(self) -> list[Operation[S, Any]]:
        """Return what waits to write; from now on, none of it can be withdrawn."""
        return self._take(self._writes)

    def take_late(self, now: float) -> list[Operation[S, Any]]:
        """Return the writing operations whose patience is over; called after each try that failed."""
        late = []
        with self._guard:
            for operation in self._writes:
                if operation.deadline is None:
                    operation.deadline = now + operation.patience
                if operation.deadline <= now:
                    late.append(operation)
            for operation in late:
                del self._writes[operation]
        return late

    def end(self, error: Exception) -> list[Operation[S, Any]]:
        """Refuse operations from now on, with this error, and return those that wait."""
        with self._guard:
            self._ending = error
            left = [*self._reads, *self._writes]
            self._reads.clear()
            self._writes.clear()
        return left

    def _take(self, waiting: dict[Operation[S, Any], None]) -> list[Operation[S, Any]]:
        with self._guard:
            taken = list(waiting)
            waiting.clear()
        return taken


def deliver(operations: Iterable[Operation[Any, Any]]) -> None:
    """Tell the callers, with one call into each of their event loops."""
    by_loop: dict[object, list[Operation[Any, Any]]] = {}
    for operation in operations:
        if operation.is_making_up and operation.error is not None:
            _tell_of_expiry(operation.error)
        native = operation.loop.native
        if native in by_loop:
            by_loop[native].append(operation)
        else:
            by_loop[native] = [operation]
    for finished in by_loop.values():
        loop = finished[0].loop
        if loop.is_running():
            _set(finished)
        else:
            loop.call_soon(_set, finished)


def _tell_of_expiry(failure: Exception) -> None:
    logger.warning("What a call took whose caller is gone cannot be given back, and will expire: %s", failure)


def _set(operations: Iterable[Operation[Any, Any]]) -> None:
    for operation in operations:
        operation.done.set()
