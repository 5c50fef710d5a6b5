"""C. Claim: C12 to C17."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import NewTask, RetryPolicy, TaskStatus

from .interposed import InterposedBackend
from .payloads import EXAMPLES
from .rules import Rules, brought_to, claim_one, current, everything, on_another_loop, under_way
from .terms import needs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["ClaimRules"]

NEW_TASKS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([0, 0, 0.5, 1, 1.5, 3600]), st.sampled_from("ab")),
    min_size=1,
    max_size=12,
)
NOTHING_DUE = RetryPolicy(delay=3, jitter=0)


class ClaimRules(Rules):
    """C12 to C17: claiming."""

    async def test_c12_a_claim_gives_a_lease_and_spends_an_attempt(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C12: sets in_progress, lease + 1, attempt + 1, the lease's deadline."""
        task = await queue.enqueue("goal", {"a": 1})
        await clock.advance(5)
        (held,) = await queue.claim(worker="me", lease_timeout=7.5)
        now = datetime.fromtimestamp(clock.now() / 1e6, UTC)

        assert (TaskStatus.IN_PROGRESS, 1, 1, "me") == (held.status, held.lease, held.attempt, held.worker)
        assert (now, now + timedelta(seconds=7.5)) == (held.started_at, held.lease_until)
        assert ("goal", {"a": 1}, task.seq, task.run_at) == (held.goal, held.context, held.seq, held.run_at)
        assert task.version + 1 == held.version
        assert held == await queue.get(task.id)

    async def test_c12_only_ready_tasks_are_taken(self, queue: TaskQueue) -> None:
        """C12: takes ready tasks only: pending with run_at <= now."""
        for status in set(TaskStatus) - {TaskStatus.PENDING}:
            await brought_to(queue, status, lane="one")
        await queue.enqueue("later", delay=1, lane="one")
        before = await everything(queue)

        assert [] == await queue.claim(worker="worker", lanes=["one"], limit=10)
        assert before == await everything(queue)

    async def test_c12_the_clock_is_read_inside_the_critical_section(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """C12: `now` is read inside the critical section: who takes a task, takes it after it was stored."""
        past = datetime.fromtimestamp(clock.wall() / 1e6, UTC) - timedelta(days=1)
        await queue.stats()
        monkeypatch.setattr(clock, "now", partial(_later_each_time, clock))
        taken: list[Task] = []

        async def take() -> None:
            taken.extend(await queue.claim(worker="worker", limit=9))

        async with factory.open() as other:
            for _ in range(20):
                async with anyio.create_task_group() as group:
                    group.start_soon(take)
                    group.start_soon(partial(other.enqueue, "goal", run_at=past))
            await take()

        assert 20 == len(taken)
        assert [] == [task.id for task in taken if task.head.started_at < task.head.created_at]

    async def test_c12_at_most_limit_tasks_are_taken(self, queue: TaskQueue) -> None:
        """C12: a claim takes at most what it asked for, and leaves the rest."""
        await queue.enqueue_many([NewTask(number) for number in range(5)])
        first = await queue.claim(worker="worker", limit=3)
        second = await queue.claim(worker="worker", limit=3)

        assert [[0, 1, 2], [3, 4]] == [[task.goal for task in claimed] for claimed in (first, second)]

    @EXAMPLES
    @given(new=NEW_TASKS, limit=st.integers(1, 5))
    async def test_c13_ready_tasks_come_in_order(
        self, queue: TaskQueue, clock: VirtualClock, new: list[tuple[int, float, str]], limit: int
    ) -> None:
        """C13, C17: order among ready tasks: (priority, run_at, seq); several lanes merge by this order."""
        stored = sum((await queue.stats()).total.values())
        lanes = {name: f"{name}{stored}" for name in "ab"}
        tasks = await queue.enqueue_many(
            NewTask("goal", priority=priority, delay=delay, lane=lanes[lane]) for priority, delay, lane in new
        )
        await clock.advance(1)
        ready = [task for task in tasks if task.head.run_at <= clock.now()]
        expected = sorted(ready, key=lambda task: (task.priority, task.head.run_at, task.seq))

        actual: list[Task] = []
        while claimed := await queue.claim(
            worker="worker", lanes=list(lanes.values()), limit=limit, lease_timeout=1e9
        ):
            actual += claimed

        assert [task.id for task in expected] == [task.id for task in actual]

    async def test_c13_seq_is_the_order_of_enqueue_over_handles_and_deletions(
        self, factory: QueueFactory
    ) -> None:
        """C13: seq is the order of enqueue, never changed; also where the newest task was deleted."""
        seqs = []
        for _ in range(4):
            async with factory.open() as queue:
                task = await queue.enqueue("goal")
                seqs.append(task.seq)
                await queue.cancel(task.id)
                await queue.delete(task.id)

        assert sorted(set(seqs)) == seqs

    async def test_c13_seq_never_changes(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C13: seq is never changed, whatever becomes of the task."""
        task = await queue.enqueue("goal", status="suggested")
        await queue.accept(task.id)
        await queue.reprioritise(task.id, 1)
        await queue.fail(await claim_one(queue), "error", delay=0)
        await queue.release(await claim_one(queue))
        await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        await queue.reap()
        await queue.cancel(task.id)
        await queue.retry(task.id)

        assert task.seq == (await current(queue, task)).seq

    async def test_c13_another_priority_moves_a_task_in_the_line(self, queue: TaskQueue) -> None:
        """C13: order among ready tasks: (priority, run_at, seq), as they are now."""
        tasks = await queue.enqueue_many([NewTask(number) for number in range(4)])
        await queue.reprioritise(tasks[3].id, 1)
        await queue.reprioritise(tasks[0].id, 5)
        await queue.reprioritise(tasks[2].id, 1)
        await queue.reprioritise(tasks[2].id, 3)
        claimed = await queue.claim(worker="worker", limit=9)

        assert [3, 1, 2, 0] == [task.goal for task in claimed]

    async def test_c13_a_retry_and_an_answer_keep_to_the_order(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C13: a retried task stands where its new run_at puts it, an answered one where it was."""
        await queue.enqueue_many(
            [NewTask("failed", retry=NOTHING_DUE), NewTask("parked"), NewTask("waiting")]
        )
        failed, parked = await queue.claim(worker="worker", limit=2)
        await queue.fail(failed, "error")
        await queue.park(parked, ["question"])
        await queue.answer(parked.id, "question", 1)
        await clock.advance(3)
        claimed = await queue.claim(worker="worker", limit=9)

        assert ["parked", "waiting", "failed"] == [task.goal for task in claimed]

    async def test_c14_never_before_run_at(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C14: never before run_at; at the first claim with now >= run_at."""
        await queue.enqueue("goal", delay=10)
        await clock.advance(9.999_999)
        before = await queue.claim(worker="worker")
        await clock.advance(0.000_001)
        after = await queue.claim(worker="worker")

        assert [] == before
        assert ["goal"] == [task.goal for task in after]

    async def test_c14_run_at_in_the_past_is_ready_and_stands_before(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C14, C13: a run_at in the past is ready at once, and comes before what is of now."""
        past = datetime.fromtimestamp(clock.wall() / 1e6, UTC) - timedelta(days=1)
        await queue.enqueue_many([NewTask("now"), NewTask("past", run_at=past)])
        claimed = await queue.claim(worker="worker", limit=2)

        assert ["past", "now"] == [task.goal for task in claimed]

    async def test_c15_concurrent_claims_are_disjoint(self, factory: QueueFactory) -> None:
        """C15: a (task, lease) is given to exactly one caller; concurrent claims are disjoint."""
        claimed: list[Task] = []

        async def take(queue: TaskQueue, number: int) -> None:
            for _ in range(5):
                claimed.extend(await queue.claim(worker=f"worker {number}", limit=2))

        async with factory.open() as first, factory.open() as second:
            await first.enqueue_many([NewTask(number) for number in range(40)])
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(take, (first, second)[number % 2], number)

        assert list(range(40)) == sorted(task.goal for task in claimed)
        assert {1} == {task.lease for task in claimed}

    @needs("event_loops")
    async def test_c15_threads_claim_disjointly(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock, anyio_backend: str
    ) -> None:
        """C15: concurrent claims are disjoint, also from several event loops."""
        await queue.enqueue_many([NewTask(number) for number in range(60)])
        claimed: list[Any] = []

        async def take(number: int) -> None:
            async with factory.open(backend=queue.backend.clone()) as own:
                while got := await own.claim(worker=f"worker {number}", limit=2):
                    claimed.extend(task.goal for task in got)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(on_another_loop, clock, anyio_backend, partial(take, number))

        assert list(range(60)) == sorted(claimed)

    async def test_c16_nothing_ready_returns_at_once(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C16: nothing ready: returns at once, empty."""
        await queue.enqueue("goal", delay=1)
        async with under_way(clock, lambda: queue.claim(worker="worker")) as claim:
            assert (True, []) == (claim.is_over, claim.value)

    async def test_c16_a_waiting_claim_returns_by_its_timeout(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: a claim that waits returns by its timeout."""
        await queue.enqueue("goal", delay=60)
        async with under_way(clock, lambda: queue.claim(worker="worker", wait=2)) as claim:
            await clock.advance(1.9)
            early = claim.is_over
            await clock.advance(0.1)

            assert (False, True, []) == (early, claim.is_over, claim.value)

    async def test_c16_a_waiting_claim_takes_a_delayed_task_in_time(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: a claim that waits returns within 0.25 s of readiness, here that of a run_at."""
        await queue.enqueue("goal", delay=2)
        async with under_way(clock, lambda: queue.claim(worker="worker", wait=30)) as claim:
            await clock.advance(1.9)
            early = claim.is_over
            await clock.advance(0.35)

            assert (False, True) == (early, claim.is_over)
            assert ["goal"] == [task.goal for task in claim.value]

    async def test_c16_a_waiting_claim_wakes_for_a_new_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here an enqueue through another handle."""
        async with factory.open() as other:
            await _expect_wake_up(queue, clock, lambda: other.enqueue("goal"))

    async def test_c16_a_waiting_claim_wakes_for_a_task_of_any_of_its_lanes(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16, C17: within 0.25 s of readiness in any of the asked lanes."""
        async with factory.open() as other:
            await _expect_wake_up(queue, clock, lambda: other.enqueue("goal", lane="third"))

    async def test_c16_a_waiting_claim_wakes_for_a_released_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here a release."""
        async with factory.open() as other:
            await other.enqueue("goal")
            held = await claim_one(other)
            await _expect_wake_up(queue, clock, lambda: other.release(held))

    async def test_c16_a_waiting_claim_wakes_for_a_retried_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here an explicit retry."""
        async with factory.open() as other:
            await other.enqueue("goal")
            failed = await other.fail(await claim_one(other), "error", retry=False)
            await _expect_wake_up(queue, clock, lambda: other.retry(failed.id))

    async def test_c16_a_waiting_claim_wakes_for_an_unblocked_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here the end of the last dependency."""
        async with factory.open() as other:
            parent = await other.enqueue("parent")
            await other.enqueue("goal", depends_on=[parent.id], lane="second")
            held = await claim_one(other)
            await _expect_wake_up(queue, clock, lambda: other.complete(held))

    async def test_c16_a_waiting_claim_wakes_for_an_answered_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here an answer."""
        async with factory.open() as other:
            await other.enqueue("goal")
            parked = await other.park(await claim_one(other), ["question"])
            await _expect_wake_up(queue, clock, lambda: other.answer(parked.id, "question", 1))

    async def test_c16_a_waiting_claim_wakes_for_an_accepted_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, here an accept."""
        async with factory.open() as other:
            suggested = await other.enqueue("goal", status="suggested")
            await _expect_wake_up(queue, clock, lambda: other.accept(suggested.id))

    async def test_c16_readiness_between_claim_and_wait_is_not_slept_through(
        self, factory: QueueFactory, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, also where it comes just after the store was asked."""
        backend = InterposedBackend(factory.open_backend())
        backend.after["claim"] = lambda: clock.sleep(0.001)
        async with factory.open(backend=backend) as queue:
            await queue.enqueue("goal", delay=0.001)
            async with under_way(clock, lambda: queue.claim(worker="worker", wait=60)) as claim:
                await clock.advance(0.25)

                assert claim.is_over

    async def test_c16_a_wake_up_between_claim_and_wait_is_not_lost(
        self, factory: QueueFactory, clock: VirtualClock
    ) -> None:
        """C16: within 0.25 s of readiness, also where another enqueues just after the store was asked."""
        backend = InterposedBackend(factory.open_backend())
        async with factory.open() as other, factory.open(backend=backend) as queue:
            await queue.stats()

            async def enqueue() -> None:
                backend.after.clear()
                await other.enqueue("goal")

            backend.after["claim"] = enqueue
            async with under_way(clock, lambda: queue.claim(worker="worker", wait=60)) as claim:
                await clock.advance(0.25)

                assert claim.is_over

    @needs("event_loops")
    async def test_c16_threads_wake_each_other(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock, anyio_backend: str
    ) -> None:
        """C16: within 0.25 s of readiness, here an enqueue on another event loop."""

        async def enqueue() -> None:
            async with factory.open(backend=queue.backend.clone()) as other:
                await other.enqueue("goal")

        await _expect_wake_up(queue, clock, lambda: on_another_loop(clock, anyio_backend, enqueue))

    async def test_c17_only_the_asked_lanes(self, queue: TaskQueue) -> None:
        """C17: only the asked lanes; the lane is the only routing."""
        await queue.enqueue_many(
            [NewTask(lane, lane=lane, tags=["a"], priority=1) for lane in ("b", "default")]
        )
        await queue.enqueue("a", lane="a", priority=5)
        claimed = await queue.claim(worker="worker", lanes=["a", "unknown", "a"], limit=9)

        assert ["a"] == [task.goal for task in claimed]

    @pytest.mark.parametrize("lanes", ["abc", "cba"])
    async def test_c17_several_lanes_merge(self, queue: TaskQueue, clock: VirtualClock, lanes: str) -> None:
        """C17: several lanes merge by C13's order, in whatever order they are named."""
        for number, lane in enumerate("bacabc"):
            await queue.enqueue(number, lane=lane)
            await clock.advance(1)
        await queue.enqueue("urgent", lane="c", priority=1)
        claimed = await queue.claim(worker="worker", lanes=list(lanes), limit=9)

        assert ["urgent", 0, 1, 2, 3, 4, 5] == [task.goal for task in claimed]

    async def test_c17_tags_filter_reads(self, queue: TaskQueue) -> None:
        """C17: tags filter reads, as do state, lane and key; the order is that of enqueue."""
        await queue.enqueue_many(
            [
                NewTask(0, tags=["x", "y"]),
                NewTask(1, tags=["x"], lane="a"),
                NewTask(2, tags=["xy"], status="backlog", key="key"),
            ]
        )

        async def goals(**conditions: Any) -> list[Any]:
            return [task.goal async for task in queue.tasks(**conditions)]

        assert [0, 1, 2] == await goals()
        assert [0, 1] == await goals(tag="x")
        assert [1] == await goals(tag="x", lane="a")
        assert [2] == await goals(status="backlog")
        assert [2] == await goals(key="key")
        assert [] == await goals(tag="z")

    async def test_c17_reading_goes_on_past_one_page(self, queue: TaskQueue) -> None:
        """C17: reading gives every task, however many there are."""
        await queue.enqueue_many([NewTask(number) for number in range(1203)])

        assert list(range(1203)) == [task.goal async for task in queue.tasks()]


def _later_each_time(clock: VirtualClock) -> int:
    clock._now += 1000  # noqa: SLF001 - no test may sleep between two readings
    return clock._now  # noqa: SLF001


async def _expect_wake_up(
    queue: TaskQueue, clock: VirtualClock, make_ready: Callable[[], Awaitable[object]]
) -> None:
    lanes = ["default", "second", "third"]
    await queue.stats()
    async with under_way(clock, lambda: queue.claim(worker="waiting", lanes=lanes, wait=60)) as claim:
        await clock.advance(0.4)
        early = claim.is_over
        await make_ready()
        await clock.advance(0.25)

        assert (False, True) == (early, claim.is_over)
        assert ["goal"] == [task.goal for task in claim.value]
