"""A worker whose store fails, is damaged, or answers too late, and that is told to stop meanwhile."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    Change,
    Claimed,
    ClaimRequest,
    MemoryTaskQueue,
    Query,
    QueueManager,
    Record,
    RetryPolicy,
    Swapped,
    Task,
    TaskQueue,
    TaskStatus,
)
from jotty.errors import SchemaError, StorageError, StoreCorrupt
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

pytestmark = pytest.mark.anyio

T = TypeVar("T")
BACKOFF = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]  # doubling, and then no longer


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


class NoJitter:
    """A source of chance that leaves every wait at its longest."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return k


async def echo(task: Task) -> Any:
    return task.goal


async def seen(queue: TaskQueue, task: Task) -> tuple[TaskStatus, int, int]:
    found = await queue.get(task.id)
    assert found is not None
    return found.status, found.lease, found.attempt


def waits_told(caplog: pytest.LogCaptureFixture) -> list[float]:
    found = (re.search(r"trying again in ([\d.]+) s", record.getMessage()) for record in caplog.records)
    return [float(match[1]) for match in found if match]


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


# A store that cannot be reached


class Unreachable(MemoryBackend):
    """A store of which one call fails for some times, from the moment it is told to."""

    call = ""
    failures = 0

    def _fail(self, call: str) -> None:
        if call == self.call and self.failures:
            self.failures -= 1
            raise StorageError(self.url, f"{call} got no answer")

    async def find(self, query: Query) -> list[Record]:
        self._fail("find")
        return await super().find(query)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        self._fail("turn")
        return await super().turn(changes, request)

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        if topic.startswith("lane:"):
            self._fail("wait")
        return await super().wait(topic, mark, timeout)


