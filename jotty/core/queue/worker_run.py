"""One run of a worker: the loop that settles, claims and waits, and the handlers it has started."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import (
    ActorError,
    GraphError,
    MaxIterationsExceeded,
    PayloadError,
    QueueClosed,
    QueueError,
    SchemaError,
    StorageError,
    StoreCorrupt,
)

from . import journal, settlement
from .clock import MICROSECONDS, Clock, microseconds
from .keeper import LeaseKeeper
from .payload import ROOM
from .retry import Random, RetryPolicy
from .task import Task, TaskStatus
from .task_queue import TaskQueue, Turn

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .settlement import Settlement

__all__ = ["Finished", "Handler", "WorkerRun", "WorkerSettings"]

logger = logging.getLogger("jotty.queue")

Handler = Callable[[Task], Awaitable[Any]]
REAP_EVERY: Final = 1.0
RECONNECT: Final = RetryPolicy(delay=0.1, cap=5.0)
HEARING_PATIENCE: Final = 60.0
HEARING_PAUSE: Final = 0.1  # seconds: a busy store must not make us look more often
RECOVERED_AFTER: Final = 10 * MICROSECONDS  # without a failure; sooner if something was written
LAST_WORDS: Final = 5.0  # seconds for releasing what runs when the worker itself is cancelled
NO_TURN: Final = Turn([], [], 0, None)
# Errors that another attempt would only repeat
POINTLESS: Final = (PayloadError, GraphError, MaxIterationsExceeded)


@attrs.frozen
class Finished:
    """What a handler may return instead of a bare result: last journal entries, stored in the same step.

    Attributes:
        result: The task's result, strict JSON.
        entries: As for `TaskQueue.record`.
    """

    result: Any
    entries: Sequence[dict[str, Any] | journal.EncodedEntry] = ()


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """What `QueueManager` was given; see there."""

    queue: TaskQueue
    handler: Handler
    lanes: tuple[str, ...]
    max_concurrent: int
    lease_timeout: float
    grace: float
    poll_interval: float
    worker: str
    clock: Clock
    random: Random


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


class WorkerRun:
    """What a worker knows between its start and its end.

    Args:
        settings: The worker's.
        max_tasks: How many tasks to claim at most; None for no bound.
        drain: Whether to end when nothing is ready and nothing runs here.
    """

    def __init__(self, settings: WorkerSettings, *, max_tasks: int | None, drain: bool) -> None:
        self._settings = settings
        self._max_tasks = max_tasks
        self._drain = drain
        self._held: dict[str, _Held] = {}
        self._settlements: list[Settlement] = []
        self._started = 0
        self._settled = 0
        self._stop_at: int | None = None
        self._to_run_alone: str | None = (
            None  # the task that is to run alone, for which this worker empties itself
        )
        self._retries_until = 0
        self._is_quiet = False
        self._reaped_at = settings.clock.now()
        self._failures = 0
        self._failed_at = 0
        self._trouble: StorageError | None = None
        self._error: Exception | None = None
        self._idle: anyio.CancelScope | None = None
        self._has_news = False
        self._keeper = LeaseKeeper(
            settings.queue.backend,
            settings.clock,
            lease_timeout=settings.lease_timeout,
            on_lost=lambda task_id, _: self._stop_task(task_id, "lost"),
            on_cancel=lambda task_id: self._stop_task(task_id, "cancel"),
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that run here now."""
        return tuple(held.task for held in self._held.values())

    async def work(self) -> int:
        """Work until there is nothing left to do or `stop`, and return how many tasks ended here."""
        async with anyio.create_task_group() as keepers:
            keepers.start_soon(self._keep_leases)
            try:
                await self._keeper.is_ready.wait()
                await self._run_handlers()
            except Exception as error:  # noqa: BLE001 - raised below, where no task group wraps it
                self._error = self._error or error
            finally:
                self._keeper.stop()
        if self._error is not None:
            raise self._error
        return self._settled

    def stop(self, grace: float) -> None:
        """Claim no more, and release after the grace time, in seconds, what still runs then."""
        at = self._settings.clock.now() + microseconds(grace)
        self._stop_at = at if self._stop_at is None else min(self._stop_at, at)
        self._notify()

    # The loop

    async def _run_handlers(self) -> None:
        try:
            async with anyio.create_task_group() as handlers:
                handlers.start_soon(self._hear_of_cancels)
                try:
                    while await self._step(handlers):
                        pass
                except Exception as error:  # noqa: BLE001 - raised by work(), where no task group wraps it
                    self._error = error
                handlers.cancel_scope.cancel()
        finally:
            if self._settlements:
                await self._settle_last()

    async def _hear_of_cancels(self) -> None:
        """Stop what is asked to stop as soon as the backend tells; where it cannot, the keeper does later."""
        queue, clock = self._settings.queue, self._settings.clock
        topic = f"worker:{self._settings.worker}"
        with suppress(QueueClosed):  # the others find out, and end the run
            mark = -1
            while True:
                with suppress(StorageError):  # the others say so
                    if mark == -1:
                        mark = await queue.backend.wait(topic, mark, 0)
                    mark = await queue.backend.wait(topic, mark, HEARING_PATIENCE)
                    await self._stop_cancelled()
                await clock.sleep(HEARING_PAUSE)

    async def _stop_cancelled(self) -> None:
        records = (
            await self._settings.queue.backend.get(list(self._held), payload=False) if self._held else []
        )
        for record in records:
            if record is not None and record.head.cancel_requested:
                self._stop_task(record.head.id, "cancel")

    async def _keep_leases(self) -> None:
        try:
            await self._keeper.run()
        except Exception as error:  # noqa: BLE001 - a worker that cannot keep its leases must not go on
            self._error = error
            self.stop(0.0)

    async def _step(self, handlers: TaskGroup) -> bool:
        """Settle, claim, reap and wait for news; return whether there is more to do."""
        self._has_news = False
        self._enforce_grace()
        try:
            goes_on = await self._take_turn(handlers)
        except (SchemaError, StoreCorrupt):
            raise
        except StorageError as failure:
            await self._back_off(failure)
            return not self._is_given_up()
        if self._settings.clock.now() - self._failed_at >= RECOVERED_AFTER:
            self._note_recovery()
        return goes_on

    async def _take_turn(self, handlers: TaskGroup) -> bool:
        settlements, self._settlements = self._settlements, []
        if not settlements:
            await self._forget_it_if_gone()
        limit = self._room()
        turn = await self._turn(settlements, limit) if settlements or limit else NO_TURN
        self._start(turn.claimed, handlers)
        if self._trouble is not None:
            failure, self._trouble = self._trouble, None
            raise failure
        await self._reap_if_due(turn.next_at)
        is_dry = len(turn.claimed) < limit
        if await self._is_finished(is_dry=is_dry and not settlements):
            return False
        # what was settled may have made other tasks ready, after the claim
        goes_round = self._has_news or (self._drain and settlements)
        can_claim = self._room() > 0
        if not goes_round and (is_dry or not can_claim):
            await self._pause(turn, can_claim=can_claim)
        return True

    def _enforce_grace(self) -> None:
        if self._stop_at is None or self._settings.clock.now() < self._stop_at:
            return
        for held in self._held.values():
            if not held.reason:
                logger.warning("Task %s is released: it did not finish in the grace time.", held.task.id)
                held.stop("release")
                self._put_back(held.task)  # now: it may take its handler a while to end

    def _room(self) -> int:
        """Return how many tasks to claim now."""
        if self._stop_at is not None or any(held.task.isolated for held in self._held.values()):
            return 0
        if self._to_run_alone is not None:
            return 0 if self._held else 1
        room = self._settings.max_concurrent - len(self._held)
        return room if self._max_tasks is None else min(room, self._max_tasks - self._started)

    async def _turn(self, settlements: list[Settlement], limit: int) -> Turn:
        try:
            turn = await self._settings.queue.turn(
                settlements,
                worker=self._settings.worker,
                lanes=self._settings.lanes,
                limit=limit,
                lease_timeout=self._settings.lease_timeout,
            )
        except BaseException:
            self._settlements[:0] = settlements  # to be settled at the next try, or on the way out
            raise
        if settlements or turn.claimed:
            self._note_recovery()
        self._note(settlements, turn.settled)
        return turn

    def _note_recovery(self) -> None:
        if self._failures:
            logger.warning("The store answers again after %d failures.", self._failures)
        self._failures = 0

    async def _back_off(self, failure: StorageError) -> None:
        self._failures += 1
        self._failed_at = self._settings.clock.now()
        wait = RECONNECT.backoff(self._failures, self._settings.random)
        logger.warning("The store does not answer, trying again in %.1f s: %s", wait, failure)
        with anyio.CancelScope() as self._idle:
            await self._settings.clock.sleep(wait)
        self._idle = None

    def _note(self, settlements: Sequence[Settlement], settled: Sequence[Task | QueueError]) -> None:
        for one, end in zip(settlements, settled, strict=True):
            if isinstance(end, StorageError):
                self._settlements.append(one)
                self._trouble = end
                continue
            self._keeper.drop(one.task.id, one.task.lease)
            if isinstance(end, QueueError):
                logger.warning("The work on task %s is dropped: %s", one.task.id, end)
                continue
            self._settled += end.status.is_terminal
            _log_end(end)
            if end.status is TaskStatus.PENDING:
                self._retries_until = max(self._retries_until, end.head.run_at)

    def _start(self, claimed: Sequence[Task], handlers: TaskGroup) -> None:
        """Start what may run now; a task that must run alone goes back until nothing else runs here (C25)."""
        is_alone = len(claimed) == 1 and not self._held
        if claimed:
            self._to_run_alone = None
        for task in claimed:
            if self._stop_at is not None:
                self._put_back(task)
            elif earlier := self._held.get(task.id):
                earlier.stop("lost")  # it does not know yet that its lease was
                self._put_back(task, delay=REAP_EVERY)
            elif task.isolated and not is_alone:
                self._to_run_alone = task.id
                self._put_back(task)
            else:
                self._start_handler(_Held(task), handlers)

    def _start_handler(self, held: _Held, handlers: TaskGroup) -> None:
        task = held.task
        self._held[task.id] = held
        self._started += 1
        self._keeper.hold(task.id, task.lease)
        logger.info("Task %s begins, attempt %d of %d.", task.id, task.attempt, task.max_attempts)
        handlers.start_soon(self._handle, held, name=f"task {task.id}")

    def _put_back(self, task: Task, *, delay: float = 0.0) -> None:
        self._settlements.append(settlement.release(task, delay=delay))
        self._has_news = True

    async def _forget_it_if_gone(self) -> None:
        """Wait no longer for the task that is to run alone, if it went elsewhere meanwhile."""
        if self._to_run_alone is None or not self._held:
            return
        (found,) = await self._settings.queue.backend.get([self._to_run_alone], payload=False)
        if found is None or found.head.status is not TaskStatus.PENDING:
            self._to_run_alone = None

    async def _is_finished(self, *, is_dry: bool) -> bool:
        if self._held or self._settlements:
            return False
        if self._stop_at is not None:
            return True
        if self._max_tasks is not None and self._started >= self._max_tasks:
            return True
        if not (self._drain and is_dry and self._retries_until <= self._settings.queue.backend.now()):
            self._is_quiet = False
            return False
        was_quiet = self._is_quiet
        counts = await self._settings.queue.backend.count()
        self._is_quiet = not any(counts.get((lane, TaskStatus.IN_PROGRESS)) for lane in self._settings.lanes)
        if self._is_quiet and not was_quiet:
            self._has_news = True  # once more: a task may have come back between the claim and the count
        return self._is_quiet and was_quiet

    def _is_given_up(self) -> bool:
        """Whether the store has not answered until after the grace time: leases must expire by themselves."""
        return self._stop_at is not None and self._settings.clock.now() > self._stop_at and not self._held

    async def _reap_if_due(self, next_at: float | None) -> None:
        elapsed = (self._settings.clock.now() - self._reaped_at) / MICROSECONDS
        if elapsed >= REAP_EVERY or (next_at == 0 and elapsed > 0):
            self._reaped_at = self._settings.clock.now()
            if await self._settings.queue.reap():
                self._has_news = True

    async def _pause(self, turn: Turn, *, can_claim: bool) -> None:
        """Wait until a handler ends, a task may be ready, something is due, or the next look is."""
        since = (self._settings.clock.now() - self._reaped_at) / MICROSECONDS
        seconds = min(max(REAP_EVERY - since, 0.001), self._settings.poll_interval)
        if turn.next_at is not None:
            seconds = min(seconds, max(turn.next_at, 0.001))
        now = self._settings.clock.now()
        if self._stop_at is not None and self._stop_at > now:
            seconds = min(seconds, (self._stop_at - now) / MICROSECONDS)
        with anyio.CancelScope() as self._idle:
            if can_claim:
                await self._settings.queue.wait_ready(self._settings.lanes, turn.mark, seconds)
            else:
                await self._settings.clock.sleep(seconds)
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
            del self._held[held.task.id]
            self._notify()
        if held.reason == "release":
            return
        if end is None:
            self._keeper.drop(held.task.id, held.task.lease)
        else:
            self._settlements.append(end)  # until it is settled, its lease is kept

    async def _settlement_of(self, held: _Held) -> Settlement | None:
        """Run the handler, and return how the task is to be settled; None where it is not ours any more."""
        task = held.task
        results: list[Any] = []
        try:
            with held.scope, self._settings.clock.timeout(task.timeout):
                results.append(await self._settings.handler(task))
            if results:
                return self._completion(task, results[0])
        except anyio.get_cancelled_exc_class() as cancelled:
            return await self._cancelled(task, cancelled)
        except BaseExceptionGroup as group:  # on trio, one may hold a cancellation beside an error
            if not isinstance(group, Exception):
                return await self._cancelled(task, group)
            return self._failure(task, group)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is the outcome
            return self._failure(task, error)
        if held.reason:
            return self._stopped(held)
        return self._failure(
            task, TimeoutError(f"The task took longer than its timeout of {task.timeout} s.")
        )

    def _completion(self, task: Task, result: Any) -> Settlement:
        limit: int = self._settings.queue.max_payload
        entries: tuple[bytes, ...] = ()
        if isinstance(result, Finished):
            entries, result = tuple(journal.entry(one, limit) for one in result.entries), result.result
            limit += ROOM  # what it wraps was held to the limit when it was told
        return settlement.completion(task, result, limit, self._settings.random, entries)

    def _failure(self, task: Task, error: BaseException) -> Settlement:
        is_pointless = isinstance(error, POINTLESS)
        return settlement.failure(
            task, error, retry=not is_pointless, delay=None, random=self._settings.random
        )

    def _stopped(self, held: _Held) -> Settlement | None:
        if held.reason == "lost":
            logger.warning("The lease of task %s was lost, its work is dropped.", held.task.id)
            return None
        return settlement.release(held.task)  # of a task whose cancel was requested, this makes it cancelled

    async def _cancelled(self, task: Task, cause: BaseException) -> Settlement:
        """Give the task back if this worker is being cancelled; else the handler cancelled itself."""
        try:
            await checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            self._settlements.append(settlement.release(task))
            raise
        if isinstance(cause, BaseExceptionGroup):
            if cause.subgroup(KeyboardInterrupt):
                raise cause
            return self._failure(task, cause)
        return self._failure(task, ActorError(str(task.goal)))

    def _stop_task(self, task_id: str, reason: str) -> None:
        if held := self._held.get(task_id):
            held.stop(reason)

    # Stopping

    async def _settle_last(self) -> None:
        """Give back what ran when this worker was cancelled; what cannot be within a few seconds expires."""
        with anyio.CancelScope(shield=True), self._settings.clock.timeout(LAST_WORDS):
            settlements, self._settlements = self._settlements, []
            try:
                turn = await self._settings.queue.turn(
                    settlements,
                    worker=self._settings.worker,
                    lanes=self._settings.lanes,
                    limit=0,
                    lease_timeout=1.0,
                )
            except QueueError as failure:
                logger.warning("%d tasks could not be released: %s", len(settlements), failure)
            else:
                self._note(settlements, turn.settled)


def _log_end(task: Task) -> None:
    """Tell what became of a task: with the reason, where it is not what one hopes for."""
    error = task.error or {}
    reason = f"{error.get('type')}: {error.get('message')}"
    if task.status is TaskStatus.FAILED:
        logger.warning("Task %s is failed: %s", task.id, reason)
    elif task.status is TaskStatus.PENDING and error and task.attempt:
        logger.warning("Task %s is to be tried again: %s", task.id, reason)
    else:
        logger.info("Task %s is %s.", task.id, task.status)
