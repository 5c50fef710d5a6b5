"""A worker's fast path, `TaskQueue.turn`: many tasks settled in one step with the next claim."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from jotty.core.queue import MAX_PAYLOAD, NewTask, TaskStatus, settlement
from jotty.errors import LeaseLost

from .rules import Rules, cancelled_at, claim_one, current

if TYPE_CHECKING:
    from jotty.core.queue import Task, TaskQueue
    from jotty.core.queue.task_queue import Turn
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["TurnRules"]

S = TaskStatus


async def _turn(queue: TaskQueue, *settlements: settlement.Settlement, limit: int = 0) -> Turn:
    return await queue.turn(settlements, worker="worker", lanes=["default"], limit=limit, lease_timeout=30)


def _completion(task: Task, result: Any = None) -> settlement.Settlement:
    return settlement.completion(task, result, MAX_PAYLOAD, Random(0))


def _failure(task: Task) -> settlement.Settlement:
    return settlement.failure(task, "error", retry=False, delay=None, random=Random(0))


class TurnRules(Rules):
    """What `TaskQueue.turn` does is what the single calls do."""

    async def test_c28_a_turn_settles_each_and_claims_the_next(self, queue: TaskQueue) -> None:
        """C28, C31, C26: each task is settled as by its own call, and the next ones are claimed."""
        await queue.enqueue_many([NewTask(number) for number in range(5)])
        a, b, c = await queue.claim(worker="worker", limit=3)
        turn = await _turn(queue, _completion(a, "result"), _failure(b), settlement.release(c), limit=2)
        settled = [task for task in turn.settled if not isinstance(task, Exception)]

        assert [S.COMPLETED, S.FAILED, S.PENDING] == [task.status for task in settled]
        assert [2, 3] == [task.goal for task in turn.claimed]
        assert "result" == (await current(queue, a)).result
        assert settled[1] == await current(queue, b)

    async def test_c18_a_turn_loses_only_what_is_lost(self, queue: TaskQueue) -> None:
        """C18, C29: a settlement that is too late has no effect, and stops neither others nor the claim."""
        await queue.enqueue_many([NewTask(number) for number in range(4)])
        lost, done, stale = await queue.claim(worker="worker", limit=3)
        await queue.fail(lost, "error", retry=False)
        completed = await queue.complete(done, 1)
        await queue.reprioritise(stale.id, 1)
        turn = await _turn(queue, _completion(lost), _completion(done, 2), _completion(stale), limit=1)

        assert [LeaseLost, None, None] == [
            type(one) if isinstance(one, Exception) else None for one in turn.settled
        ]
        assert S.COMPLETED is (await current(queue, stale)).status
        assert completed == await current(queue, done)
        assert [3] == [task.goal for task in turn.claimed]

    async def test_c35_a_turn_unblocks_dependents(self, queue: TaskQueue) -> None:
        """C35: what a turn settles, its dependents see."""
        parent = await queue.enqueue("parent")
        child = await queue.enqueue("child", depends_on=[parent.id])
        await _turn(queue, _completion(await claim_one(queue)))

        assert S.PENDING is (await current(queue, child)).status

    async def test_c16_a_turn_tells_when_to_come_again(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C16, C14: the seconds until something is to be claimed or reaped; None if nothing is in sight."""
        empty = await _turn(queue, limit=1)
        await queue.enqueue("goal", delay=5)
        later = await _turn(queue, limit=1)
        await clock.advance(6)
        past = await _turn(queue)

        assert [None, 5.0, 0.0] == [empty.next_at, later.next_at, past.next_at]

    async def test_c42_a_cancelled_turn_gives_back_what_it_took(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C42: a cancelled claim first releases what it took, also where it was part of a turn."""
        async with factory.open() as other:
            for suspension in range(50):
                parent = await other.enqueue("parent", priority=1)
                held = await claim_one(queue)
                await other.enqueue("child", depends_on=[parent.id], lane="children")
                waiting = await other.enqueue("waiting")
                reached = await cancelled_at(suspension, partial(_turn, queue, _completion(held), limit=1))
                after = await current(other, waiting)
                expected = (S.PENDING, 0) if reached else (S.IN_PROGRESS, 1)

                assert expected == (after.status, after.attempt)
                if not reached:
                    return
                await other.cancel(waiting.id)
