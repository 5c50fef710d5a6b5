"""Virtual time: weeks of retries, leases and schedules pass in a moment, and nothing sleeps.

A worker looks for work every second and announces itself every ten: its weeks are hours here.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Conductor, WorkflowMode, actor
from jotty.core.queue import MemoryTaskQueue, QueueManager, RetryLater, RetryPolicy, Task, TaskStatus
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

MINUTES, HOUR, DAY = 600.0, 3600.0, 86_400.0
WEEK = 7 * DAY


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock, random=Random(0))


@pytest.fixture(autouse=True)
def nothing_sleeps(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> Iterator[None]:
    """Refuse every real wait but the shortest: those for a thread."""
    real = anyio.sleep

    async def sleep(delay: float) -> None:
        assert delay < 0.01, f"a real sleep of {delay} s"
        await real(delay)

    monkeypatch.setattr(anyio, "sleep", sleep)
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < 30


def elapsed(clock: VirtualClock) -> float:
    return (clock.now() - VirtualClock().now()) / 1e6


def worker(queue: MemoryTaskQueue, clock: VirtualClock, handler: Any, **options: Any) -> QueueManager:
    return QueueManager(queue, handler, clock=clock, random=Random(1), **options)


# The clock


async def test_it_jumps_from_deadline_to_deadline_in_their_order(clock: VirtualClock) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, elapsed(clock)))

    async with clock.autojump(), anyio.create_task_group() as group:
        for seconds in (WEEK, 0.000001, HOUR, DAY):
            group.start_soon(sleeper, seconds)

    assert [(one, one) for one in (0.000001, HOUR, DAY, WEEK)] == woken


async def test_skipping_time_wakes_nobody_until_the_next_jump(clock: VirtualClock) -> None:
    async with clock.autojump():
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 1)
            for _ in range(3):  # the sleeper may be the last to run of a round
                await anyio.lowlevel.checkpoint()
            clock.skip(DAY)

        assert DAY == elapsed(clock)


async def test_what_is_to_be_called_later_can_be_called_off(clock: VirtualClock) -> None:
    rung: list[str] = []
    clock.call_later(1, lambda: rung.append("first"))
    drop = clock.call_later(2, lambda: rung.append("dropped"))
    clock.call_later(3, lambda: rung.append("last"))
    drop()
    await clock.advance(HOUR)
    drop()

    assert ["first", "last"] == rung


async def test_a_timeout_ends_what_lasts_longer_and_nothing_else(clock: VirtualClock) -> None:
    async with clock.autojump():
        with clock.timeout(DAY) as long:
            await clock.sleep(HOUR)
        with clock.timeout(HOUR) as short:
            await clock.sleep(DAY)

    assert (False, True) == (long.cancelled_caught, short.cancelled_caught)
    assert 2 * HOUR == elapsed(clock)


# A queue


async def test_a_queue_waits_a_week_for_what_is_scheduled(
    clock: VirtualClock, queue: MemoryTaskQueue
) -> None:
    at = datetime.fromtimestamp(clock.wall() / 1e6, UTC) + timedelta(days=6)
    await queue.enqueue("goal", run_at=at)
    async with clock.autojump():
        (task,) = await queue.claim(worker="worker", wait=WEEK)

    assert 6 * DAY == pytest.approx(elapsed(clock), abs=0.25)
    assert TaskStatus.IN_PROGRESS is task.status


async def test_a_lease_of_days_expires_and_the_task_is_claimed_again(
    clock: VirtualClock, queue: MemoryTaskQueue
) -> None:
    await queue.enqueue("goal")
    async with clock.autojump():
        await queue.claim(worker="lost", lease_timeout=2 * DAY)
        (task,) = await queue.claim(worker="worker", wait=WEEK)

    assert ("worker", 2) == (task.worker, task.lease)
    assert 2 * DAY == pytest.approx(elapsed(clock), abs=0.25)


async def test_who_waits_for_a_result_gives_up_in_time(clock: VirtualClock, queue: MemoryTaskQueue) -> None:
    task = await queue.enqueue("goal")
    async with clock.autojump():
        with pytest.raises(TimeoutError):
            await queue.result(task.id, timeout=6 * HOUR)

    assert 6 * HOUR == elapsed(clock)


# A worker


async def test_a_worker_retries_for_hours(clock: VirtualClock, queue: MemoryTaskQueue) -> None:
    attempts: list[float] = []

    async def handler(task: Task) -> str:
        attempts.append(elapsed(clock))
        if task.attempt < 8:
            raise RuntimeError("not yet")
        return "done"

    retry = RetryPolicy(delay=MINUTES, factor=1, cap=MINUTES, jitter=0)
    task = await queue.enqueue("goal", max_attempts=8, retry=retry)
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    assert [number * MINUTES for number in range(8)] == pytest.approx(attempts, abs=1.5)
    assert "done" == await queue.result(task.id)


async def test_a_worker_keeps_its_lease_through_hours_of_work(
    clock: VirtualClock, queue: MemoryTaskQueue
) -> None:
    """While another worker looks for what has expired."""
    ran: list[int] = []

    async def handler(task: Task) -> None:
        ran.append(task.lease)
        await clock.sleep(HOUR)

    task = await queue.enqueue("goal")
    async with clock.autojump(), anyio.create_task_group() as group:
        for name in ("ann", "bob"):
            group.start_soon(worker(queue, clock, handler, worker=name, lease_timeout=60).run)
        await queue.result(task.id)
        group.cancel_scope.cancel()

    assert [1] == ran
    assert HOUR == pytest.approx(elapsed(clock), abs=1)


async def test_what_is_postponed_comes_back(clock: VirtualClock, queue: MemoryTaskQueue) -> None:
    async def handler(task: Task) -> str:
        if task.postponed < 3:
            raise RetryLater(MINUTES)
        return "done"

    task = await queue.enqueue("goal", max_attempts=1)
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    assert "done" == await queue.result(task.id)
    assert 3 * MINUTES == pytest.approx(elapsed(clock), abs=2)


async def test_a_worker_retries_for_a_week_in_a_moment() -> None:
    clock, attempts = VirtualClock(idle=HOUR), list[float]()
    queue = MemoryTaskQueue(clock=clock, random=Random(0))

    async def handler(task: Task) -> str:
        attempts.append(elapsed(clock))
        if task.attempt < 8:
            raise RuntimeError("not yet")
        return "done"

    retry = RetryPolicy(delay=DAY, factor=1, cap=DAY, jitter=0)
    task = await queue.enqueue("goal", max_attempts=8, retry=retry)
    results: list[str] = []
    begun = time.thread_time()
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(worker(queue, clock, handler).run)
        results.append(await queue.result(task.id))
        group.cancel_scope.cancel()

    assert ["done"] == results
    assert [number * DAY for number in range(8)] == pytest.approx(attempts, abs=0.01)
    assert time.thread_time() - begun < 30  # a look a second would take a minute


# A workflow


@actor(retries=6, backoff=RetryPolicy(delay=DAY, factor=1, cap=DAY, jitter=0))
async def stubborn(ctx: Any) -> int:
    if ctx.attempt < 7:
        raise RuntimeError("not today")
    return int(ctx.attempt)


async def test_a_workflow_retries_for_a_week(clock: VirtualClock) -> None:
    conductor = Conductor([stubborn], clock=clock, random=Random(0))
    async with clock.autojump():
        result = await WorkflowMode(conductor).execute("goal")

    assert 7 == result["final_output"]
    assert 6 * DAY == elapsed(clock)


async def test_a_queued_workflow_waits_works_and_retries(clock: VirtualClock, queue: MemoryTaskQueue) -> None:
    @actor(retries=3, backoff=RetryPolicy(delay=MINUTES, factor=1, cap=MINUTES, jitter=0))
    async def fetch(ctx: Any) -> int:
        if ctx.attempt < 4:
            raise RuntimeError("not yet")
        return int(ctx.attempt)

    @actor
    async def write(fetch: int) -> str:
        await clock.sleep(MINUTES)
        return f"after {fetch} attempts"

    work = WorkflowMode(
        Conductor([fetch, write], clock=clock, random=Random(0)), execution="async", queue=queue
    )
    task_id = await work.enqueue_task("goal", delay=MINUTES)
    result: Any = None
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(work.process_queue)
        result = await work.result(task_id, timeout=DAY)
        work.stop_processing()

    assert "after 4 attempts" == result["final_output"]
    assert 5 * MINUTES == pytest.approx(elapsed(clock), abs=2)


# Within each other


async def test_jumping_goes_on_when_one_of_two_that_jump_is_left() -> None:
    clock = VirtualClock()
    with anyio.fail_after(10):
        async with clock.autojump():
            async with clock.autojump():
                await clock.sleep(DAY)
            await clock.sleep(DAY)
        outer, inner = clock.autojump(), clock.autojump()
        async with inner, anyio.create_task_group() as group:
            group.start_soon(clock.sleep, DAY)
            async with outer:
                await clock.sleep(DAY)

    assert 3 * DAY == pytest.approx(elapsed(clock))


async def test_what_is_raised_within_comes_out_as_it_is() -> None:
    clock = VirtualClock()

    async def fail() -> None:
        async with clock.autojump():
            await clock.sleep(1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
