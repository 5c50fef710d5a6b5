"""The reading half of a task queue, and its opening and closing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint

from jotty.errors import QueueClosed, StoreCorrupt, TaskCancelled, TaskFailed, TaskNotFound

from .backend import Query
from .clock import MICROSECONDS, Clock, microseconds
from .cursor import Cursor
from .journal import JournalEntry, parse
from .reaper import reap
from .record import task_from
from .task import Task, TaskStatus, check_count, check_name, check_seconds, may_exist
from .worker.presence import WorkerInfo, worker_info

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .backend import QueueBackend, Record

__all__ = ["PAGE", "QueueReader", "QueueStats"]

PAGE: Final = 500
PAGES_OF_STATS: Final = 20
FIRST_PAGE: Final = 4  # of tasks with their payloads, which may have a mebibyte each; then twice as many
LAST_PAGE: Final = 64
REAP_EVERY: Final = MICROSECONDS // 2
CHECKPOINT_EVERY: Final = 32  # calls: a store that never waits must not keep the loop from everyone else
PATIENCE: Final = 5.0  # the longest single wait for a wake-up, in seconds: a safety net, should one be lost


@attrs.frozen
class QueueStats:
    """How many tasks a store holds.

    Attributes:
        lanes: By lane, how many tasks are in each state; without zeros.
        oldest: By lane, for how many seconds the oldest ready task could have been claimed; only lanes that
            have one. What is to run later, or again, is none until its time has come. It is looked for among
            the first ten thousand pending tasks of a lane.
    """

    lanes: dict[str, dict[TaskStatus, int]]
    oldest: dict[str, float]

    @property
    def total(self) -> dict[TaskStatus, int]:
        """How many tasks are in each state, over all lanes."""
        total = dict.fromkeys(TaskStatus, 0)
        for counts in self.lanes.values():
            for status, number in counts.items():
                total[status] += number
        return total


class QueueReader:
    """A handle on a store: what it takes to open, read and close it. People hold its child, `TaskQueue`."""

    def __init__(self, backend: QueueBackend, clock: Clock) -> None:
        self.backend = backend
        self._clock = clock
        self._opening = anyio.Lock()
        self._is_open = False
        self._calls = 0
        self._reaped_at = -math.inf
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The store's address, without a password."""
        return self.backend.url

    @property
    def durability(self) -> str:
        """What a returned write survives: nothing ("none"), kill -9 ("process"), loss of power ("power")."""
        return self.backend.durability

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close this handle; what waits on it ends with QueueClosed. Calling it again does nothing."""
        self._is_closed = True
        await self.backend.aclose()

    async def _open(self) -> QueueBackend:
        """Return the backend, opened at the first call; every so often, let others on the loop go first."""
        self._calls += 1
        if self._calls % CHECKPOINT_EVERY == 0:
            await checkpoint()
        if not self._is_open:
            async with self._opening:
                self._check_open()
                if not self._is_open:
                    await self.backend.open()
                    self._is_open = True
        self._check_open()
        return self.backend

    def _check_open(self) -> None:
        if self._is_closed:
            raise QueueClosed(self.url)

    async def get(self, id: str) -> Task | None:  # noqa: A002 - the word a caller uses
        """Return a task, or None if there is none with this id."""
        backend = await self._open()
        record = (await backend.get([id]))[0] if may_exist(id) else None
        return self._task(record) if record else None

    def tasks(
        self,
        *,
        status: TaskStatus | str | None = None,
        lane: str | None = None,
        tag: str | None = None,
        key: str | None = None,
    ) -> Cursor[Task]:
        """Iterate over the tasks that fulfil every condition, in the order of enqueue, reading in pages.

        A task that changes meanwhile may be seen as it was or as it is. The iteration may be left anytime.
        One whose payload or outcome is damaged is given without it, with a StoreCorrupt as its `error`.

        Raises:
            ValueError: There is no such status, or a filter is no name.
        """
        statuses = None if status is None else (TaskStatus(status),)
        for kind, name in (("lane", lane), ("tag", tag), ("key", key)):
            if name is not None:
                check_name(kind, name)
        query = Query(statuses=statuses, lane=lane, tag=tag, key=key, limit=FIRST_PAGE, payload=True)

        async def fetch() -> list[Task] | None:
            nonlocal query
            backend = await self._open()
            page = await backend.find(query)
            if page:
                limit = min(query.limit * 2, LAST_PAGE)
                query = attrs.evolve(query, after_seq=page[-1].head.seq, limit=limit)
            return [self._shown(record) for record in page] or None

        return Cursor(fetch)

    async def stats(self) -> QueueStats:
        """Count the tasks by lane and state."""
        backend = await self._open()
        lanes: dict[str, dict[TaskStatus, int]] = {}
        for (lane, status), number in sorted((await backend.count()).items()):
            lanes.setdefault(lane, {})[status] = number
        waiting = [one for one, counts in lanes.items() if TaskStatus.PENDING in counts]
        ages = {lane: await self._age_of_oldest(lane) for lane in waiting}
        return QueueStats(lanes, {lane: age for lane, age in ages.items() if age is not None})

    async def _age_of_oldest(self, lane: str) -> float | None:
        """Return how long the task of the lane has been ready that has been so for longest."""
        longest = None
        query = Query(statuses=(TaskStatus.PENDING,), lane=lane, limit=PAGE)
        for _ in range(PAGES_OF_STATS):
            page = await self.backend.find(query)
            now = self.backend.now()
            since = [max(one.head.created_at, one.head.run_at) for one in page if one.head.run_at <= now]
            if since:
                longest = max(longest or 0, (now - min(since)) / MICROSECONDS)
            if len(page) < query.limit:
                break
            query = attrs.evolve(query, after_seq=page[-1].head.seq)
        return longest

    async def workers(self) -> list[WorkerInfo]:
        """Return the workers that are there, by name: each tells of itself every ten seconds.

        One that was killed is listed for up to half a minute more.
        """
        backend = await self._open()
        told = [worker_info(present) for present in await backend.workers()]
        return [info for info in told if info is not None]

    async def result(self, id: str, timeout: float | None = None) -> Any:  # noqa: A002
        """Wait until a task is over, and return its result.

        Args:
            id: The task.
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TaskFailed: It failed; carries the error.
            TaskCancelled: It was cancelled.
            TaskNotFound: There is no such task, or it was deleted meanwhile.
            TimeoutError: It is not over yet.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        await self._existing(id, payload=False)
        backend = await self._open()
        deadline = None if timeout is None else self._clock.now() + microseconds(timeout)
        mark = await backend.wait(f"task:{id}", -1, 0)
        while True:
            await self._reap_sometimes()
            task = await self._existing(id, payload=False)
            if task.status.is_terminal:
                return _result_of(await self._existing(id))
            patience = self._clock.every(PATIENCE)
            remaining = patience if deadline is None else (deadline - self._clock.now()) / MICROSECONDS
            if remaining <= 0:
                raise TimeoutError(f"Task {id} is still {task.status} after {timeout} s.")
            mark = await backend.wait(f"task:{id}", mark, min(remaining, patience))

    def events(
        self,
        id: str,  # noqa: A002 - the word a caller uses
        after: int = 0,
        *,
        follow: bool = True,
    ) -> Cursor[JournalEntry]:
        """Iterate over a task's journal after a number; with `follow`, until the task is over.

        Everything that was written before the task became terminal is yielded, its "end" entry last. The
        iteration may be left at any time.

        Raises:
            TaskNotFound: There is no such task, or it was deleted meanwhile; raised while iterating.
            StoreCorrupt: An entry is damaged; raised while iterating.
            ValueError: The number is none.
        """
        check_count("after", after, least=0)
        kind = "end"

        async def fetch() -> list[JournalEntry] | None:
            nonlocal after, kind
            while True:
                await self._existing(id, payload=False)
                backend = await self._open()
                mark = await backend.wait(f"task:{id}", -1, 0)
                is_over = (await self._existing(id, payload=False)).status.is_terminal
                page = self._entries(id, await backend.read(id, after, PAGE))
                if page:
                    after, kind = page[-1].number, page[-1].kind
                    return page
                # if there is more than its end, it was retried meanwhile
                if (is_over and kind == "end") or not follow:
                    return None
                await backend.wait(f"task:{id}", mark, self._clock.every(PATIENCE))

        return Cursor(fetch)

    async def reap(self) -> int:
        """Make every move that is due: expired leases, met dependencies, questions whose time is up.

        Any number of callers may; each move is made once. Workers, claims and those who wait for a result
        call it regularly.

        Returns:
            How many moves this call made.
        """
        backend = await self._open()
        self._reaped_at = self._clock.now()
        return await reap(backend)

    async def _reap_sometimes(self) -> None:
        if self._clock.now() - self._reaped_at >= REAP_EVERY:
            await self.reap()

    def _task(self, record: Record) -> Task:
        """Return a record as a task.

        Raises:
            StoreCorrupt: Its payload or outcome is damaged.
        """
        try:
            return task_from(record)
        except (TypeError, ValueError) as error:
            told = f"the payload or outcome of task {record.head.id} is damaged, or cannot be read."
            raise StoreCorrupt(self.url, told) from error

    def _shown(self, record: Record) -> Task:
        """Return a record as a task, a damaged one without what is damaged: it must not hide the rest."""
        try:
            return self._task(record)
        except StoreCorrupt as damage:
            error = {"type": type(damage).__qualname__, "message": str(damage), "traceback": ""}
            return Task(head=record.head, error=error)

    def _entries(self, task_id: str, found: Sequence[tuple[int, bytes]]) -> list[JournalEntry]:
        """Return entries up to a damaged one.

        Raises:
            StoreCorrupt: The first is damaged.
        """
        entries: list[JournalEntry] = []
        for number, data in found:
            try:
                entries.append(parse(number, data))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                if not entries:
                    told = f"entry {number} of task {task_id}'s journal is damaged."
                    raise StoreCorrupt(self.url, told) from error
                break
        return entries

    async def _existing(self, task_id: str, *, payload: bool = True) -> Task:
        backend = await self._open()
        record = (await backend.get([task_id], payload=payload))[0] if may_exist(task_id) else None
        if record is None:
            raise TaskNotFound(task_id)
        return self._task(record)


def _result_of(task: Task) -> Any:
    if task.status is TaskStatus.COMPLETED:
        return task.result
    if task.status is TaskStatus.CANCELLED:
        raise TaskCancelled(task.id)
    raise TaskFailed(task.id, task.error or {})
