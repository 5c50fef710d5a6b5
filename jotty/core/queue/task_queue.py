"""`TaskQueue`: what people hold. The semantics of the contract, over any `QueueBackend`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import (
    LeaseLost,
    QueueError,
    StorageError,
    StoreCorrupt,
    TaskNotFound,
)

from . import journal, settlement
from .backend import Change, ClaimRequest, Outcome, QueueBackend, Record, Swapped
from .client import QueueClient
from .clock import MICROSECONDS, Clock, SystemClock, microseconds
from .lineage import ProcessRandom
from .payload import MAX_PAYLOAD
from .reaper import examine_all
from .record import new_head, new_payload, outcome_from
from .retry import DEFAULT_RETRY, Random, RetryPolicy
from .task import (
    Head,
    NewTask,
    OnDependency,
    Task,
    TaskStatus,
    check_count,
    check_lanes,
    check_name,
    check_seconds,
    from_microseconds,
    may_exist,
    task_with,
)

if TYPE_CHECKING:
    from .settlement import Settlement

__all__ = ["TaskQueue", "Turn"]

Move = Callable[[Head, "Sequence[Head | None]", int], "Head | None"]
LAST_WORDS: Final = 5.0


@attrs.frozen
class Turn:
    """What one turn of a worker gave.

    Attributes:
        settled: For each settlement, the task as it is now, or the error that kept it from being settled.
        claimed: The tasks claimed.
        mark: For `TaskQueue.wait_ready`.
        next_at: Seconds until something is to be claimed or reaped; None if nothing is in sight.
        failed: The tasks that were claimed and failed at once, as their payloads are damaged.
    """

    settled: list[Task | QueueError]
    claimed: list[Task]
    mark: int
    next_at: float | None
    failed: list[Task] = attrs.field(factory=list)


class TaskQueue(QueueClient):
    """A durable queue of goals, with the semantics of the queue contract over any backend.

    It opens itself at first use; `async with` or `aclose` closes it. Every call is atomic: whole effect or
    none, also when it is cancelled. One handle serves one event loop. Besides the errors named at each
    method, all raise `QueueClosed` after `aclose` and `StorageError` where the store fails.

    Args:
        backend: The store.
        clock: Where waits and the wall-clock time come from; the backend has the store's own time.
        random: Where ids and jitter come from; by default a generator that the system seeds.
        max_size: The most live tasks the store may hold; None for no bound.
        max_payload: The most bytes of JSON that a task, a result or a journal entry may have.

    Attributes:
        backend: The store.
        max_size: As above.
        max_payload: As above.
    """

    def __init__(
        self,
        backend: QueueBackend,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_size: int | None = None,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        if max_size is not None:
            check_count("max_size", max_size)
        check_count("max_payload", max_payload)
        super().__init__(backend, clock or SystemClock(), max_payload)
        self._random: Random = random or ProcessRandom()
        self.max_size = max_size

    # Enqueue

    async def enqueue(
        self,
        goal: Any,
        context: dict[str, Any] | None = None,
        *,
        priority: int = 3,
        lane: str = "default",
        delay: float | None = None,
        run_at: datetime | None = None,
        key: str | None = None,
        depends_on: Sequence[str] = (),
        on_dependency: OnDependency = "fail",
        max_attempts: int = 3,
        retry: RetryPolicy = DEFAULT_RETRY,
        timeout: float | None = None,
        status: TaskStatus | str = TaskStatus.PENDING,
        tags: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Task:
        """Store a task and return it; once this returns, every process sees it.

        While a task with the same `key` is live, that one is returned and nothing is written.
        `NewTask` documents the arguments.

        Raises:
            PayloadError: Goal, context, metadata or headers are not strict JSON or too large; says where.
            QueueFull: The store holds `max_size` live tasks.
            TaskNotFound: One of `depends_on` is not in the store.
            ValueError, TypeError: An argument is wrong.
        """
        new = NewTask(
            goal,
            context,
            priority=priority,
            lane=lane,
            delay=delay,
            run_at=run_at,
            key=key,
            depends_on=depends_on,
            on_dependency=on_dependency,
            max_attempts=max_attempts,
            retry=retry,
            timeout=timeout,
            status=status,
            tags=tags,
            metadata=metadata,
            headers=headers,
        )
        return (await self._enqueue([new]))[0]

    async def enqueue_many(self, tasks: Iterable[NewTask]) -> list[Task]:
        """Store tasks, all or none, in the order of the list, and return them in that order.

        Raises:
            PayloadError, QueueFull, TaskNotFound, ValueError, TypeError: As `enqueue`; nothing was written.
        """
        batch = list(tasks)
        if not all(isinstance(new, NewTask) for new in batch):
            raise TypeError("enqueue_many takes NewTask values, like NewTask(goal, context, priority=1).")
        return await self._enqueue(batch)

    async def _enqueue(self, batch: Sequence[NewTask]) -> list[Task]:
        payloads = [new_payload(new, self.max_payload) for new in batch]
        backend = await self._open()
        if not batch:
            return []
        stored = await backend.insert(self._new_records(batch, payloads), limit=self.max_size)
        if due := {record.head.id: record.head for record in stored if record.head.due == 0}:
            await examine_all(backend, list(due.values()))
            again = await backend.get([record.head.id for record in stored])
            stored = [new or old for new, old in zip(again, stored, strict=True)]
        return [self._task(record) for record in stored]

    def _new_records(self, batch: Sequence[NewTask], payloads: Sequence[bytes]) -> list[Record]:
        """Return what is to be stored.

        Raises:
            TaskNotFound: One depends on an id that no store can hold.
        """
        now, wall = self.backend.now(), self._clock.wall()
        ids: list[str] = []
        records = []
        for new, payload in zip(batch, payloads, strict=True):
            ids.append(_time_ordered_id(wall, self._random))
            head = new_head(new, ids, now=now, wall=wall)
            for parent in head.depends_on:
                if not may_exist(parent):
                    raise TaskNotFound(parent)
            records.append(Record(head, payload))
        return records

    # Claim and lease

    async def claim(
        self,
        *,
        worker: str,
        lanes: Sequence[str] = ("default",),
        limit: int = 1,
        lease_timeout: float = 30.0,
        wait: float = 0.0,
    ) -> list[Task]:
        """Take the first ready tasks in the order (priority, run_at, seq), or none.

        No two callers get a task under one lease. A claim that is cancelled gives back what it took.

        Args:
            worker: Who asks; shown on the task.
            lanes: Where to take from; several are merged in that order.
            limit: How many tasks at most.
            lease_timeout: Seconds until others may have them again, unless `heartbeat` renews the lease.
            wait: Seconds to wait for at least one; 0 returns at once.
        """
        request = _claim_request(worker, lanes, limit, lease_timeout)
        check_count("limit", limit)
        check_seconds("wait", wait)
        backend = await self._open()
        deadline = self._clock.now() + microseconds(wait)
        while True:
            await self._reap_sometimes()
            claimed = await backend.claim(request)
            if claimed.records:
                tasks, damaged = self._readable(claimed.records)
                try:
                    await self._set_aside(damaged)
                except BaseException:
                    await self._give_back(tasks)
                    raise
                if tasks:
                    return tasks
                continue
            seconds = self._seconds_until(claimed.next_at)
            if seconds == 0 and await self.reap():
                continue
            remaining = (deadline - self._clock.now()) / MICROSECONDS
            if remaining <= 0:
                return []
            pause = remaining if seconds is None else min(remaining, max(seconds, 0.001))
            await self.wait_ready(request.lanes, claimed.mark, pause)

    async def wait_ready(self, lanes: Sequence[str], mark: int, timeout: float) -> None:
        """Return once a task may have become ready in these lanes since `mark`, or after the timeout."""
        backend = await self._open()
        if len(lanes) == 1:
            await backend.wait(f"lane:{lanes[0]}", mark, timeout)
        else:
            await _first_of([partial(backend.wait, f"lane:{lane}", mark, timeout) for lane in lanes])
        self._check_open()

    async def heartbeat(self, tasks: Sequence[Task], *, lease_timeout: float = 30.0) -> list[Task | None]:
        """Renew leases, which never become shorter; None stands for a task that is no longer held.

        `cancel_requested` on a returned task tells that its holder should stop.
        """
        check_seconds("lease_timeout", lease_timeout, above_zero=True)
        backend = await self._open()
        records = await backend.extend([(task.id, task.lease) for task in tasks], microseconds(lease_timeout))
        return [
            attrs.evolve(task, head=record.head) if record else None
            for task, record in zip(tasks, records, strict=True)
        ]

    # Settle

    async def complete(self, task: Task, result: Any = None) -> Task:
        """Finish a task well, storing state and result together; again with the same lease changes nothing.

        A result that is longer than `max_payload` fails the task at once, with that error.

        Raises:
            LeaseLost: The task is not held under this lease any more.
            PayloadError: The result is not strict JSON; the task is still in progress.
        """
        return await self._settle(settlement.completion(task, result, self.max_payload, self._random))

    async def fail(
        self, task: Task, error: BaseException | str, *, retry: bool = True, delay: float | None = None
    ) -> Task:
        """End this attempt: back to the line after a backoff, or to failed where no attempt is left.

        A `RetryLater` as the error postpones the task and costs no attempt. A task whose cancel was
        requested is cancelled instead.

        Args:
            task: The task, as it was claimed.
            error: What went wrong; kept as type, message and traceback, 8 KiB at most.
            retry: Whether another attempt makes sense.
            delay: Seconds until the next attempt; None for the task's own policy.

        Raises:
            LeaseLost: The task is not held under this lease any more.
        """
        return await self._settle(
            settlement.failure(task, error, retry=retry, delay=delay, random=self._random)
        )

    async def release(self, task: Task, *, delay: float = 0.0) -> Task:
        """Give a task back, to its place in line, with its attempt; it may be claimed at once.

        Args:
            task: The task, as it was claimed.
            delay: Seconds until it may be claimed again; more than 0 moves its place in line.

        Raises:
            LeaseLost: The task is not held under this lease any more.
        """
        return await self._settle(settlement.release(task, delay=delay))

    async def park(self, task: Task, awaiting: Collection[str], *, until: datetime | None = None) -> Task:
        """Have a task wait, blocked and held by no worker, for an answer; its attempt is given back.

        It is pending again once one of the questions is answered (at once if one is already), or at `until`.

        Raises:
            LeaseLost: The task is not held under this lease any more.
        """
        instant = None if until is None else self._instant(until)
        return await self._settle(settlement.parking(task, awaiting, until=instant))

    async def record(self, task: Task, entries: Iterable[dict[str, Any] | journal.EncodedEntry]) -> int:
        """Append to the task's journal, and return the number of its last entry.

        Args:
            task: The task, as it was claimed.
            entries: Strict JSON dicts, each with a text under `kind` other than "end", "call" and "answer".

        Raises:
            LeaseLost: The task is not held under this lease any more.
            PayloadError: An entry is no such dict, or longer than `max_payload`; nothing was written.
        """
        encoded = [journal.entry(data, self.max_payload) for data in entries]
        backend = await self._open()
        return await backend.append(task.id, task.lease, encoded)

    async def turn(
        self,
        settlements: Sequence[Settlement],
        *,
        worker: str,
        lanes: Sequence[str],
        limit: int,
        lease_timeout: float,
    ) -> Turn:
        """Settle many tasks and claim the next ones, in one step of the store: a worker's fast path.

        A settlement that comes too late, or fails after the claim, stops neither the others nor the claim.
        Limit 0 claims nothing. If this is cancelled, what it claimed is given back.

        Raises:
            StorageError: The store failed; nothing was claimed, and what was settled is unknown.
        """
        request = _claim_request(worker, lanes, limit, lease_timeout)
        backend = await self._open()
        now = backend.now()
        held = [one for one in settlements if one.is_held()]
        changes = [one.change(one.task.head, now) for one in held]
        try:
            swapped, claimed = await backend.turn(changes, request)
        except BaseException:
            _doubt(held, changes)
            raise
        tasks, damaged = self._readable(claimed.records)
        firsts = iter(swapped)
        try:
            failed = await self._set_aside(damaged)
            settled = [
                await self._followed(one, next(firsts) if one.is_held() else None) for one in settlements
            ]
            await checkpoint_if_cancelled()
        except BaseException:
            await self._give_back(tasks)
            raise
        return Turn(settled, tasks, claimed.mark, self._seconds_until(claimed.next_at), failed)

    def _readable(self, records: Sequence[Record]) -> tuple[list[Task], list[Settlement]]:
        """Return what was claimed, and what fails those of it whose payload is damaged (C47)."""
        tasks, damaged = [], []
        for record in records:
            try:
                tasks.append(self._claimed(record))
            except StoreCorrupt as damage:
                bare = Task(head=record.head)
                damaged.append(settlement.failure(bare, damage, retry=False, delay=None, random=self._random))
        return tasks, damaged

    def _claimed(self, record: Record) -> Task:
        try:
            return self._task(record)
        except StoreCorrupt:
            if record.outcome is None:
                raise
            # how an earlier attempt ended is no reason not to run
            return self._task(attrs.evolve(record, outcome=None))

    async def _set_aside(self, damaged: Sequence[Settlement]) -> list[Task]:
        """Fail what is damaged, and return it."""
        failed = []
        for one in damaged:
            with suppress(QueueError):  # what cannot be told now is told when its lease has expired
                failed.append(await self._settle(one))
        return failed

    async def _followed(self, what: Settlement, first: Swapped | None) -> Task | QueueError:
        if first and first.outcome is Outcome.OK and first.record and not _is_followed(first):
            return _with(what.task, first.record)  # without a coroutine for each of many
        try:
            return await self._settled(what, first)
        except StorageError as failure:
            return failure

    async def _give_back(self, tasks: Sequence[Task]) -> None:
        """Release what nobody will run; what cannot be within a few seconds expires."""
        with anyio.CancelScope(shield=True), self._clock.timeout(LAST_WORDS), suppress(QueueError):
            for task in tasks:
                await self._settle(settlement.release(task))

    async def _settle(self, what: Settlement) -> Task:
        await self._open()
        first = await self._swap(what, what.task.head) if what.is_held() else None
        settled = await self._settled(what, first)
        if isinstance(settled, QueueError):
            raise settled
        return settled

    async def _swap(self, what: Settlement, head: Head) -> Swapped:
        change = what.change(head, self.backend.now())
        try:
            return (await self.backend.swap([change]))[0]
        except BaseException:
            _doubt([what], [change])
            raise

    async def _settled(self, what: Settlement, first: Swapped | None) -> Task | QueueError:
        """Follow a first swap, if there was one, to its end: again while only the version was stale."""
        swapped = first or Swapped(Outcome.STALE, (await self.backend.get([what.task.id]))[0])
        while swapped.outcome is Outcome.STALE and swapped.record and what.holds(swapped.record.head):
            swapped = await self._swap(what, swapped.record.head)
        record = swapped.record
        if record is None or not (swapped.outcome is Outcome.OK or what.is_done(record.head)):
            return LeaseLost(what.task.id, what.task.lease)
        if _is_followed(swapped):
            await self._drain(swapped)
        return _with(what.task, record)

    def _seconds_until(self, instant: int | None) -> float | None:
        return None if instant is None else max(instant - self.backend.now(), 0) / MICROSECONDS

    def _instant(self, at: datetime) -> int:
        """Convert a wall-clock time to the store's."""
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise ValueError(f"until must be a datetime with a timezone, not {at!r}. Pass tzinfo=UTC.")
        ahead = (at - from_microseconds(self._clock.wall())).total_seconds()
        return max(self.backend.now() + microseconds(ahead), 1)


