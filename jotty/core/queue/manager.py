"""`QueueManager`: the worker. Claims what it has room for, keeps the leases, settles in groups, reaps."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import (
    ActorError,
    GraphError,
    MaxIterationsExceeded,
    PayloadError,
    QueueError,
    SchemaError,
    StorageError,
    StoreCorrupt,
)

from . import settlement
from .clock import MICROSECONDS, Clock, SystemClock, microseconds
from .keeper import LeaseKeeper
from .loop import EventLoop
from .retry import Random, RetryPolicy
from .task import Task, TaskStatus, check_count, check_name, check_seconds
from .task_queue import Turn

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .settlement import Settlement
    from .task_queue import TaskQueue

__all__ = ["Handler", "QueueManager"]

logger = logging.getLogger("jotty.queue")

Handler = Callable[[Task], Awaitable[Any]]
REAP_EVERY: Final = 1.0
RECONNECT: Final = RetryPolicy(delay=0.1, cap=5.0)
LAST_WORDS: Final = 5.0  # seconds for releasing what runs when the worker itself is cancelled
NO_TURN: Final = Turn([], [], 0, None)
# Errors that another attempt would only repeat
POINTLESS: Final = (PayloadError, GraphError, MaxIterationsExceeded)


@attrs.define
class _Held:
    """A task that runs here, and why its scope was cancelled, if it was."""

    task: Task
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    reason: str = ""

    def stop(self, reason: str) -> None:
        """Cancel the handler; the first reason counts."""
        self.reason = self.reason or reason
        self.scope.cancel()


class QueueManager:
    """A worker: runs a handler for each task that it claims, until it is stopped.

    What the handler returns completes the task. What it raises fails the attempt, but for `RetryLater`,
    which postpones it; errors that another attempt would only repeat (`PayloadError`, `GraphError`,
    `MaxIterationsExceeded`) fail the task at once. A task whose worker was lost runs alone. When the store
    cannot be reached, the worker keeps trying, with a backoff, and says so in the log.

    Args:
        queue: Where the tasks are.
        handler: Called with each task; cancelled if its cancel is asked for, its time up or its lease lost.
        lanes: The lanes to take from.
        max_concurrent: How many tasks run at once at most.
        lease_timeout: Seconds after which others may take a task over if this process dies.
        grace: Seconds that running tasks may take to finish after `stop`.
        poll_interval: Seconds after which to look for tasks where the backend cannot wake a worker.
        worker: A name for this worker; host and process id by default.
        clock: Where waits come from.
        random: Where jitter comes from.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        queue: TaskQueue,
        handler: Handler,
        *,
        lanes: Sequence[str] = ("default",),
        max_concurrent: int = 3,
        lease_timeout: float = 30.0,
        grace: float = 25.0,
        poll_interval: float = 1.0,
        worker: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        check_count("max_concurrent", max_concurrent)
        check_seconds("lease_timeout", lease_timeout, above_zero=True)
        check_seconds("grace", grace)
        check_seconds("poll_interval", poll_interval, above_zero=True)
        if worker is not None:
            check_name("worker", worker)
        self.worker = worker or f"{socket.gethostname()}:{os.getpid()}"
        self._queue = queue
        self._handler = handler
        self._lanes = tuple(lanes)
        self._max_concurrent = max_concurrent
        self._lease_timeout = lease_timeout
        self._grace = grace
        self._poll_interval = poll_interval
        self._clock: Clock = clock or SystemClock()
        self._random: Random = random or SystemRandom()
        self._loop: EventLoop | None = None

    async def run(self, *, max_tasks: int | None = None, drain: bool = False) -> int:
        """Work until `stop`, and return how many tasks were settled.

        Cancelling it cancels the handlers, gives their tasks back at once and leaves nothing running.

        Args:
            max_tasks: Claim no more than this many tasks, and return when they are settled.
            drain: Return when nothing is ready and nothing runs here; retries of what ran are waited for.

        Raises:
            RuntimeError: It is running already.
            StorageError: The store cannot be opened.
            QueueClosed: The queue was closed.
        """
        if max_tasks is not None:
            check_count("max_tasks", max_tasks)
        if self._loop is not None:
            raise RuntimeError("This worker is running already. Make another QueueManager.")
        await self._queue.reap()
        self._begin(max_tasks, drain=drain)
        try:
            async with anyio.create_task_group() as keepers:
                keepers.start_soon(self._keeper.run)
                try:
                    await self._run_handlers()
                finally:
                    self._keeper.stop()
        finally:
            self._loop = None
        return self._settled

    def stop(self, grace: float | None = None) -> None:
        """Claim no more, let running tasks finish within the grace time, then release them; from any thread.

        Calling it again with a shorter grace time hurries; where nothing runs it does nothing.

        Args:
            grace: Seconds; None for the worker's own.
        """
        if self._loop is not None:
            self._loop.call_soon(self._stop, self._grace if grace is None else grace)

    @property
    def running(self) -> tuple[Task, ...]:
        """The tasks that run here now."""
        return tuple(held.task for held in self._held.values()) if self._loop else ()

    def _begin(self, max_tasks: int | None, *, drain: bool) -> None:
        self._loop = EventLoop()
        self._max_tasks = max_tasks
        self._drain = drain
        self._held: dict[str, _Held] = {}
        self._settlements: list[Settlement] = []
        self._started = 0
        self._settled = 0
        self._stop_at: int | None = None
        self._waits_to_be_alone = False
        self._retries_until = 0
        self._reaped_at = self._clock.now()
        self._failures = 0
        self._idle: anyio.CancelScope | None = None
        self._has_news = False
        self._keeper = LeaseKeeper(
            self._queue.backend,
            self._clock,
            lease_timeout=self._lease_timeout,
            on_lost=lambda task_id, _: self._stop_task(task_id, "lost"),
            on_cancel=lambda task_id: self._stop_task(task_id, "cancel"),
        )

    # The loop

    async def _run_handlers(self) -> None:
        try:
            async with anyio.create_task_group() as handlers:
                while await self._step(handlers):
                    pass
        finally:
            if self._settlements:
                await self._settle_last()

    async def _step(self, handlers: TaskGroup) -> bool:
        """Settle and claim once, then wait for news; return whether there is more to do."""
        self._has_news = False
        self._enforce_grace()
        settlements, self._settlements = self._settlements, []
        limit = self._room()
        turn = await self._turn(settlements, limit) if settlements or limit else NO_TURN
        if turn is None:
            return not self._is_given_up()
        self._start(turn.claimed, handlers)
        await self._reap_if_due(turn.next_at)
        is_dry = len(turn.claimed) < limit
        if self._is_finished(is_dry=is_dry):
            return False
        can_claim = self._room() > 0
        if not self._has_news and (is_dry or not can_claim):
            await self._pause(turn, can_claim=can_claim)
        return True

    def _enforce_grace(self) -> None:
        if self._stop_at is None or self._clock.now() < self._stop_at:
            return
        for held in self._held.values():
            logger.warning("Task %s is released: it did not finish in the grace time.", held.task.id)
            held.stop("release")

    def _room(self) -> int:
        """Return how many tasks to claim now."""
        if self._stop_at is not None or any(held.task.isolated for held in self._held.values()):
            return 0
        if self._waits_to_be_alone:
            return 0 if self._held else 1
        room = self._max_concurrent - len(self._held)
        return room if self._max_tasks is None else min(room, self._max_tasks - self._started)

    async def _turn(self, settlements: list[Settlement], limit: int) -> Turn | None:
        try:
            turn = await self._queue.turn(
                settlements,
                worker=self.worker,
                lanes=self._lanes,
                limit=limit,
                lease_timeout=self._lease_timeout,
            )
        except (SchemaError, StoreCorrupt):
            raise
        except StorageError as failure:
            self._settlements[:0] = settlements
            self._failures += 1
            wait = RECONNECT.backoff(self._failures, self._random)
            logger.warning("The store does not answer, trying again in %.1f s: %s", wait, failure)
            await self._clock.sleep(wait)
            return None
        except BaseException:
            self._settlements[:0] = settlements  # cancelled: they are settled on the way out
            raise
        if self._failures:
            logger.warning("The store answers again after %d failures.", self._failures)
            self._failures = 0
        self._note(settlements, turn.settled)
        return turn

    def _note(self, settlements: Sequence[Settlement], settled: Sequence[Task | QueueError]) -> None:
        for one, end in zip(settlements, settled, strict=True):
            if isinstance(end, QueueError):
                logger.warning("The work on task %s is dropped: %s", one.task.id, end)
                continue
            self._settled += 1
            logger.info("Task %s is %s.", end.id, end.status)
            if end.status is TaskStatus.PENDING:
                self._retries_until = max(self._retries_until, end.head.run_at)

    def _start(self, claimed: Sequence[Task], handlers: TaskGroup) -> None:
        """Start what may run now; a task that must run alone goes back until nothing else runs here (C25)."""
        is_alone = len(claimed) == 1 and not self._held
        if claimed:
            self._waits_to_be_alone = False
        for task in claimed:
            if task.isolated and not is_alone:
                self._waits_to_be_alone = True
                self._settlements.append(settlement.release(task))
                self._has_news = True
                continue
            held = _Held(task)
            self._held[task.id] = held
            self._started += 1
            self._keeper.hold(task.id, task.lease)
            self._queue.cancel_listeners[task.id] = partial(held.stop, "cancel")
            handlers.start_soon(self._handle, held, name=f"task {task.id}")

    def _is_finished(self, *, is_dry: bool) -> bool:
        if self._held or self._settlements:
            return False
        if self._stop_at is not None:
            return True
        if self._max_tasks is not None and self._started >= self._max_tasks:
            return True
        return self._drain and is_dry and self._retries_until <= self._queue.backend.now()

    def _is_given_up(self) -> bool:
        """Whether the store has not answered until after the grace time: leases must expire by themselves."""
        return self._stop_at is not None and self._clock.now() > self._stop_at and not self._held

    async def _reap_if_due(self, next_at: float | None) -> None:
        elapsed = (self._clock.now() - self._reaped_at) / MICROSECONDS
        if elapsed >= REAP_EVERY or (next_at == 0 and elapsed > 0):
            self._reaped_at = self._clock.now()
            if await self._queue.reap():
                self._has_news = True

    async def _pause(self, turn: Turn, *, can_claim: bool) -> None:
        """Wait until a handler ends, a task may be ready, something is due, or the next look is."""
        seconds = min(REAP_EVERY, self._poll_interval)
        if turn.next_at is not None:
            seconds = min(seconds, max(turn.next_at, 0.001))
        if self._stop_at is not None:
            seconds = min(seconds, max(self._stop_at - self._clock.now(), 1000) / MICROSECONDS)
        with anyio.CancelScope() as self._idle:
            if can_claim:
                await self._queue.wait_ready(self._lanes, turn.mark, seconds)
            else:
                await self._clock.sleep(seconds)
        self._idle = None

    def _notify(self) -> None:
        self._has_news = True
        if self._idle is not None:
            self._idle.cancel()

    # One task

    async def _handle(self, held: _Held) -> None:
        try:
            end = await self._settlement_of(held)
        finally:
            self._held.pop(held.task.id, None)
            self._keeper.drop(held.task.id)
            self._queue.cancel_listeners.pop(held.task.id, None)
            self._notify()
        if end is not None:
            self._settlements.append(end)

    async def _settlement_of(self, held: _Held) -> Settlement | None:
        """Run the handler, and return how the task is to be settled; None where it is not ours any more."""
        task = held.task
        is_done = False
        try:
            with held.scope, self._clock.timeout(task.timeout):
                result = await self._handler(task)
                is_done = True
            if is_done:
                return self._completion(task, result)
        except anyio.get_cancelled_exc_class():
            return await self._cancelled(task)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the task's outcome
            return self._failure(task, error)
        if held.reason:
            return self._stopped(held)
        return self._failure(
            task, TimeoutError(f"The task took longer than its timeout of {task.timeout} s.")
        )

    def _completion(self, task: Task, result: Any) -> Settlement:
        return settlement.completion(task, result, self._queue.max_payload, self._random)

    def _failure(self, task: Task, error: Exception) -> Settlement:
        is_pointless = isinstance(error, POINTLESS)
        return settlement.failure(task, error, retry=not is_pointless, delay=None, random=self._random)

    def _stopped(self, held: _Held) -> Settlement | None:
        if held.reason == "lost":
            logger.warning("The lease of task %s was lost, its work is dropped.", held.task.id)
            return None
        return settlement.release(held.task)  # of a task whose cancel was requested, this makes it cancelled

    async def _cancelled(self, task: Task) -> Settlement:
        """Give the task back if this worker is being cancelled; else the handler cancelled itself."""
        try:
            await checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            self._settlements.append(settlement.release(task))
            raise
        return self._failure(task, ActorError(str(task.goal)))

    def _stop_task(self, task_id: str, reason: str) -> None:
        if held := self._held.get(task_id):
            held.stop(reason)

    # Stopping

    def _stop(self, grace: float) -> None:
        self._stop_at = self._clock.now() + microseconds(grace)
        self._notify()

    async def _settle_last(self) -> None:
        """Give back what ran when this worker was cancelled; what cannot be within a few seconds expires."""
        with anyio.CancelScope(shield=True), self._clock.timeout(LAST_WORDS):
            settlements, self._settlements = self._settlements, []
            try:
                turn = await self._queue.turn(
                    settlements, worker=self.worker, lanes=self._lanes, limit=0, lease_timeout=1.0
                )
            except QueueError as failure:
                logger.warning("%d tasks could not be released: %s", len(settlements), failure)
            else:
                self._note(settlements, turn.settled)
