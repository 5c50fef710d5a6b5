"""A process that enqueues until there is no more room, and goes on once there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import attrs

from jotty.errors import StorageError
from jotty.testing.history import now_us

from .child import run_program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jotty.core.queue import Task

    from .child import Child

__all__ = ["FillerOptions"]

ROOM = 64 * 1024 * 1024


@attrs.frozen(kw_only=True)
class FillerOptions:
    """How much room there is; one of the two.

    Attributes:
        ballast: A file, the deletion of which makes room.
        limit: The most bytes that a file of this process may have, until it makes room.
        size: How many characters a task has.
        tasks: After how many tasks to give up.
    """

    ballast: str | None = None
    limit: int | None = None
    size: int = 20_000
    tasks: int = 2000


class _Filler:
    def __init__(self, child: Child[FillerOptions]) -> None:
        self._child = child
        self._queue = child.queue
        self._number = 0
        self._stored: list[tuple[Task, int]] = []

    async def enqueue(self) -> None:
        self._number += 1
        goal = {"by": self._child.name, "batch": self._number, "number": 0, "size": 1}
        since = now_us()
        task = await self._queue.enqueue(goal, {"filler": "x" * self._child.options.size})
        self._stored.append((task, since))

    def tell(self) -> None:
        """Tell of what was acknowledged: not before there is room, which the history needs, too."""
        for task, since in self._stored:
            self._child.tell_enqueued(task, since)

    async def fill(self) -> None:
        """Enqueue until the store refuses, and tell how it does."""
        for _ in range(self._child.options.tasks):
            began = time.monotonic()
            try:
                await self.enqueue()
            except StorageError as error:
                cause = type(error.__cause__).__name__
                self._child.history.tell("full", took=time.monotonic() - began, cause=cause, text=str(error))
                return

    async def try_all(self, held: Task) -> None:
        """Make other calls while there is no room: each works or is a StorageError, and soon."""
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: self._queue.get(held.id),
            "stats": self._queue.stats,
            "heartbeat": lambda: self._queue.heartbeat([held]),
            "record": lambda: self._queue.record(held, [{"kind": "step"}]),
            "claim": lambda: self._queue.claim(worker=self._child.name),
            "complete": lambda: self._queue.complete(held, "x" * self._child.options.size),
        }
        for name, call in calls.items():
            began, outcome = time.monotonic(), "works"
            try:
                await call()
            except StorageError:
                outcome = "StorageError"
            self._child.history.tell("tried", write=name, outcome=outcome, took=time.monotonic() - began)


async def fill(child: Child[FillerOptions]) -> None:
    """Fill the store, make room, and go on with the same handle."""
    filler = _Filler(child)
    await filler.enqueue()
    (held,) = await child.queue.claim(worker=child.name)
    if child.options.limit is not None:
        _limit_files(child.options.limit)
    await filler.fill()
    await filler.try_all(held)
    if child.options.ballast is not None:
        await anyio.Path(child.options.ballast).unlink()
    if child.options.limit is not None:
        _limit_files(ROOM)
    for _ in range(3):
        await filler.enqueue()
    filler.tell()
    done = await child.queue.complete(held, "result")
    child.history.tell("went on", status=done.status, stored=[task.id async for task in child.queue.tasks()])


def _limit_files(size: int) -> None:
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


if __name__ == "__main__":
    run_program(fill, FillerOptions)
