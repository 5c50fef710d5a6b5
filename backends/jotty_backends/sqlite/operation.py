"""What a caller on an event loop waits for, while the writer's thread does it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from jotty.core.queue import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .tables import Tables

__all__ = ["Operation", "deliver"]

T = TypeVar("T")


class Operation(Generic[T]):
    """A step on the tables, and its outcome. Made on the caller's event loop.

    Args:
        step: What to do within a transaction.
        patience: Seconds to wait for it to begin.

    Attributes:
        deadline: When that is over, on the monotonic clock.
        loop: Where the caller waits.
        done: Set there once the outcome is here.
        error: What the step raised; None if it did not.
    """

    __slots__ = ("_result", "deadline", "done", "error", "loop", "step")

    _result: T

    def __init__(self, step: Callable[[Tables], T], patience: float = 0.0) -> None:
        self.step = step
        self.deadline = time.monotonic() + patience
        self.loop = EventLoop()
        self.done = anyio.Event()
        self.error: Exception | None = None

    def run(self, tables: Tables) -> None:
        """Take the step."""
        self.error = None
        self._result = self.step(tables)

    def outcome(self) -> T:
        """Return or raise what the step did."""
        if self.error is not None:
            raise self.error
        return self._result

    async def see_through(self) -> None:
        """Wait for the outcome, whoever cancels."""
        with anyio.CancelScope(shield=True):
            while not self.done.is_set():
                # asyncio's own Task.cancel knows no shield; the caller raises the first cancellation again
                with suppress(anyio.get_cancelled_exc_class()):
                    await self.done.wait()


def deliver(operations: Iterable[Operation[Any]]) -> None:
    """Tell the callers, with one call into each of their event loops."""
    by_loop: dict[object, list[Operation[Any]]] = {}
    for operation in operations:
        by_loop.setdefault(operation.loop.native, []).append(operation)
    for finished in by_loop.values():
        finished[0].loop.call_soon(_set, finished)


def _set(operations: Iterable[Operation[Any]]) -> None:
    for operation in operations:
        operation.done.set()
