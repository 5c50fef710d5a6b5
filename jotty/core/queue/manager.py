"""`QueueManager`: the worker. Claims what it has room for, keeps the leases, settles in groups, reaps."""

from __future__ import annotations

import os
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from .clock import Clock, SystemClock
from .loop import EventLoop
from .options import DEFAULT_RETENTION
from .task import check_count, check_lanes, check_name, check_seconds
from .worker.keeper import heartbeat_of
from .worker.presence import host
from .worker.retention import check_retention
from .worker.run import WorkerRun, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from types import FrameType

    from .retry import Random
    from .task import Task
    from .task_queue import TaskQueue
    from .worker.handling import Handler

__all__ = ["QueueManager"]

_numbers: Final = count(1)  # tells apart the workers of one process


class QueueManager:
    """A worker: runs a handler for each task that it claims, until it is stopped.

    What the handler returns completes the task. What it raises fails the attempt, but for `RetryLater`,
    which postpones it; errors that another attempt would only repeat (`PayloadError`, `GraphError`,
    `MaxIterationsExceeded`) fail the task at once. `Unhandled` leaves it to other workers, as often as need
    be. A task whose worker was lost runs alone. When the store cannot be reached, the worker keeps trying,
    with a backoff, and says so in the log.

    Handlers share tasks of the event loop, one after the other; each has contextvars of its own.

    Leases are kept from a thread of its own, also while a handler blocks the event loop, of which the log
    then warns. From there the worker announces itself too, for `TaskQueue.workers`, and deletes what has
    been finished for longer than `retention`.

    Args:
        queue: Where the tasks are.
        handler: Called with each task; cancelled if its cancel is asked for, its time up or its lease lost.
        lanes: The lanes to take from.
        max_concurrent: How many tasks run at once at most.
        lease_timeout: Seconds after which others may take a task over if this process dies.
        heartbeat: Seconds between two renewals of the leases; None for a third of `lease_timeout`, and never
            more than that.
        grace: Seconds that running tasks may take to finish after `stop`.
        poll_interval: Seconds after which to look for tasks where the backend cannot wake a worker.
        retention: How long finished tasks are kept, by this worker and in the whole store; None for ever.
        worker: A name for this worker; by default host, process id and the worker's number in the process.
        describe: Names what a frame of the stack runs, like "actor 'write'", or gives None: for the warning
            of a blocked event loop. Called from another thread.
        clock: Where waits come from.
        random: Where jitter comes from.

    Raises:
        ValueError: An argument is out of its range, or a lease is under three heartbeats.
    """

    def __init__(
        self,
        queue: TaskQueue,
        handler: Handler,
        *,
        lanes: Sequence[str] = ("default",),
        max_concurrent: int = 3,
        lease_timeout: float = 30.0,
        heartbeat: float | None = None,
        grace: float = 25.0,
        poll_interval: float = 1.0,
        retention: timedelta | None = DEFAULT_RETENTION,
        worker: str | None = None,
        describe: Callable[[FrameType], str | None] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        check_count("max_concurrent", max_concurrent)
        check_seconds("grace", grace)
        check_seconds("poll_interval", poll_interval, above_zero=True)
        check_retention(retention)
        if worker is not None:
            check_name("worker", worker)
        self.worker = worker or _default_name()
        self._settings = WorkerSettings(
            queue=queue,
            handler=handler,
            lanes=check_lanes(lanes),
            max_concurrent=max_concurrent,
            lease_timeout=lease_timeout,
            heartbeat=heartbeat_of(lease_timeout, heartbeat),
            grace=grace,
            poll_interval=poll_interval,
            retention=retention,
            describe=describe,
            worker=self.worker,
            clock=clock or SystemClock(),
            random=random or SystemRandom(),
        )
        self._run: WorkerRun | None = None
        self._grace: float | None = None  # set by a stop
        self._loop: EventLoop | None = None

    async def run(self, *, max_tasks: int | None = None, drain: bool = False) -> int:
        """Work until `stop`, and return how many tasks came to their end here.

        Cancelling it cancels the handlers, gives their tasks back at once and leaves nothing running.

        Args:
            max_tasks: Claim no more than this many tasks, and return when they are settled.
            drain: Return when nothing in its lanes is ready or in progress, by whomever; what may come back
                (a lease that ends, a retry of what ran here, what only others could not run) is waited for,
                what is scheduled is not.

        Raises:
            RuntimeError: It is running already.
            StorageError: The store cannot be opened; or it did not take back what ran when the worker was
                stopped, of which the log names each task: others have it when its lease ends.
            QueueClosed: The queue was closed.
            KeyboardInterrupt: A handler raised it; its attempt has failed, the other tasks are given back.
        """
        if max_tasks is not None:
            check_count("max_tasks", max_tasks)
        if self._loop is not None:
            raise RuntimeError("This worker is running already. Make another QueueManager.")
        self._loop = EventLoop()
        try:
            await self._settings.queue.reap()
            self._run = WorkerRun(self._settings, max_tasks=max_tasks, drain=drain)
            if self._grace is not None:
                self._run.be_stopped(self._grace)
                self._run.stop(self._grace)
            return await self._run.work()
        finally:
            self._loop = self._run = self._grace = None

    def stop(self, grace: float | None = None) -> None:
        """Claim no more, let running tasks finish within the grace time, then release them; from any thread.

        Calling it again with a shorter grace time hurries. Before `run`, it has that return at once.

        Args:
            grace: Seconds; None for the worker's own.
        """
        grace = self._settings.grace if grace is None else grace
        self._grace = grace if self._grace is None else min(self._grace, grace)
        if (run := self._run) is not None:
            run.be_stopped(grace)
        if (loop := self._loop) is not None:
            loop.call_soon(self._stop, grace)

    def _stop(self, grace: float) -> None:
        if self._run is not None:
            self._run.stop(grace)

    @property
    def unsettled(self) -> tuple[str, ...]:
        """The ids of the tasks whose leases it holds now: what runs, and ends not stored yet; any thread."""
        return self._run.unsettled if self._run else ()

    @property
    def running(self) -> tuple[Task, ...]:
        """The tasks that run here now."""
        return self._run.tasks if self._run else ()


def _default_name() -> str:
    number = next(_numbers)
    name = f"{host()}:{os.getpid()}"
    return name if number == 1 else f"{name}:{number}"
