from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    Change,
    Claimed,
    ClaimRequest,
    MemoryTaskQueue,
    Query,
    QueueManager,
    Record,
    RetryLater,
    RetryPolicy,
    Swapped,
    Task,
    TaskQueue,
    TaskStatus,
    heartbeat_of,
)
from jotty.errors import StorageError, TaskCancelled, TaskFailed
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


async def echo(task: Task) -> Any:
    return task.goal


def worker(queue: MemoryTaskQueue, clock: VirtualClock, handler: Any = echo, **options: Any) -> QueueManager:
    return QueueManager(queue, handler, clock=clock, **options)


async def status_of(queue: TaskQueue, task: Task) -> TaskStatus:
    found = await queue.get(task.id)
    assert found is not None
    return found.status


async def test_it_drains_a_queue_in_order_and_stores_what_the_handler_returns(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    ran: list[Any] = []

    async def handler(task: Task) -> Any:
        ran.append(task.goal)
        return {"echo": task.goal}

    tasks = [
        await queue.enqueue(goal, priority=priority) for goal, priority in (("b", 3), ("c", 5), ("a", 1))
    ]

    settled = await worker(queue, clock, handler, max_concurrent=1).run(drain=True)

    assert settled == 3
    assert ran == ["a", "b", "c"]
    assert [await queue.result(task.id) for task in tasks] == [{"echo": "b"}, {"echo": "c"}, {"echo": "a"}]


async def test_it_runs_no_more_at_once_than_it_may(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    running = most = 0

    async def handler(task: Task) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await clock.sleep(task.context["seconds"])
        running -= 1

    for number in range(10):
        await queue.enqueue(number, {"seconds": number % 3 + 1})
    async with clock.autojump():
        await worker(queue, clock, handler, max_concurrent=4).run(drain=True)

    assert most == 4


async def test_a_failure_is_retried_after_its_backoff_until_no_attempt_is_left(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    at: list[float] = []
    started = clock.now()

    async def handler(_: Task) -> None:
        at.append((clock.now() - started) / 1e6)
        raise ValueError("no luck")

    task = await queue.enqueue("g", max_attempts=3, retry=RetryPolicy(delay=10, jitter=0))
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    assert at == pytest.approx([0, 10, 30], abs=0.01)
    with pytest.raises(TaskFailed) as failed:
        await queue.result(task.id)
    assert failed.value.error["type"] == "ValueError"
    assert failed.value.error["message"] == "no luck"
    assert "raise ValueError" in failed.value.error["traceback"]


async def test_retry_later_postpones_and_costs_no_attempt(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    calls: list[int] = []

    async def handler(task: Task) -> str:
        calls.append(task.attempt)
        if len(calls) < 4:
            raise RetryLater(60)
        return "done"

    task = await queue.enqueue("g", max_attempts=1)
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    assert await queue.result(task.id) == "done"
    assert calls == [1, 1, 1, 1]


async def test_a_task_that_only_postpones_itself_is_failed_in_the_end(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(_: Task) -> None:
        raise RetryLater(1)

    task = await queue.enqueue("g", retry=RetryPolicy(max_postponements=5))
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    with pytest.raises(TaskFailed, match="postponed 5 times"):
        await queue.result(task.id)


async def test_a_result_that_is_no_json_fails_the_task_without_retry(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    calls = Counter[str]()

    async def handler(task: Task) -> Any:
        calls[task.id] += 1
        return {"a": [object()]}

    task = await queue.enqueue("g", max_attempts=5)
    await worker(queue, clock, handler).run(drain=True)

    with pytest.raises(TaskFailed, match=r"result\['a'\]\[0\]"):
        await queue.result(task.id)
    assert calls[task.id] == 1


async def test_a_task_that_exceeds_its_timeout_is_cancelled_and_retried(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    calls: list[int] = []

    async def handler(task: Task) -> str:
        calls.append(task.attempt)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return "second time"

    task = await queue.enqueue("g", timeout=5.0)
    async with clock.autojump():
        await worker(queue, clock, handler).run(drain=True)

    assert await queue.result(task.id) == "second time"
    assert calls == [1, 2]


async def test_c33_a_cancel_through_the_same_handle_stops_the_handler_at_once(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running, ended = anyio.Event(), anyio.Event()

    async def handler(_: Task) -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await running.wait()
        assert await queue.cancel(task.id)
        await ended.wait()
        manager.stop()

    assert await status_of(queue, task) is TaskStatus.CANCELLED


async def test_c33_a_cancel_through_another_handle_arrives_with_the_next_heartbeat(
    clock: VirtualClock,
) -> None:
    queue = MemoryTaskQueue("shared-by-two", clock=clock)
    other = MemoryTaskQueue("shared-by-two", clock=clock)
    running = anyio.Event()
    asked_at: list[int] = []
    stopped_at: list[int] = []

    async def handler(_: Task) -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped_at.append(clock.now())

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler, lease_timeout=30)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await running.wait()
        asked_at.append(clock.now())
        await other.cancel(task.id)
        with pytest.raises(TaskCancelled):
            await other.result(task.id)
        manager.stop()

    assert (stopped_at[0] - asked_at[0]) / 1e6 <= 10


async def test_leases_are_kept_for_as_long_as_the_handler_runs(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(_: Task) -> str:
        await clock.sleep(3600)
        return "an hour later"

    task = await queue.enqueue("g")
    async with clock.autojump():
        await worker(queue, clock, handler, lease_timeout=3).run(drain=True)

    found = await queue.get(task.id)
    assert found is not None
    assert (found.result, found.lease) == ("an hour later", 1)


async def test_a_lost_lease_stops_the_handler_and_leaves_the_task_to_its_taker(clock: VirtualClock) -> None:
    queue = MemoryTaskQueue(clock=clock)
    running, ended = anyio.Event(), anyio.Event()

    async def handler(_: Task) -> str:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return "too late"

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler, lease_timeout=30)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await running.wait()
        held = manager.running[0]
        await queue.release(held)
        taken = (await queue.claim(worker="taker", lease_timeout=100))[0]
        await clock.advance(10)
        await ended.wait()
        await queue.complete(taken, "the taker's")
        manager.stop()

    assert await queue.result(task.id) == "the taker's"


async def test_c24_an_expired_lease_is_reclaimed_within_a_second_and_the_task_runs_again(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    ran_at: list[int] = []

    async def handler(_: Task) -> None:
        ran_at.append(clock.now())

    await queue.enqueue("g")
    (lost,) = await queue.claim(worker="dies", lease_timeout=7)
    assert lost.head.lease_until
    manager = worker(queue, clock, handler)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.advance(9)
        manager.stop()

    assert len(ran_at) == 1
    assert 0 <= ran_at[0] - lost.head.lease_until <= 1_000_000


async def test_c25_a_task_whose_worker_was_lost_runs_alone(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running: set[str] = set()
    company: dict[str, int] = {}

    async def handler(task: Task) -> None:
        running.add(task.id)
        for one in running:
            company[one] = max(company.get(one, 0), len(running))
        await clock.sleep(1)
        running.discard(task.id)

    tasks = [await queue.enqueue(number) for number in range(8)]
    lost = {task.id for task in await queue.claim(worker="dies", lease_timeout=1, limit=2)}
    async with clock.autojump():
        await worker(queue, clock, handler, max_concurrent=3).run(drain=True)
        await clock.sleep(5)
        await worker(queue, clock, handler, max_concurrent=3).run(drain=True)

    assert {await status_of(queue, task) for task in tasks} == {TaskStatus.COMPLETED}
    assert {company[task_id] for task_id in lost} == {1}
    assert max(company.values()) == 3


async def test_c49_stop_lets_running_tasks_finish_and_claims_no_more(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(task: Task) -> str:
        await clock.sleep(task.context["seconds"])
        return "finished"

    quick = await queue.enqueue("quick", {"seconds": 10})
    slow = await queue.enqueue("slow", {"seconds": 1000})
    waiting = await queue.enqueue("waiting", {"seconds": 1})
    manager = worker(queue, clock, handler, max_concurrent=2, grace=25)
    started = clock.now()
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.advance(1)
        manager.stop()
        await clock.advance(26)
    stopped_after = (clock.now() - started) / 1e6

    assert await queue.result(quick.id) == "finished"
    released = await queue.get(slow.id)
    assert released is not None
    assert (released.status, released.attempt) == (TaskStatus.PENDING, 0)
    assert await status_of(queue, waiting) is TaskStatus.PENDING
    assert stopped_after <= 1 + 26


async def test_a_second_stop_without_grace_releases_at_once(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running = anyio.Event()

    async def handler(_: Task) -> None:
        running.set()
        await anyio.sleep_forever()

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await running.wait()
        manager.stop()
        await clock.advance(1)
        assert await status_of(queue, task) is TaskStatus.IN_PROGRESS
        manager.stop(grace=0)

    assert await status_of(queue, task) is TaskStatus.PENDING


async def test_a_stop_that_comes_before_the_worker_runs_is_not_lost(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    task = await queue.enqueue("g")
    manager = worker(queue, clock)
    manager.stop()

    assert await manager.run() == 0
    assert await status_of(queue, task) is TaskStatus.PENDING
    assert await manager.run(drain=True) == 1


async def test_cancelling_the_worker_gives_its_tasks_back_and_leaves_nothing_running(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running, ended = anyio.Event(), anyio.Event()

    async def handler(_: Task) -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    task = await queue.enqueue("g")
    async with anyio.create_task_group() as group:
        group.start_soon(worker(queue, clock, handler).run)
        await running.wait()
        group.cancel_scope.cancel()

    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt, found.lease) == (TaskStatus.PENDING, 0, 1)
    assert ended.is_set()


async def test_max_tasks_are_claimed_and_no_more(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    tasks = [await queue.enqueue(number) for number in range(5)]

    settled = await worker(queue, clock, max_concurrent=4).run(max_tasks=3)

    assert settled == 3
    assert [await status_of(queue, task) for task in tasks] == ["completed"] * 3 + ["pending"] * 2


async def test_an_idle_worker_starts_what_arrives_at_once(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    manager = worker(queue, clock, lanes=("a", "b"), poll_interval=3600)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await anyio.wait_all_tasks_blocked()
        task = await queue.enqueue("now", lane="b")
        assert await queue.result(task.id) == "now"  # no time has passed: nobody moved the clock
        manager.stop()


async def test_only_its_own_lanes_are_worked_on(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    mine, other = await queue.enqueue("mine", lane="mine"), await queue.enqueue("other", lane="other")

    await worker(queue, clock, lanes=("mine",)).run(drain=True)

    assert await status_of(queue, mine) is TaskStatus.COMPLETED
    assert await status_of(queue, other) is TaskStatus.PENDING


async def test_a_worker_runs_once_at_a_time(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    manager = worker(queue, clock)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="running already"):
            await manager.run()
        manager.stop()

    assert await manager.run(drain=True) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrent": 0},
        {"lease_timeout": 0},
        {"heartbeat": 0},
        {"heartbeat": float("nan")},
        {"grace": -1},
        {"poll_interval": 0},
        {"retention": timedelta(0)},
        {"retention": timedelta(days=-7)},
        {"retention": 7},
        {"worker": ""},
    ],
)
async def test_settings_out_of_range_are_refused(queue: MemoryTaskQueue, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QueueManager(queue, echo, **wrong)


@settings(deadline=None)
@given(st.floats(0.001, 1e6), st.floats(1.0, 100.0))
def test_a_lease_has_room_for_three_heartbeats_or_more(heartbeat: float, factor: float) -> None:
    assert heartbeat_of(heartbeat * 3 * factor, heartbeat) == heartbeat
    assert heartbeat_of(heartbeat, None) == heartbeat / 3


@settings(deadline=None)
@given(st.floats(0.001, 1e6), st.floats(0.01, 0.99))
def test_a_lease_under_three_heartbeats_is_refused_with_both_figures(heartbeat: float, share: float) -> None:
    lease_timeout = heartbeat * 3 * share

    with pytest.raises(ValueError, match="three heartbeats") as refused:
        QueueManager(MemoryTaskQueue(), echo, lease_timeout=lease_timeout, heartbeat=heartbeat)

    assert f"{lease_timeout:g}" in str(refused.value)
    assert f"{heartbeat:g}" in str(refused.value)


@pytest.mark.parametrize(("heartbeat", "renewals"), [(None, 9), (2.0, 45)])
async def test_leases_are_renewed_with_each_heartbeat(
    clock: VirtualClock, heartbeat: float | None, renewals: int
) -> None:
    class Counting(MemoryBackend):
        renewed = 0

        async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
            self.renewed += 1
            return await super().extend(leases, us)

    backend = Counting(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: clock.sleep(91), heartbeat=heartbeat, clock=clock)
    async with clock.autojump():
        await manager.run(drain=True)

    assert backend.renewed == renewals


class Flaky(MemoryBackend):
    """A store that fails the next call of one kind."""

    fails = ""

    def _fail(self, call: str) -> None:
        if self.fails == call:
            self.fails = ""
            raise StorageError(self.url, "a hiccup")

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        self._fail("get")
        return await super().get(ids, payload=payload)

    async def find(self, query: Query) -> list[Record]:
        self._fail("find")
        return await super().find(query)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        self._fail("turn")
        return await super().turn(changes, request)

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        self._fail("wait")
        return await super().wait(topic, mark, timeout)


@pytest.mark.parametrize("call", ["get", "find", "turn", "wait"])
async def test_a_store_that_fails_once_loses_nothing_and_stops_nobody(clock: VirtualClock, call: str) -> None:
    backend = Flaky(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    ran: list[Any] = []

    async def handler(task: Task) -> Any:
        ran.append(task.goal)
        if task.goal == "parent":
            backend.fails = call
        await clock.sleep(3)

    parent = await queue.enqueue("parent", priority=1, max_attempts=1)
    child = await queue.enqueue("child", depends_on=[parent.id], max_attempts=1)
    other = await queue.enqueue("other", max_attempts=1)
    async with clock.autojump():
        settled = await QueueManager(queue, handler, max_concurrent=1, clock=clock).run(drain=True)

    assert {task.status async for task in queue.tasks()} == {TaskStatus.COMPLETED}
    assert sorted(ran) == ["child", "other", "parent"]
    assert settled == 3
    assert {one.id for one in (parent, child, other)} == {task.id async for task in queue.tasks()}


async def test_a_worker_cancelled_right_after_its_claim_gives_the_tasks_back(clock: VirtualClock) -> None:
    class Interrupting(MemoryBackend):
        scope: anyio.CancelScope | None = None

        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            taken = await super().turn(changes, request)
            if changes and self.scope:
                self.scope.cancel()
            return taken

        async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
            await anyio.lowlevel.checkpoint()
            return await super().get(ids, payload=payload)

    backend = Interrupting(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    parent = await queue.enqueue("parent", priority=1)
    child = await queue.enqueue("child", depends_on=[parent.id])
    other = await queue.enqueue("other", max_attempts=1)
    with anyio.CancelScope() as backend.scope:
        await QueueManager(queue, echo, max_concurrent=1, clock=clock).run()

    found = await queue.get(other.id)
    assert found is not None
    assert (found.status, found.attempt) == (TaskStatus.PENDING, 0)
    assert await status_of(queue, parent) is TaskStatus.COMPLETED
    await queue.reap()
    assert await status_of(queue, child) is TaskStatus.PENDING


async def test_draining_goes_on_with_what_the_last_task_has_unblocked(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    first = await queue.enqueue("first")
    second = await queue.enqueue("second", depends_on=[first.id])
    third = await queue.enqueue("third", depends_on=[second.id])

    assert await worker(queue, clock).run(drain=True) == 3
    assert await queue.result(third.id) == "third"


async def test_a_handler_that_exits_fails_its_task_alone(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    async def handler(task: Task) -> None:
        if task.goal == "exit":
            raise SystemExit(3)

    bad = await queue.enqueue("exit", max_attempts=1)
    good = await queue.enqueue("good")
    await worker(queue, clock, handler).run(drain=True)

    with pytest.raises(TaskFailed, match="SystemExit"):
        await queue.result(bad.id)
    assert await status_of(queue, good) is TaskStatus.COMPLETED


async def test_a_worker_waits_to_run_a_task_alone_only_while_it_is_there_to_run(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    ran: dict[Any, float] = {}
    started = clock.now()

    async def handler(task: Task) -> None:
        ran[task.goal] = (clock.now() - started) / 1e6
        if task.goal == "long":
            await clock.sleep(3600)

    await queue.enqueue("lost", priority=1)
    await queue.claim(worker="dies", lease_timeout=5)
    manager = worker(queue, clock, handler, max_concurrent=4)
    async with clock.autojump(), anyio.create_task_group() as group:
        await queue.enqueue("long")
        group.start_soon(manager.run)
        await clock.sleep(8)
        assert await queue.claim(worker="other", lease_timeout=7200, wait=1)
        await queue.enqueue("quick")
        await clock.sleep(10)
        manager.stop(grace=0)

    assert ran["long"] == 0
    assert 8 <= ran["quick"] < 11
    assert "lost" not in ran


async def test_a_worker_that_gets_its_own_lost_task_again_runs_it_once_at_a_time(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running: list[int] = []
    most = 0

    async def handler(task: Task) -> str:
        nonlocal most
        running.append(task.lease)
        most = max(most, len(running))
        try:
            await clock.sleep(60 if task.lease == 1 else 5)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(20)  # a slow clean-up
            running.remove(task.lease)
        return f"lease {task.lease}"

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler, lease_timeout=30)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(1)
        await queue.release(manager.running[0])
        await queue.result(task.id)
        manager.stop()

    assert await queue.result(task.id) != "lease 1"
    assert most == 1
    assert running == []


async def test_a_handler_whose_clean_up_fails_while_the_worker_is_cancelled_gives_its_task_back(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running = anyio.Event()

    async def fails_in_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cannot clean up")

    async def handler(_: Task) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails_in_the_end)
            running.set()
            await anyio.sleep_forever()

    task = await queue.enqueue("g", max_attempts=2)
    async with anyio.create_task_group() as group:
        group.start_soon(worker(queue, clock, handler).run)
        await running.wait()
        group.cancel_scope.cancel()

    assert await status_of(queue, task) is TaskStatus.PENDING


async def test_a_task_that_outlives_the_grace_time_is_told_of_once(
    queue: MemoryTaskQueue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_: Task) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(10)

    await queue.enqueue("g")
    manager = worker(queue, clock, handler, grace=1)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with clock.autojump(), anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(1)
            manager.stop()

    assert len([record for record in caplog.records if "grace time" in record.getMessage()]) == 1


async def test_c49_a_task_is_released_when_the_grace_is_over_however_long_its_handler_takes_to_end(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(_: Task) -> None:
        with anyio.CancelScope(shield=True):
            await clock.sleep(100)

    task = await queue.enqueue("g")
    manager = worker(queue, clock, handler, grace=5)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(1)
        manager.stop()
        await clock.sleep(6)
        assert await status_of(queue, task) is TaskStatus.PENDING

    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt, found.lease) == (TaskStatus.PENDING, 0, 1)


async def test_draining_waits_for_what_another_worker_may_leave_behind(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    task = await queue.enqueue("g")
    other_lane = await queue.enqueue("h", lane="other")
    await queue.claim(worker="dies", lease_timeout=20)
    await queue.claim(worker="lives", lanes=("other",), lease_timeout=1000)

    async with clock.autojump():
        assert await worker(queue, clock).run(drain=True) == 1

    assert await queue.result(task.id) == "g"
    assert await status_of(queue, other_lane) is TaskStatus.IN_PROGRESS
