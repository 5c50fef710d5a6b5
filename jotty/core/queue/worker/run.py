"""One run of a worker: the loop that settles, claims and waits, and the handlers it has started."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint

from jotty.core.queue import settlement
from jotty.core.queue.clock import MICROSECONDS, Clock, microseconds
from jotty.core.queue.task import TaskStatus
from jotty.core.queue.task_queue import TaskQueue, Turn
from jotty.errors import QueueError, SchemaError, StorageError, StoreCorrupt

from .attendants import Attendants
from .cancels import hear_of_cancels
from .crew import Crew
from .endings import log_end, log_left
from .handling import Handler, Handling, Held
from .outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from types import FrameType

    from jotty.core.queue.retry import Random
    from jotty.core.queue.settlement import Settlement
    from jotty.core.queue.task import Task

__all__ = ["WorkerRun", "WorkerSettings"]

logger = logging.getLogger("jotty.queue")

REAP_EVERY: Final = 1.0
RECOVERED_AFTER: Final = 10 * MICROSECONDS  # without a failure; sooner if something was written
LAST_MOMENTS: Final = 0.5  # seconds that handlers have to end once they are stopped; then others may begin
COURTESY: Final = 0.1  # seconds by which who could not run a task is later for it than who may be able to
LAST_WORDS: Final = 5.0  # seconds for releasing what runs when the worker itself is cancelled
NO_TURN: Final = Turn([], [], 0, None)


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """What `QueueManager` was given; see there."""

    queue: TaskQueue
    handler: Handler
    lanes: tuple[str, ...]
    max_concurrent: int
    lease_timeout: float
    heartbeat: float
    grace: float
    poll_interval: float
    retention: timedelta | None
    describe: Callable[[FrameType], str | None] | None
    worker: str
    clock: Clock
    random: Random


class WorkerRun:
    """What a worker knows between its start and its end. To be made on its event loop.

    Args:
        settings: The worker's.
        max_tasks: How many tasks to claim at most; None for no bound.
        drain: Whether to end when nothing is ready and nothing runs here.
    """

    def __init__(self, settings: WorkerSettings, *, max_tasks: int | None, drain: bool) -> None:
        self._settings = settings
        self._queue, self._clock = settings.queue, settings.clock
        self._max_tasks = max_tasks
        self._drain = drain
        self._held: dict[str, Held] = {}
        self._alone: Held | None = None  # a task that runs alone
        self._to_run_alone: str | None = None  # one that is to, for which this worker empties itself
        self._settlements: list[Settlement] = []
        self._started = 0
        self._stop_at: int | None = None
        self._retries_until = 0
        self._is_quiet = False
        self._reaped_at = settings.clock.now()
        self._outage = Outage("The store does not answer", "The store answers again", settings.random)
        self._failed_at = 0
        self._trouble: StorageError | None = None
        self._error: BaseException | None = None
        self._idle: anyio.CancelScope | None = None
        self._has_news = False
        self._attendants = Attendants(settings, self._running, self._stop_task)
        self._unhandled = self._attendants.unhandled
        self._keeper = self._attendants.keeper
        self._handling = Handling(
            settings.handler,
            limit=settings.queue.max_payload,
            clock=settings.clock,
            random=settings.random,
            unhandled=self._unhandled,
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that run here now."""
        return tuple(held.task for held in self._held.values())

    @property
    def unsettled(self) -> tuple[str, ...]:
        """The ids of the tasks whose leases are held now; from any thread."""
        return tuple(self._keeper.held)

    async def work(self) -> int:
        """Work until there is nothing left to do or `stop`, and return how many tasks ended here."""
        async with anyio.create_task_group() as keepers:
            keepers.start_soon(self._keep_leases)
            try:
                await self._keeper.is_ready.wait()
                await self._run_handlers()
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised below, bare
                self._error = self._error or error
            finally:
                self._keeper.stop()
        self._unhandled.tell()
        if self._error is not None:
            raise self._error
        return self._attendants.tally.total

    def stop(self, grace: float) -> None:
        """Claim no more, and release after the grace time, in seconds, what still runs then."""
        self._stop_after(grace)
        self._notify()

    def be_stopped(self, grace: float) -> None:
        """Take note of a `stop` that the loop hears of as soon as it is not blocked; from any thread."""
        self._stop_after(grace)
        self._attendants.stop_after(grace)

    def _stop_after(self, grace: float) -> None:
        at = self._clock.now() + microseconds(grace)
        self._stop_at = at if self._stop_at is None else min(self._stop_at, at)

    async def _keep_leases(self) -> None:
        try:
            await self._attendants.attend()
        except Exception as error:  # noqa: BLE001 - a worker that cannot keep its leases must not go on
            self._error = error
            self.stop(0.0)

    def _running(self) -> tuple[str, ...]:
        return tuple(self._held)

    # The loop

    async def _run_handlers(self) -> None:
        try:
            async with anyio.create_task_group() as handlers:
                handlers.start_soon(self._hear_of_cancels)
                crew = Crew(handlers, self._handle)
                try:
                    while self._handling.interrupt is None and await self._step(crew):
                        pass
                    self._error = self._error or self._handling.interrupt
                except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised by work(), bare
                    self._error = error
                handlers.cancel_scope.cancel()
        finally:
            self._settlements += [
                settlement.release(held.task)
                for held in self._held.values()
                if held.reason != "lost" and not held.is_given_back
            ]
            if self._settlements:
                await self._settle_last()

    async def _hear_of_cancels(self) -> None:
        await hear_of_cancels(
            self._queue.backend,
            self._settings.worker,
            self._running,
            self._stop_task,
            clock=self._clock,
            random=self._settings.random,
        )

    async def _step(self, crew: Crew[Held]) -> bool:
        """Settle, claim, reap and wait for news; return whether there is more to do."""
        self._has_news = False
        self._enforce_grace()
        try:
            goes_on = await self._take_turn(crew)
        except (SchemaError, StoreCorrupt):
            raise
        except StorageError as failure:
            await self._back_off(failure)
            return not self._is_given_up()
        if self._clock.now() - self._failed_at >= RECOVERED_AFTER:
            self._outage.over()
        return goes_on

    async def _take_turn(self, crew: Crew[Held]) -> bool:
        settlements, self._settlements = self._settlements, []
        if not settlements:
            await self._forget_it_if_gone()
        limit = self._room()
        turn = await self._turn(settlements, limit) if settlements or limit else NO_TURN
        self._start(turn.claimed, crew)
        if self._trouble is not None:
            failure, self._trouble = self._trouble, None
            raise failure
        is_dry = len(turn.claimed) < limit
        await self._reap_if_due(turn.next_at, is_known=is_dry)
        if await self._is_finished(is_dry=is_dry and not settlements):
            return False
        if turn.claimed:
            await checkpoint()  # what is done at once needs no pause
        # what was settled may have made other tasks ready, after the claim
        goes_round = self._has_news or (self._drain and settlements)
        can_claim = self._room() > 0
        if not goes_round and (is_dry or not can_claim):
            await self._pause(turn, can_claim=can_claim)
        return True

    def _enforce_grace(self) -> None:
        """Stop what still runs when the grace is over, and give it back, at the latest soon after."""
        if self._stop_at is None or (now := self._clock.now()) < self._stop_at:
            return
        self._attendants.leave()
        for held in self._held.values():
            if not held.reason:
                logger.warning("Task %s is released: it did not finish in the grace time.", held.task.id)
                held.stop("release")
            # as a rule when its handler has ended, which may have last words for the journal
            is_due = now >= self._stop_at + microseconds(LAST_MOMENTS)
            if held.reason == "release" and is_due and not held.is_given_back:
                held.is_given_back = True
                self._put_back(held.task)

    def _room(self) -> int:
        """Return how many tasks to claim now."""
        if self._stop_at is not None or self._alone is not None:
            return 0
        if self._to_run_alone is not None:
            return 0 if self._held else 1
        room = self._settings.max_concurrent - len(self._held)
        return room if self._max_tasks is None else min(room, self._max_tasks - self._started)

    async def _turn(self, settlements: list[Settlement], limit: int) -> Turn:
        settings = self._settings
        try:
            turn = await self._queue.turn(
                settlements,
                worker=settings.worker,
                lanes=settings.lanes,
                limit=limit,
                lease_timeout=settings.lease_timeout,
            )
        except BaseException:
            self._settlements[:0] = settlements  # to be settled at the next try, or on the way out
            raise
        if turn.claimed or not all(isinstance(end, StorageError) for end in turn.settled):
            self._outage.over()
        self._note(settlements, turn.settled)
        self._attendants.tally.add(len(turn.failed))
        for task in turn.failed:
            log_end(task)
        return turn

    async def _back_off(self, failure: StorageError) -> None:
        self._failed_at = self._clock.now()
        wait = self._outage.failed(failure)
        if self._stop_at is not None and self._stop_at > self._failed_at:
            wait = min(wait, (self._stop_at - self._failed_at) / MICROSECONDS)
        with anyio.CancelScope() as self._idle:
            await self._clock.sleep(wait)
        self._idle = None

    def _note(self, settlements: Sequence[Settlement], settled: Sequence[Task | QueueError]) -> None:
        ended = 0
        for one, end in zip(settlements, settled, strict=True):
            if isinstance(end, StorageError):
                self._settlements.append(one)
                self._trouble = end
                continue
            self._keeper.drop(one.task.head.id, one.task.head.lease)
            if isinstance(end, QueueError):
                logger.warning("The work on task %s is dropped: %s", one.task.id, end)
                continue
            head = end.head
            ended += head.status.is_terminal
            if head.id in self._unhandled:
                continue  # it was told of once, and is not waited for
            if head.status is TaskStatus.PENDING:
                self._retries_until = max(self._retries_until, head.run_at)
            log_end(end)
        self._attendants.tally.add(ended)

    def _start(self, claimed: Sequence[Task], crew: Crew[Held]) -> None:
        """Start what may run now; a task that must run alone goes back until nothing else runs here (C25)."""
        is_alone = len(claimed) == 1 and not self._held
        if claimed:
            self._to_run_alone = None
        for task in claimed:
            if self._stop_at is not None:
                self._put_back(task)
            elif earlier := self._held.get(task.head.id):
                earlier.stop("lost")  # it does not know yet that its lease was
                self._put_back(task, delay=REAP_EVERY)
            elif task.head.isolated and not is_alone:
                self._to_run_alone = task.id
                self._put_back(task)
            else:
                self._start_handler(Held(task), crew)

    def _start_handler(self, held: Held, crew: Crew[Held]) -> None:
        head = held.task.head
        self._held[head.id] = held
        self._alone = held if head.isolated else self._alone
        self._started += 1
        self._keeper.hold(head.id, head.lease)
        if head.id not in self._unhandled:
            logger.info("Task %s begins, attempt %d of %d.", head.id, head.attempt, head.max_attempts)
        crew.give(held)

    def _put_back(self, task: Task, *, delay: float = 0.0) -> None:
        self._settlements.append(settlement.release(task, delay=delay))
        self._has_news = True

    async def _forget_it_if_gone(self) -> None:
        """Wait no longer for the task that is to run alone, if it went elsewhere meanwhile."""
        if self._to_run_alone is None or not self._held:
            return
        (found,) = await self._queue.backend.get([self._to_run_alone], payload=False)
        if found is None or found.head.status is not TaskStatus.PENDING:
            self._to_run_alone = None

    async def _is_finished(self, *, is_dry: bool) -> bool:
        if self._held or self._settlements:
            return False
        if self._stop_at is not None:
            return True
        if self._max_tasks is not None and self._started >= self._max_tasks:
            return True
        if not (self._drain and is_dry and self._retries_until <= self._queue.backend.now()):
            self._is_quiet = False
            return False
        was_quiet = self._is_quiet
        counts = await self._queue.backend.count()
        self._is_quiet = not any(counts.get((lane, TaskStatus.IN_PROGRESS)) for lane in self._settings.lanes)
        if self._is_quiet and not was_quiet:
            self._has_news = True  # once more: a task may have come back between the claim and the count
        return self._is_quiet and was_quiet and not await self._waits_for_others()

    async def _waits_for_others(self) -> bool:
        """Whether a task is about to come back that another worker could not run, and this one may."""
        backend = self._queue.backend
        comes_at = await self._unhandled.first_of_others(backend, self._settings.lanes)
        if comes_at is None:
            return False
        self._retries_until = max(self._retries_until, comes_at)
        self._is_quiet = False
        return True

    def _is_given_up(self) -> bool:
        """Whether a store that does not answer is waited for no longer: leases must expire by themselves."""
        if self._stop_at is None or self._held:
            return False
        return not self._settlements or self._clock.now() >= self._stop_at

    async def _reap_if_due(self, next_at: float | None, *, is_known: bool) -> None:
        """Make what moves are due, each second; or at once where a claim has seen that there are some.

        Args:
            next_at: When something is due or ready.
            is_known: Whether that was looked for.
        """
        now = self._clock.now()
        elapsed = (now - self._reaped_at) / MICROSECONDS
        if elapsed < REAP_EVERY and not (next_at == 0 and elapsed > 0):
            return
        self._reaped_at = now
        if is_known and next_at != 0:
            return
        if await self._queue.reap():
            self._has_news = True

    async def _pause(self, turn: Turn, *, can_claim: bool) -> None:
        """Wait until a handler ends, a task may be ready, something is due, or the next look is."""
        now = self._clock.now()
        since = (now - self._reaped_at) / MICROSECONDS
        seconds = self._clock.every(min(max(REAP_EVERY - since, 0.001), self._settings.poll_interval))
        if turn.next_at is not None:
            courtesy = COURTESY if self._unhandled else 0.0
            seconds = min(seconds, max(turn.next_at + courtesy, 0.001))
        if self._stop_at is not None:
            at = self._stop_at if self._stop_at > now else self._stop_at + microseconds(LAST_MOMENTS)
            seconds = min(seconds, max((at - now) / MICROSECONDS, 0.001)) if at > now else seconds
        with anyio.CancelScope() as self._idle:
            if can_claim:
                await self._queue.wait_ready(self._settings.lanes, turn.mark, seconds)
            else:
                await self._clock.sleep(seconds)
        self._idle = None

    def _notify(self) -> None:
        self._has_news = True
        if self._idle is not None:
            self._idle.cancel()

    # One task

    async def _handle(self, held: Held) -> None:
        end = await self._handling.settlement_of(held)
        head = held.task.head
        del self._held[head.id]
        if self._alone is held:
            self._alone = None
        if head.id in self._unhandled:
            self._started -= 1  # it was not for this worker
        self._notify()
        if held.is_given_back:
            return
        if end is None:
            self._keeper.drop(head.id, head.lease)
        else:
            self._settlements.append(end)  # until it is settled, its lease is kept

    def _stop_task(self, task_id: str, reason: str) -> None:
        if held := self._held.get(task_id):
            held.stop(reason)

    # Stopping

    async def _settle_last(self) -> None:
        """Give back what is left; what cannot be within a few seconds expires, and is named."""
        cause = "the store does not answer"
        with anyio.CancelScope(shield=True), self._clock.timeout(LAST_WORDS):
            settlements, self._settlements = self._settlements, []
            try:
                await self._turn(settlements, limit=0)
                cause = str(self._trouble)
            except QueueError as failure:
                cause = str(failure)
        if left := log_left(self._settlements, cause):
            tasks = "1 task" if left == 1 else f"{left} tasks"
            self._error = self._error or StorageError(
                self._queue.url, f"{tasks} could not be given back when the worker stopped."
            )