@pytest.mark.parametrize(("call", "room"), [("find", 1), ("turn", 2), ("wait", 2)])
async def test_the_waits_for_a_store_grow_whichever_of_its_calls_fails(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, call: str, room: int
) -> None:
    backend = Unreachable(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> str:
        backend.call, backend.failures = call, len(BACKOFF)
        await clock.sleep(60)
        return "undisturbed"

    task = await queue.enqueue("g", max_attempts=1)
    manager = QueueManager(
        queue, handler, max_concurrent=room, retention=None, clock=clock, random=NoJitter()
    )
    with caplog.at_level(logging.DEBUG, logger="jotty.queue"):
        async with clock.autojump():
            await manager.run(drain=True)

    assert BACKOFF == waits_told(caplog)
    assert [f"The store answers again after {len(BACKOFF)} failures."] == told(caplog, "answers again")
    assert await seen(queue, task) == (TaskStatus.COMPLETED, 1, 1)


class Full(MemoryBackend):
    """A store that can be read but, while it is full, not be written."""

    is_full = False

    def _write(self) -> None:
        if self.is_full:
            raise StorageError(self.url, "disk is full")

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        self._write()
        return await super().swap(changes)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        if changes:
            self._write()
        return await super().turn(changes, request)


async def test_the_waits_for_a_full_store_grow_though_it_can_be_read(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Full(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> None:
        backend.is_full = True  # and what another worker had is to be reaped
        await clock.sleep(30)
        backend.is_full = False

    await queue.enqueue("lost", max_attempts=1)
    await queue.claim(worker="dies", lease_timeout=3)
    task = await queue.enqueue("g", max_attempts=1)
    manager = QueueManager(queue, handler, max_concurrent=2, clock=clock, random=NoJitter())
    with caplog.at_level(logging.DEBUG, logger="jotty.queue"):
        async with clock.autojump():
            await manager.run(drain=True)

    waits = waits_told(caplog)
    assert sorted(waits) == waits
    assert BACKOFF == waits[: len(BACKOFF)]
    assert [f"The store answers again after {len(waits)} failures."] == told(caplog, "answers again")
    assert await seen(queue, task) == (TaskStatus.COMPLETED, 1, 1)


class FullOnceRenewed(MemoryBackend):
    """A store that is full; a heartbeat always comes before what a turn settles, so that it is stale."""

    failures = 0

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        if self.failures:
            self.failures -= 1
            raise StorageError(self.url, "disk is full")
        return await super().swap(changes)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        heads = [change.record.head for change in changes]
        await self.extend([(head.id, head.lease) for head in heads], 60_000_000)
        return await super().turn(changes, request)


async def test_a_turn_that_settles_nothing_is_no_recovery(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FullOnceRenewed(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> str:
        backend.failures = len(BACKOFF)
        return "kept"

    task = await queue.enqueue("g", max_attempts=1)
    manager = QueueManager(queue, handler, retention=None, clock=clock, random=NoJitter())
    with caplog.at_level(logging.DEBUG, logger="jotty.queue"):
        async with clock.autojump():
            await manager.run(drain=True)

    assert BACKOFF == waits_told(caplog)
    assert [f"The store answers again after {len(BACKOFF)} failures."] == told(caplog, "answers again")
    assert await seen(queue, task) == (TaskStatus.COMPLETED, 1, 1)


async def test_what_is_finished_keeps_its_lease_while_the_store_does_not_take_it(clock: VirtualClock) -> None:
    backend = Full(clock=clock)
    queue, elsewhere = TaskQueue(backend, clock=clock), TaskQueue(backend.clone(), clock=clock)

    async def handler(_: Task) -> str:
        backend.is_full = True
        return "done"

    async def reap() -> None:
        for _ in range(100):
            await clock.sleep(1)
            await elsewhere.reap()
        backend.is_full = False

    task = await queue.enqueue("g", max_attempts=1)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(reap)
        await QueueManager(queue, handler, lease_timeout=9, clock=clock).run(drain=True)

    assert await queue.result(task.id) == "done"
    assert await seen(queue, task) == (TaskStatus.COMPLETED, 1, 1)


# A store whose answer is lost


class LostAnswers(MemoryBackend):
    """A store that does what it is asked, but whose answer to some of the settlements is lost."""

    losses = 0

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        done = await super().turn(changes, request)
        if changes and self.losses:
            self.losses -= 1
            raise StorageError(self.url, "connection lost after the commit")
        return done


@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("fails", [True, False])
async def test_a_settlement_whose_answer_was_lost_is_known_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, losses: int, *, fails: bool
) -> None:
    backend = LostAnswers(clock=clock)
    backend.losses = losses
    queue = TaskQueue(backend, clock=clock)
    attempts: list[int] = []

    async def handler(task: Task) -> str:
        attempts.append(task.attempt)
        if fails and len(attempts) == 1:
            raise ValueError("not yet")
        return "done"

    task = await queue.enqueue("g", retry=RetryPolicy(delay=600))
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump():
            settled = await QueueManager(queue, handler, clock=clock).run(drain=True)

    assert await queue.result(task.id, timeout=0) == "done"
    assert settled == 1
    assert attempts == ([1, 2] if fails else [1])
    assert not told(caplog, "dropped")


async def test_a_release_whose_answer_was_lost_is_known_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = LostAnswers(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> None:
        await anyio.sleep_forever()

    task = await queue.enqueue("g")
    manager = QueueManager(queue, handler, clock=clock)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(1)
            backend.losses = 1
            manager.stop(grace=5)

    assert await seen(queue, task) == (TaskStatus.PENDING, 1, 0)
    assert not backend.losses
    assert not told(caplog, "dropped")


async def test_a_failure_is_known_again_in_the_words_of_a_real_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was written is compared with what is read, so it must come back the same."""

    class Losing(SQLiteBackend):
        is_lost = False

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            done = await super().turn(changes, request)
            if changes and not self.is_lost:
                self.is_lost = True
                raise StorageError(self.url, "connection lost after the commit")
            return done

    attempts: list[int] = []

    async def handler(task: Task) -> str:
        attempts.append(task.attempt)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return "done"

    async with TaskQueue(Losing(tmp_path / "tasks.db")) as queue:
        parent = await queue.enqueue("parent", status="backlog")
        await queue.enqueue(
            "g",
            retry=RetryPolicy(delay=0.02, factor=3, cap=1, jitter=0.25),
            key="k",
            tags=["a", "b"],
            timeout=7,
            depends_on=[parent.id],
            on_dependency="run",
        )
        await queue.cancel(parent.id)
        with caplog.at_level(logging.WARNING, logger="jotty.queue"):
            settled = await QueueManager(queue, handler).run(drain=True)

    assert settled == 1
    assert attempts == [1, 2]
    assert not told(caplog, "dropped")


# A store that is damaged


class Damaged(MemoryBackend):
    """A store that turns out to be damaged when a lease is renewed."""

    error: StorageError | None = None
    renewals = 0

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        self.renewals += 1
        if self.error is not None:
            raise self.error
        return await super().extend(leases, us)


@pytest.mark.parametrize("error", [StoreCorrupt("memory:", "no database"), SchemaError("memory:", 9, 1)])
async def test_a_damaged_store_ends_the_worker_at_its_first_renewal_and_is_said_once(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, error: StorageError
) -> None:
    backend = Damaged(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    ended_at: list[int] = []

    async def handler(_: Task) -> None:
        backend.error = error
        try:
            await anyio.sleep_forever()
        finally:
            ended_at.append(clock.now())

    await queue.enqueue("g")
    started = clock.now()
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump():
            with clock.timeout(100), pytest.raises(type(error)) as raised:
                await QueueManager(queue, handler, lease_timeout=30, clock=clock).run()

    assert raised.value is error
    assert backend.renewals == 1
    assert (ended_at[0] - started) / 1e6 == pytest.approx(10, abs=0.1)
    assert not told(caplog, "trying again")


async def test_a_task_whose_payload_is_damaged_is_counted_and_told_as_failed(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Garbled(MemoryBackend):
        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            swapped, claimed = await super().turn(changes, request)
            records = [attrs.evolve(one, payload=b"{") for one in claimed.records]
            return swapped, attrs.evolve(claimed, records=records)

    queue = TaskQueue(Garbled(clock=clock), clock=clock)
    task = await queue.enqueue("g")
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump():
            ended = await QueueManager(queue, echo, clock=clock).run(drain=True)

    (line,) = told(caplog, "is failed")
    assert task.id in line
    assert "StoreCorrupt" in line
    assert ended == 1


# Being told to stop


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example makes its own clock and store
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1, max_size=4))
def test_the_earliest_end_that_stop_was_told_counts(anyio_backend: str, stops: list[tuple[int, int]]) -> None:
    """Each stop comes so many seconds after the one before, with so many of grace."""

    async def stopped_after() -> tuple[float, float]:
        clock = VirtualClock()
        queue = MemoryTaskQueue(clock=clock)
        manager = QueueManager(queue, lambda _: clock.sleep(10_000), clock=clock)
        await queue.enqueue("g")
        started, ends = clock.now(), []
        async with clock.autojump():
            async with anyio.create_task_group() as group:
                group.start_soon(manager.run)
                for pause, grace in stops:
                    await clock.sleep(pause + 0.5)
                    ends.append((clock.now() - started) / 1e6 + grace)
                    manager.stop(grace)
            return (clock.now() - started) / 1e6, min(ends)

    took, earliest = anyio.run(stopped_after, backend=anyio_backend)

    # the last stop may come after the end, and is waited for
    assert took == pytest.approx(max(earliest, sum(pause + 0.5 for pause, _ in stops)), abs=0.1)


class Stopped:
    """What came of a worker that was told to stop: when it ended, and with which error."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error: StorageError | None = None

    async def run(self, manager: QueueManager, clock: VirtualClock, *, after: float, grace: float) -> None:
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(self._run, manager)
            await clock.sleep(after)
            stopped_at = clock.now()
            manager.stop(grace)
            group.start_soon(self._measure, clock, stopped_at)

    async def _run(self, manager: QueueManager) -> None:
        self._has_ended = anyio.Event()
        try:
            await manager.run()
        except StorageError as error:
            self.error = error
        self._has_ended.set()

    async def _measure(self, clock: VirtualClock, since: int) -> None:
        await self._has_ended.wait()
        self.seconds = (clock.now() - since) / 1e6


@pytest.mark.parametrize("grace", [0, 0.01, 2, 60])
@pytest.mark.parametrize("ends", [True, False])
async def test_c49_a_worker_that_is_stopped_names_what_a_full_store_does_not_take_back(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, grace: float, *, ends: bool
) -> None:
    backend = Full(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> None:
        backend.is_full = True
        if not ends:
            await anyio.sleep_forever()

    tasks = [await queue.enqueue(number) for number in range(2)]
    manager = QueueManager(queue, handler, retention=None, clock=clock)
    stopped = Stopped()
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        await stopped.run(manager, clock, after=20, grace=grace)

    named = told(caplog, "at the cost of an attempt")
    assert stopped.error is not None
    assert "2 tasks" in stopped.error.problem
    assert stopped.seconds == pytest.approx(grace, abs=0.1)
    assert [sum(task.id in line for line in named) for task in tasks] == [1, 1]
    assert len(named) == 2
    assert all("disk is full" in line for line in named)


async def test_c49_a_worker_whose_store_has_room_again_within_the_grace_time_settles_everything(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Full(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(task: Task) -> str:
        backend.is_full = True
        if task.goal:
            await anyio.sleep_forever()
        return "done"

    async def make_room() -> None:
        await clock.sleep(24.9)
        backend.is_full = False

    tasks = [await queue.enqueue(number) for number in range(2)]
    manager = QueueManager(queue, handler, retention=None, lease_timeout=60, clock=clock)
    stopped = Stopped()
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with anyio.create_task_group() as group:
            group.start_soon(make_room)
            await stopped.run(manager, clock, after=20, grace=5)

    assert stopped.error is None
    assert not told(caplog, "at the cost of an attempt")
    assert await seen(queue, tasks[0]) == (TaskStatus.COMPLETED, 1, 1)
    assert await seen(queue, tasks[1]) == (TaskStatus.PENDING, 1, 0)


async def test_c49_what_one_step_could_not_release_among_others_is_named(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FullOnceRenewed(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> None:
        await anyio.sleep_forever()

    task = await queue.enqueue("g")
    manager = QueueManager(queue, handler, retention=None, clock=clock)
    stopped = Stopped()
    backend.failures = 1000
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        await stopped.run(manager, clock, after=1, grace=1)

    (line,) = told(caplog, "at the cost of an attempt")
    assert task.id in line
    assert stopped.error is not None


class Down(MemoryBackend):
    """A store that answers nothing while it is down."""

    is_down = False

    async def find(self, query: Query) -> list[Record]:
        self._fail()
        return await super().find(query)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        self._fail()
        return await super().turn(changes, request)

    def _fail(self) -> None:
        if self.is_down:
            raise StorageError(self.url, "no answer")


async def test_c49_a_worker_that_runs_nothing_stops_at_once_though_its_store_does_not_answer(
    clock: VirtualClock,
) -> None:
    backend = Down(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    stopped = Stopped()

    async def fail() -> None:
        await clock.sleep(3)
        backend.is_down = True

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        await stopped.run(QueueManager(queue, echo, clock=clock), clock, after=40, grace=25)

    assert stopped.error is None
    assert stopped.seconds < 1


async def test_a_worker_that_is_cancelled_names_what_a_full_store_does_not_take_back(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Full(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> None:
        backend.is_full = True
        await anyio.sleep_forever()

    task = await queue.enqueue("g")
    manager = QueueManager(queue, handler, clock=clock)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump():
            with clock.timeout(3):
                await manager.run()

    (line,) = told(caplog, "at the cost of an attempt")
    assert task.id in line


@pytest.mark.parametrize("graces", [(0, 25), (25, 0), (25, 0, 25)])
async def test_of_several_stops_in_one_breath_the_shortest_counts(
    clock: VirtualClock, graces: tuple[int, ...]
) -> None:
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: clock.sleep(1000), clock=clock)
    started = clock.now()
    async with clock.autojump():
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(1)
            for grace in graces:
                manager.stop(grace)
        took = (clock.now() - started) / 1e6

    assert took == pytest.approx(1, abs=0.1)


async def test_a_second_stop_with_the_usual_grace_does_not_prolong_the_first(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: clock.sleep(1000), clock=clock, grace=25)
    started = clock.now()
    async with clock.autojump():
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(1)
            manager.stop(grace=10)
            await clock.sleep(9)
            manager.stop()
        took = (clock.now() - started) / 1e6

    assert took == pytest.approx(11, abs=0.1)


@pytest.mark.parametrize("grace", [0, 25])
async def test_c49_what_a_turn_claims_while_the_worker_is_told_to_stop_is_not_started(
    clock: VirtualClock, grace: float
) -> None:
    class Slow(MemoryBackend):
        manager: QueueManager | None = None

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            done = await super().turn(changes, request)
            if self.manager is not None:
                self.manager.stop(grace)
            await clock.sleep(0.2)
            return done

    backend = Slow(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    ran: list[Any] = []

    async def handler(task: Task) -> None:
        ran.append(task.goal)

    tasks = [await queue.enqueue(number) for number in range(2)]
    backend.manager = QueueManager(queue, handler, clock=clock)
    async with clock.autojump():
        settled = await backend.manager.run()

    assert (ran, settled) == ([], 0)
    assert [await seen(queue, task) for task in tasks] == [(TaskStatus.PENDING, 1, 0)] * 2


async def test_a_worker_that_waits_for_a_slow_clean_up_does_not_spin() -> None:
    class Counting(VirtualClock):
        sleeps = 0

        async def sleep(self, seconds: float) -> None:
            self.sleeps += 1
            await super().sleep(seconds)

    clock = Counting()
    queue = MemoryTaskQueue(clock=clock)

    async def handler(_: Task) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(30)

    await queue.enqueue("g")
    manager = QueueManager(queue, handler, max_concurrent=1, clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(1)
        manager.stop(grace=0)

    assert clock.sleeps < 100


# What a worker says it has done


async def test_what_is_counted_is_how_many_tasks_came_to_their_end(clock: VirtualClock) -> None:
    """Not what was given back because it had to run alone, was postponed, or is to be tried again."""
    queue = MemoryTaskQueue(clock=clock)
    tried: list[Any] = []

    async def handler(task: Task) -> None:
        tried.append(task.goal)
        if task.goal == "fails" or (task.goal == "fails once" and tried.count(task.goal) == 1):
            raise ValueError(task.goal)

    for goal in ("one", "two", "three"):
        await queue.enqueue(goal)
    await queue.claim(worker="dies", limit=3, lease_timeout=1)
    await queue.enqueue("fails once")
    await queue.enqueue("fails", max_attempts=2)
    async with clock.autojump():
        await clock.sleep(2)
        settled = await QueueManager(queue, handler, clock=clock).run(drain=True)

    assert settled == 5
    assert {task.status.is_terminal async for task in queue.tasks()} == {True}


async def test_nothing_is_counted_of_what_was_only_given_back(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    settled: list[int] = []

    async def run(manager: QueueManager) -> None:
        settled.append(await manager.run())

    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: anyio.sleep_forever(), clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(run, manager)
        await clock.sleep(1)
        manager.stop(grace=0)

    assert settled == [0]


async def test_an_idle_worker_forgets_an_outage_that_is_long_over(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryBackend):
        is_down = False

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            if self.is_down:
                raise StorageError(self.url, "no answer")
            return await super().turn(changes, request)

    backend = Failing(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    manager = QueueManager(queue, lambda _: clock.sleep(1), clock=clock, random=NoJitter())
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            for _ in range(2):
                backend.is_down = True
                await clock.sleep(30)
                backend.is_down = False
                await clock.sleep(30)
            manager.stop()

    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "answers again" in line]) == 2
    assert len([line for line in told if "in 0.1 s" in line]) == 2


@pytest.mark.parametrize("call", ["turn", "extend"])
async def test_an_outage_is_said_once_when_it_begins_and_once_when_it_is_over(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    class Failing(MemoryBackend):
        is_down = False

        def _fail(self, kind: str) -> None:
            if self.is_down and kind == call:
                raise StorageError(self.url, "no answer")

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            self._fail("turn")
            return await super().turn(changes, request)

        async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
            self._fail("extend")
            return await super().extend(leases, us)

    backend = Failing(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: clock.sleep(1000), lease_timeout=300, heartbeat=5, clock=clock)
    with caplog.at_level(logging.INFO, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            for is_down in (False, True, False, True, False):
                backend.is_down = is_down
                await clock.sleep(60)
            manager.stop(grace=0)

    begun, over = told(caplog, "trying again in"), told(caplog, "again after")
    assert (len(begun), len(over)) == (2, 2)


async def test_an_outage_is_not_met_with_a_flood_of_calls(clock: VirtualClock) -> None:
    class Down(MemoryBackend):
        is_down = False
        calls = 0

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            return await self._counted(super().turn(changes, request))

        async def wait(self, topic: str, mark: int, timeout: float) -> int:
            return await self._counted(super().wait(topic, mark, timeout))

        async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
            return await self._counted(super().extend(leases, us))

        async def announce(self, worker: str, data: bytes, us: int) -> None:
            return await self._counted(super().announce(worker, data, us))

        async def _counted(self, call: Coroutine[Any, Any, T]) -> T:
            if not self.is_down:
                return await call
            call.close()
            self.calls += 1
            raise StorageError(self.url, "no answer")

    backend = Down(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: clock.sleep(1000), clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(5)
        await queue.enqueue("h", lane="wakes those who wait for it")
        backend.is_down = True
        await queue.backend.swap([])
        await clock.sleep(100)
        backend.is_down = False
        manager.stop(grace=0)

    assert 10 < backend.calls < 200  # each of four a bit more than once a second would be 400


async def test_a_worker_cancelled_while_it_sets_a_damaged_task_aside_gives_the_others_back(
    clock: VirtualClock,
) -> None:
    class Damaging(MemoryBackend):
        scope: anyio.CancelScope | None = None

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            swapped, claimed = await super().turn(changes, request)
            records = [
                Record(one.head, b"{" if one.head.priority == 3 else one.payload) for one in claimed.records
            ]
            return swapped, Claimed(records, claimed.mark, claimed.next_at)

        async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
            if self.scope is not None and any(one.record.head.status == "failed" for one in changes):
                self.scope.cancel()
                await anyio.lowlevel.checkpoint()
            return await super().swap(changes)

    backend = Damaging(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    sound = await queue.enqueue("sound", priority=1)
    await queue.enqueue("damaged", priority=3)
    with anyio.CancelScope() as backend.scope:
        await QueueManager(queue, lambda _: clock.sleep(1), max_concurrent=2, clock=clock).run()

    found = await queue.get(sound.id)
    assert found is not None
    assert (found.status, found.attempt) == (TaskStatus.PENDING, 0)
