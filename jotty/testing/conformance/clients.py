"""E. Finish: C33 and C34, and C39: what clients ask for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.queue import NewTask, Query, TaskStatus
from jotty.errors import InvalidState, JottyError, LeaseLost, TaskCancelled, TaskNotFound

from .interposed import InterposedBackend
from .rules import Rules, brought_to, claim_one, collect, current, everything, under_way
from .states import ALL_CALLS, CLIENT_CALLS, LEASE_CALLS

if TYPE_CHECKING:
    from jotty.core.queue import TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["ClientRules"]

S = TaskStatus
WAITING = [S.SUGGESTED, S.BACKLOG, S.BLOCKED, S.PENDING]


class ClientRules(Rules):
    """C33, C34, C39: cancel, delete, purge, and waiting for a result."""

    @pytest.mark.parametrize("status", WAITING)
    async def test_c33_a_waiting_task_is_cancelled_at_once(
        self, queue: TaskQueue, clock: VirtualClock, status: TaskStatus
    ) -> None:
        """C33: cancel: waiting tasks at once."""
        task = await brought_to(queue, status)
        answer = await queue.cancel(task.id)
        after = await current(queue, task)

        assert (True, S.CANCELLED, clock.now()) == (answer, after.status, after.head.finished_at)

    async def test_c33_a_parked_task_is_cancelled_at_once(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C33: cancel: waiting tasks at once, also one that waits for an answer; its expiry wakes nobody."""
        await queue.enqueue("goal")
        parked = await queue.park(await claim_one(queue), ["question"])
        await queue.cancel(parked.id)
        before = await everything(queue)
        await clock.advance(1e6)
        await queue.reap()

        assert S.CANCELLED is (await current(queue, parked)).status
        assert before == await everything(queue)

    async def test_c33_a_running_task_is_asked_to_stop(self, queue: TaskQueue) -> None:
        """C33: in progress: True once the request is stored, and True again."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        answers = [await queue.cancel(held.id), await queue.cancel(held.id)]
        after = await current(queue, held)

        assert [True, True] == answers
        assert (S.IN_PROGRESS, True, held.version + 1) == (
            after.status,
            after.cancel_requested,
            after.version,
        )

    async def test_c33_a_worker_in_the_same_process_learns_of_it_at_once(self, queue: TaskQueue) -> None:
        """C33: the worker learns of it at once in the same process."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        topic = f"worker:{held.worker}"
        mark = await queue.backend.wait(topic, -1, 0)
        await queue.cancel(held.id)

        assert mark < await queue.backend.wait(topic, mark, 0)

    async def test_c33_a_complete_under_that_lease_still_gives_completed(self, queue: TaskQueue) -> None:
        """C33: a complete under that lease still gives completed."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.cancel(held.id)
        done = await queue.complete(held, 1)

        assert (S.COMPLETED, 1) == (done.status, done.result)

    @pytest.mark.parametrize("call", ["fail", "fail for good", "release", "park"])
    async def test_c33_fail_and_release_become_cancelled(self, queue: TaskQueue, call: str) -> None:
        """C33: fail, release, expiry become cancelled."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.cancel(held.id)
        after = await LEASE_CALLS[call](queue, held)

        assert S.CANCELLED is after.status
        assert after == await current(queue, held)

    async def test_c33_expiry_becomes_cancelled(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C33: fail, release, expiry become cancelled."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=1)
        await queue.cancel(held.id)
        await clock.advance(1)
        await queue.reap()

        assert S.CANCELLED is (await current(queue, held)).status

    @pytest.mark.parametrize("status", [S.COMPLETED, S.FAILED, S.CANCELLED])
    async def test_c33_cancelling_what_is_over_gives_false(
        self, queue: TaskQueue, status: TaskStatus
    ) -> None:
        """C33: terminal: False."""
        task = await brought_to(queue, status)

        assert False is await queue.cancel(task.id)
        assert task == await current(queue, task)

    async def test_c33_a_retried_task_is_no_longer_asked_to_stop(self, queue: TaskQueue) -> None:
        """C33, C36: a retry starts afresh."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.cancel(held.id)
        cancelled = await queue.fail(held, "stopped")
        retried = await queue.retry(cancelled.id)
        held = await claim_one(queue)
        failed = await queue.fail(held, "error")

        assert (False, S.PENDING) == (retried.cancel_requested, failed.status)

    async def test_c33_waiting_for_a_result_ends_with_task_cancelled(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C33: who waits for the result is told."""
        task = await queue.enqueue("goal")
        async with factory.open() as other, under_way(clock, lambda: other.result(task.id)) as waiting:
            await queue.cancel(task.id)
            await clock.advance(0.25)

            assert isinstance(waiting.error, TaskCancelled)
            assert task.id == waiting.error.task_id

    async def test_c34_purge_touches_only_old_terminal_tasks(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C34: purge touches only terminal tasks older than the limit."""
        old = [await brought_to(queue, status, lane=f"old {status}") for status in TaskStatus]
        await clock.advance(60)
        await queue.heartbeat(old, lease_timeout=3600)
        young = [await brought_to(queue, status, lane=f"young {status}") for status in TaskStatus]
        purged = await queue.purge(timedelta(seconds=59))
        left = {task.id for task in await collect(queue.tasks())}

        assert 3 == purged
        assert {task.id for task in old if task.status.is_terminal} == {
            task.id for task in old if task.id not in left
        }
        assert {task.id for task in young} <= left

    async def test_c34_what_is_not_older_than_the_limit_stays(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C34: older than the limit is more than the limit ago."""
        task = await queue.enqueue("goal")
        await queue.cancel(task.id)
        await clock.advance(10)
        first = await queue.purge(timedelta(seconds=10))
        await clock.advance(0.000_001)
        second = await queue.purge(timedelta(seconds=10))

        assert [0, 1] == [first, second]

    async def test_c34_purge_goes_on_past_one_batch(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C34: purge touches every task that is old enough, however many there are."""
        await queue.enqueue_many([NewTask(number) for number in range(1203)])
        for task in await queue.claim(worker="worker", limit=1203):
            await queue.complete(task)
        await clock.advance(1)

        assert 1203 == await queue.purge(timedelta(0))
        assert {} == (await queue.stats()).lanes

    @pytest.mark.parametrize("status", [*WAITING, S.IN_PROGRESS])
    async def test_c34_deleting_a_live_task_is_refused(self, queue: TaskQueue, status: TaskStatus) -> None:
        """C34: deleting a live task: InvalidState."""
        task = await brought_to(queue, status)
        with pytest.raises(InvalidState) as caught:
            await queue.delete(task.id)

        assert (task.id, status) == (caught.value.task_id, caught.value.state)
        assert task == await current(queue, task)

    async def test_c34_edges_key_and_journal_go_with_a_task(self, queue: TaskQueue) -> None:
        """C34: edges, key, journal go with it."""
        parent, _ = await queue.enqueue_many([NewTask("parent", key="key"), NewTask("other")])
        held = await claim_one(queue)
        await queue.record(held, [{"kind": "event"}])
        await queue.complete(held, 1)
        deleted = [await queue.delete(parent.id), await queue.delete(parent.id)]

        assert [True, False] == deleted
        assert None is await queue.get(parent.id)
        assert [] == await queue.backend.read(parent.id)
        assert [] == await collect(queue.tasks(key="key"))
        assert ["other"] == [task.goal for task in await collect(queue.tasks())]
        with pytest.raises(TaskNotFound):
            await queue.result(parent.id)
        with pytest.raises(TaskNotFound):
            await collect(queue.events(parent.id))

    @pytest.mark.parametrize("how", ["delete", "purge"])
    async def test_c34_a_task_retried_meanwhile_is_not_deleted(
        self, factory: QueueFactory, clock: VirtualClock, how: str
    ) -> None:
        """C34: a task retried meanwhile is not deleted."""
        backend = InterposedBackend(factory.open_backend())
        async with factory.open() as other, factory.open(backend=backend) as queue:
            task = await brought_to(other, S.FAILED)
            await clock.advance(1)
            backend.before["delete"] = lambda: _retry_once(backend, other, task.id)
            if how == "purge":
                await queue.purge(timedelta(0))
            else:
                with pytest.raises(InvalidState):
                    await queue.delete(task.id)
            after = await current(other, task)

        assert S.PENDING is after.status

    async def test_c34_a_task_that_was_retried_and_ended_meanwhile_is_not_purged(
        self, factory: QueueFactory, clock: VirtualClock
    ) -> None:
        """C34: a task retried meanwhile is not deleted, even if it is over again: that end is not old."""
        backend = InterposedBackend(factory.open_backend())
        async with factory.open() as other, factory.open(backend=backend) as queue:
            task = await brought_to(other, S.CANCELLED)
            await clock.advance(10)

            async def run_again() -> None:
                await _retry_once(backend, other, task.id)
                await other.cancel(task.id)

            backend.before["delete"] = run_again
            purged = await queue.purge(timedelta(seconds=5))
            after = await other.get(task.id)

        assert 0 == purged
        assert after is not None

    async def test_c39_unknown_ids(self, queue: TaskQueue) -> None:
        """C39: unknown id: get gives None; cancel, retry raise TaskNotFound; lease calls raise LeaseLost."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.fail(held, "error", retry=False)
        await queue.delete(held.id)
        calls = {name: call for name, call in ALL_CALLS.items() if name != "delete"}
        raised: dict[str, type[Exception]] = {}
        for name, call in calls.items():
            with pytest.raises(JottyError) as caught:
                await call(queue, held)
            raised[name] = caught.type

        assert None is await queue.get(held.id)
        assert False is await queue.delete(held.id)
        assert [None] == await queue.heartbeat([held])
        assert raised == dict.fromkeys(LEASE_CALLS, LeaseLost) | dict.fromkeys(
            CLIENT_CALLS.keys() - {"delete"}, TaskNotFound
        )

    async def test_c39_waiting_for_an_unknown_task_ends_at_once(self, queue: TaskQueue) -> None:
        """C39: unknown id: TaskNotFound, not a wait."""
        with pytest.raises(TaskNotFound):
            await queue.result("unknown", timeout=5)
        with pytest.raises(TaskNotFound):
            await collect(queue.events("unknown"))

    async def test_c28_a_result_is_waited_for(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C28, C16: who waits for a result gets it within 0.25 s of its completion."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        async with factory.open() as other, under_way(clock, lambda: other.result(held.id)) as waiting:
            await clock.advance(1)
            early = waiting.is_over
            await queue.complete(held, [1])
            await clock.advance(0.25)

            assert (False, True, [1]) == (early, waiting.is_over, waiting.value)

    async def test_c41_a_result_is_waited_for_until_the_timeout(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C41: a wait that takes too long ends with TimeoutError."""
        task = await queue.enqueue("goal")
        async with under_way(clock, lambda: queue.result(task.id, timeout=2)) as waiting:
            await clock.advance(1.9)
            early = waiting.is_over
            await clock.advance(0.1)

            assert (False, TimeoutError) == (early, type(waiting.error))
        with pytest.raises(TimeoutError):
            await queue.result(task.id, timeout=0)

    async def test_c33_racing_cancels_and_completes_end_in_one_state(self, factory: QueueFactory) -> None:
        """C33, C4: whoever comes first, the task ends once, and its journal says so once."""
        async with factory.open() as queue, factory.open() as other:
            await queue.enqueue_many([NewTask(number) for number in range(8)])
            held = await queue.claim(worker="worker", limit=8)
            async with anyio.create_task_group() as group:
                for task in held:
                    group.start_soon(other.cancel, task.id)
                    group.start_soon(queue.complete, task)
            ends = [
                [entry.kind for entry in await collect(queue.events(task.id, follow=False))].count("end")
                for task in held
            ]
            found = await queue.backend.find(Query(statuses=[S.COMPLETED]))

        assert [1] * 8 == ends
        assert 8 == len(found)


async def _retry_once(backend: InterposedBackend, queue: TaskQueue, task_id: str) -> Any:
    backend.before.clear()
    await queue.retry(task_id)
