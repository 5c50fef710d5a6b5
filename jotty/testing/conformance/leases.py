"""D. Lease and fence: C18 to C21, C24 to C26."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from jotty.core.queue import NewTask, RetryPolicy, TaskStatus
from jotty.errors import LeaseLost

from .rules import Rules, claim_one, current, everything, head_of, under_way
from .states import LEASE_CALLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["LeaseRules"]

AT_ONCE: Final = RetryPolicy(delay=0, jitter=0)


async def _by_expiry(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await clock.advance(31)
    await queue.reap()
    assert TaskStatus.PENDING is (await current(queue, task)).status


async def _by_takeover(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await _by_expiry(queue, clock, task)
    await claim_one(queue)


async def _by_release_and_claim(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await clock.advance(1)
    await queue.release(task)
    await claim_one(queue)


async def _by_release(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await clock.advance(1)
    await queue.release(task)


async def _by_failure(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await clock.advance(1)
    await queue.fail(task, "error", retry=False)


async def _by_parking(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await clock.advance(1)
    await queue.park(task, ["another question"])


async def _by_deletion(queue: TaskQueue, clock: VirtualClock, task: Task) -> None:
    await _by_failure(queue, clock, task)
    await queue.delete(task.id)


WAYS_TO_LOSE: Final[Mapping[str, Callable[[TaskQueue, VirtualClock, Task], Awaitable[None]]]] = {
    "expiry": _by_expiry,
    "takeover": _by_takeover,
    "release": _by_release,
    "release and claim": _by_release_and_claim,
    "failure": _by_failure,
    "parking": _by_parking,
    "deletion": _by_deletion,
}


class LeaseRules(Rules):
    """C18 to C26: what holds a task, and what does not."""

    @pytest.mark.parametrize("call", LEASE_CALLS)
    @pytest.mark.parametrize("way", WAYS_TO_LOSE)
    async def test_c18_lost_lease_changes_nothing(
        self, queue: TaskQueue, clock: VirtualClock, call: str, way: str
    ) -> None:
        """C18: writes take effect only for the current (task, lease) in progress; else LeaseLost."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await WAYS_TO_LOSE[way](queue, clock, held)
        before = await everything(queue)
        with pytest.raises(LeaseLost) as caught:
            await LEASE_CALLS[call](queue, held)

        assert (held.id, held.lease) == (caught.value.task_id, caught.value.lease)
        assert before == await everything(queue)

    @pytest.mark.parametrize("call", LEASE_CALLS)
    async def test_c18_who_has_only_read_a_task_does_not_hold_it(self, queue: TaskQueue, call: str) -> None:
        """C18: a task as it was enqueued, or given back, is no lease, though it is as the store has it."""
        enqueued = await queue.enqueue("goal", lane="asleep")
        await queue.enqueue("goal")
        given_back = await queue.release(await claim_one(queue))
        before = await everything(queue)

        for task in (enqueued, given_back):
            with pytest.raises(LeaseLost):
                await LEASE_CALLS[call](queue, task)
        assert before == await everything(queue)

    @pytest.mark.parametrize("way", WAYS_TO_LOSE)
    async def test_c18_a_heartbeat_tells_of_a_lost_lease(
        self, queue: TaskQueue, clock: VirtualClock, way: str
    ) -> None:
        """C18: a heartbeat takes effect only for the current lease; None tells that it is lost."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await WAYS_TO_LOSE[way](queue, clock, held)
        before = await everything(queue)

        assert [None] == await queue.heartbeat([held])
        assert before == await everything(queue)

    @pytest.mark.parametrize("call", LEASE_CALLS)
    async def test_c18_a_newer_version_under_the_same_lease_is_no_loss(
        self, queue: TaskQueue, call: str
    ) -> None:
        """C18: the lease counts, not the version: another's write in between does not lose it."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.reprioritise(held.id, 1)
        await queue.answer(held.id, "other question", 1)
        await LEASE_CALLS[call](queue, held)
        after = await head_of(queue, held)

        assert (1, ("other question",)) == (after.priority, after.answered)
        assert held.version + 3 - (call == "record") == after.version

    async def test_c18_one_lost_lease_among_many_loses_no_other(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C18: heartbeats are judged one by one."""
        for number in range(3):
            await queue.enqueue(number)
        held = await queue.claim(worker="worker", limit=3)
        await queue.release(held[1])
        await clock.advance(20)
        renewed = await queue.heartbeat(held)

        assert [0, None, 2] == [task.goal if task else None for task in renewed]

    @pytest.mark.parametrize("call", LEASE_CALLS)
    async def test_c19_an_expired_lease_that_was_not_reaped_still_counts(
        self, queue: TaskQueue, clock: VirtualClock, call: str
    ) -> None:
        """C19: expired but not yet reaped (still in_progress under this lease): complete succeeds."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=10)
        await clock.advance(3600)
        await LEASE_CALLS[call](queue, held)

        assert held.version < (await head_of(queue, held)).version or call == "record"

    async def test_c19_a_late_heartbeat_revives_the_lease(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C19: expired but not yet reaped: heartbeat succeeds, and the lease counts again."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=10)
        await clock.advance(3600)
        (renewed,) = await queue.heartbeat([held], lease_timeout=10)
        await clock.advance(9.9)

        assert renewed is not None
        assert 0 == await queue.reap()
        assert TaskStatus.COMPLETED is (await queue.complete(held)).status

    async def test_c20_a_heartbeat_renews_from_now(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C20: a heartbeat renews the lease, from the store's time; due follows, and nothing else changes."""
        await queue.enqueue("goal", {"a": 1})
        held = await claim_one(queue, lease_timeout=10)
        await clock.advance(4)
        (renewed,) = await queue.heartbeat([held], lease_timeout=10)

        assert renewed == await current(queue, held)
        assert renewed is not None
        assert clock.now() + 10_000_000 == renewed.head.lease_until == renewed.head.due
        assert held.version + 1 == renewed.version
        assert (held.lease, held.attempt, held.status) == (renewed.lease, renewed.attempt, renewed.status)

    async def test_c20_a_heartbeat_never_shortens_a_lease(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C20: a heartbeat never shortens a lease."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=100)
        await clock.advance(4)
        (renewed,) = await queue.heartbeat([held], lease_timeout=10)

        assert renewed is not None
        assert held.lease_until == renewed.lease_until == renewed.due

    async def test_c20_a_heartbeat_tells_of_a_requested_cancel(self, queue: TaskQueue) -> None:
        """C20: a heartbeat tells of a requested cancel."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        (before,) = await queue.heartbeat([held])
        await queue.cancel(held.id)
        (after,) = await queue.heartbeat([held])

        assert [False, True] == [task.cancel_requested if task else None for task in (before, after)]

    async def test_c20_a_heartbeat_of_nothing_gives_nothing(self, queue: TaskQueue) -> None:
        """C20: no leases, no answers."""
        assert [] == await queue.heartbeat([])

    async def test_c21_lease_grows_by_one_at_every_claim(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C21: lease grows by exactly one a claim, across release, retry, reopen."""
        leases = []
        task = await queue.enqueue("goal", retry=AT_ONCE)
        endings: list[Callable[[Task], Awaitable[Any]]] = [
            queue.release,
            lambda held: queue.fail(held, "error"),
            lambda held: queue.fail(held, "error", retry=False),
            lambda _: clock.advance(31),
            queue.release,
        ]
        for ending in endings:
            held = await claim_one(queue)
            leases.append(held.lease)
            await ending(held)
            await queue.reap()
            if (await current(queue, task)).status is TaskStatus.FAILED:
                await queue.retry(task.id)
        async with factory.open() as other:
            leases.append((await claim_one(other)).lease)

        assert [1, 2, 3, 4, 5, 6] == leases

    async def test_c24_an_expired_lease_is_reclaimed_by_any_claim(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C24: expired leases are reclaimed by any worker, no daemon, within lease + 1 s."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=30)
        async with factory.open() as other:
            early = await other.claim(worker="other")
            await clock.advance(29.9)
            early += await other.claim(worker="other")
            await clock.advance(1.1)
            taken = await other.claim(worker="other")

        assert [] == early
        assert [(held.id, 2, 2, "other")] == [
            (task.id, task.lease, task.attempt, task.worker) for task in taken
        ]

    async def test_c24_a_waiting_claim_reclaims_an_expired_lease(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C24: within lease + 1 s, by a worker that does nothing but wait."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=5)
        async with factory.open() as other:
            await other.stats()
            async with under_way(clock, lambda: other.claim(worker="other", wait=60)) as claim:
                await clock.advance(4.9)
                early = claim.is_over
                await clock.advance(1.1)

                assert (False, True) == (early, claim.is_over)
                assert [held.id] == [task.id for task in claim.value]

    async def test_c24_a_busy_worker_reclaims_too(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C24: within lease + 1 s, also where every claim finds something else to do."""
        await queue.enqueue("urgent", priority=1)
        await claim_one(queue, lease_timeout=5)
        await queue.enqueue_many([NewTask(number) for number in range(9)])
        claimed = []
        for _ in range(7):
            claimed += await queue.claim(worker="busy")
            await clock.advance(1)

        assert "urgent" in [task.goal for task in claimed]

    async def test_c24_a_reclaimed_task_keeps_its_place_in_line(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C24: an expired lease puts the task back to pending, with its run_at."""
        task = await queue.enqueue("goal")
        await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        made = await queue.reap()
        after = await current(queue, task)

        assert 1 == made
        assert (TaskStatus.PENDING, task.run_at, 1, 1) == (
            after.status,
            after.run_at,
            after.attempt,
            after.lease,
        )
        assert (None, 0) == (after.head.due, after.head.lease_until)

    async def test_c24_without_attempts_left_it_is_failed(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C24: to failed ("worker lost") when no attempts are left."""
        task = await queue.enqueue("goal", max_attempts=2)
        for _ in range(2):
            await claim_one(queue, lease_timeout=1)
            await clock.advance(2)
            await queue.reap()
        after = await current(queue, task)

        assert TaskStatus.FAILED is after.status
        assert after.error is not None
        assert "worker lost" in after.error["message"]

    async def test_c24_a_kept_lease_is_not_reclaimed(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C24: only expired leases are."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=3)
        for _ in range(10):
            await clock.advance(2)
            await queue.heartbeat([held], lease_timeout=3)
            assert [] == await queue.claim(worker="other")

        assert TaskStatus.COMPLETED is (await queue.complete(held)).status

    async def test_c24_many_expired_leases_are_reclaimed_at_once(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C24: expired leases are reclaimed, however many there are."""
        for number in range(230):
            await queue.enqueue(number)
        await queue.claim(worker="lost", limit=230, lease_timeout=1)
        await clock.advance(1)

        assert 230 == await queue.reap()
        assert 230 == len(await queue.claim(worker="other", limit=230))

    async def test_c25_a_task_whose_worker_was_lost_is_to_run_alone(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C25: a task whose worker was lost runs alone in its worker the next time, and then no more."""
        await queue.enqueue("goal", retry=AT_ONCE)
        first = await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        await queue.reap()
        second = await claim_one(queue)
        third = await queue.fail(second, "error")

        assert [False, True, False] == [task.isolated for task in (first, second, third)]

    async def test_c26_release_gives_the_attempt_and_the_place_back(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C26: pending at once, the attempt given back, run_at and seq kept: back to its place in line."""
        task = await queue.enqueue("first")
        await clock.advance(1)
        await queue.enqueue("second")
        released = await queue.release(await claim_one(queue))

        assert (TaskStatus.PENDING, 0, 1) == (released.status, released.attempt, released.lease)
        assert (task.run_at, task.seq, None) == (released.run_at, released.seq, released.due)
        assert released == await current(queue, task)
        assert "first" == (await claim_one(queue)).goal

    async def test_c26_releasing_for_ever_spends_no_attempt(self, queue: TaskQueue) -> None:
        """C26: the attempt is given back, each time."""
        await queue.enqueue("goal", max_attempts=1)
        released = [await queue.release(await claim_one(queue)) for _ in range(5)]

        assert (0, 5) == (released[-1].attempt, released[-1].lease)

    async def test_c26_release_may_ask_for_a_delay(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C26: with a delay the task comes that much later."""
        await queue.enqueue("goal")
        released = await queue.release(await claim_one(queue), delay=5)
        early = await queue.claim(worker="worker")
        await clock.advance(5)

        assert released.created_at is not None
        assert released.created_at + timedelta(seconds=5) == released.run_at
        assert [] == early
        assert "goal" == (await claim_one(queue)).goal