def _claim_request(worker: str, lanes: Sequence[str], limit: int, lease_timeout: float) -> ClaimRequest:
    try:
        return _checked_request(worker, lanes, limit, lease_timeout)
    except TypeError:  # one cannot be hashed, like a list of lanes
        return _checked_request.__wrapped__(worker, lanes, limit, lease_timeout)


@lru_cache(maxsize=64, typed=True)
def _checked_request(worker: str, lanes: Sequence[str], limit: int, lease_timeout: float) -> ClaimRequest:
    """Who claims, claims in the same way each time."""
    check_name("worker", worker)
    check_count("limit", limit, least=0)
    check_seconds("lease_timeout", lease_timeout, above_zero=True)
    return ClaimRequest(check_lanes(lanes), limit, worker, microseconds(lease_timeout))


def _doubt(settlements: Sequence[Settlement], changes: Sequence[Change]) -> None:
    """Remember what was to be written, since no answer came, to know it again at the next try."""
    for one, change in zip(settlements, changes, strict=True):
        one.in_doubt.append(change.record.head)


async def _first_of(waits: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Return when the first of these does, and raise, bare, what it raises."""
    errors: list[QueueError] = []

    async def wait(one: Callable[[], Awaitable[object]]) -> None:
        try:
            await one()
        except QueueError as error:
            errors.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for one in waits:
            group.start_soon(wait, one)
    if errors:
        raise errors[0]


def _time_ordered_id(wall: int, random: Random) -> str:
    """Return a UUID of version 7 (RFC 9562, 5.7), with the microseconds in rand_a (6.2, method 3)."""
    milliseconds, rest = divmod(wall, 1000)
    drawn = random.getrandbits(62)
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 - an f-string takes twice as long
        milliseconds >> 16 & 0xFFFFFFFF,
        milliseconds & 0xFFFF,
        rest * 4096 // 1000,
        0x8000 | drawn >> 48,
        drawn & 0xFFFFFFFFFFFF,
    )


def _with(task: Task, record: Record) -> Task:
    """Return the task as it is now; its payload, which never changes, is the one at hand."""
    return task_with(
        record.head,
        goal=task.goal,
        context=task.context,
        metadata=task.metadata,
        headers=task.headers,
        **_readable_outcome(record),
    )


def _is_followed(swapped: Swapped) -> bool:
    """Whether policy must look at something after a swap."""
    return bool(swapped.fired or (swapped.record and swapped.record.head.due == 0))


def _readable_outcome(record: Record) -> dict[str, Any]:
    """Return the outcome, or nothing where it is damaged: a settled task is settled all the same (C47)."""
    try:
        return outcome_from(record)
    except (TypeError, ValueError):
        return {}
