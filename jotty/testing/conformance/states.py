"""A. States: C1 to C5."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from jotty.core.queue import NewTask, TaskStatus
from jotty.errors import InvalidState, JottyError, LeaseLost, PayloadError, QueueError
from jotty.testing.moves import LIVE, MOVES, TERMINAL

from .rules import QueueFactory, Rules, brought_to, claim_one, collect, current, everything

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.clock import VirtualClock

__all__ = ["ALL_CALLS", "CLIENT_CALLS", "LEASE_CALLS", "StateRules"]

S = TaskStatus

LEASE_CALLS: Final[Mapping[str, Callable[[TaskQueue, Task], Awaitable[Any]]]] = {
    "complete": lambda queue, task: queue.complete(task, "other"),
    "fail": lambda queue, task: queue.fail(task, "other"),
    "fail for good": lambda queue, task: queue.fail(task, "other", retry=False),
    "release": lambda queue, task: queue.release(task),
    "park": lambda queue, task: queue.park(task, ["question"]),
    "record": lambda queue, task: queue.record(task, [{"kind": "event"}]),
}
CLIENT_CALLS: Final[Mapping[str, Callable[[TaskQueue, Task], Awaitable[Any]]]] = {
    "cancel": lambda queue, task: queue.cancel(task.id),
    "retry": lambda queue, task: queue.retry(task.id),
    "accept": lambda queue, task: queue.accept(task.id),
    "accept later": lambda queue, task: queue.accept(task.id, run=False),
    "reprioritise": lambda queue, task: queue.reprioritise(task.id, 2),
    "answer": lambda queue, task: queue.answer(task.id, "question", 1),
    "delete": lambda queue, task: queue.delete(task.id),
}
ALL_CALLS: Final[Mapping[str, Callable[[TaskQueue, Task], Awaitable[Any]]]] = {**LEASE_CALLS, **CLIENT_CALLS}

# What each call makes of a task in each state; in any other state it is refused.
AFTER: Final[Mapping[str, Mapping[S, S | None]]] = {
    "complete": {S.IN_PROGRESS: S.COMPLETED, S.COMPLETED: S.COMPLETED},
    "fail": {S.IN_PROGRESS: S.PENDING},
    "fail for good": {S.IN_PROGRESS: S.FAILED},
    "release": {S.IN_PROGRESS: S.PENDING},
    "park": {S.IN_PROGRESS: S.BLOCKED},
    "record": {S.IN_PROGRESS: S.IN_PROGRESS},
    "cancel": {status: status for status in TERMINAL | {S.IN_PROGRESS}}
    | dict.fromkeys(LIVE - {S.IN_PROGRESS}, S.CANCELLED),
    "retry": {S.FAILED: S.PENDING, S.CANCELLED: S.PENDING},
    "accept": {S.SUGGESTED: S.PENDING, S.BACKLOG: S.PENDING},
    "accept later": {S.SUGGESTED: S.BACKLOG},
    "reprioritise": {status: status for status in LIVE},
    "answer": {status: status for status in LIVE},
    "delete": dict.fromkeys(TERMINAL),
}


class StateRules(Rules):
    """C1 to C5: the states, and what never changes about a task."""

    @pytest.mark.parametrize("call", [*LEASE_CALLS, *CLIENT_CALLS])
    async def test_c01_each_call_makes_its_moves_and_no_other(self, queue: TaskQueue, call: str) -> None:
        """C1: these are the moves between states; nothing else."""
        refused = LeaseLost if call in LEASE_CALLS else InvalidState
        expected = {status: AFTER[call].get(status, refused) for status in TaskStatus}

        actual = {status: await _state_after(queue, call, status) for status in TaskStatus}

        assert expected == actual

    @pytest.mark.parametrize("call", [*LEASE_CALLS, *CLIENT_CALLS])
    async def test_c01_a_refused_call_changes_nothing(self, queue: TaskQueue, call: str) -> None:
        """C1, C4: a call that is refused because of the task's state has no effect at all."""
        tasks = [await brought_to(queue, status) for status in TaskStatus if status not in AFTER[call]]
        before = await everything(queue)

        for task in tasks:
            with pytest.raises(QueueError):
                await ALL_CALLS[call](queue, task)

        assert before == await everything(queue)

    async def test_c01_a_parked_task_is_blocked_and_its_answer_makes_it_pending(
        self, queue: TaskQueue
    ) -> None:
        """C1: in_progress -> blocked (waits for an answer), blocked -> pending (the awaited answer given)."""
        await queue.enqueue("goal")
        parked = await queue.park(await claim_one(queue), ["question"])
        answered = await queue.answer(parked.id, "question", True)

        assert (S.BLOCKED, S.PENDING) == (parked.status, answered.status)

    @pytest.mark.parametrize("status", sorted(TERMINAL))
    async def test_c02_terminal_states_change_by_nothing_but_retry(
        self, queue: TaskQueue, clock: VirtualClock, status: TaskStatus
    ) -> None:
        """C2: terminal states change by nothing but an explicit retry."""
        task = await brought_to(queue, status)
        before = await everything(queue)

        for call in ALL_CALLS.keys() - {"retry", "delete"}:
            with suppress(LeaseLost, InvalidState):
                await ALL_CALLS[call](queue, task)
        await queue.heartbeat([task])
        await clock.advance(7 * 86_400)
        await queue.reap()
        await queue.claim(worker="worker", lanes=[status.value])

        assert before == await everything(queue)

    async def test_c02_only_delete_and_purge_remove_a_task(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C2: terminal tasks leave only by delete or purge."""
        tasks = [await brought_to(queue, status) for status in sorted(TERMINAL)]
        await clock.advance(366 * 86_400)
        await queue.reap()
        there = [(await current(queue, task)).status for task in tasks]
        await queue.delete(tasks[0].id)
        await queue.purge(timedelta(days=1))

        assert sorted(TERMINAL) == there
        assert [None] * 3 == [await queue.get(task.id) for task in tasks]

    async def test_c03_ids_are_unique_and_never_reused(self, factory: QueueFactory) -> None:
        """C3: ids are unique and never reused, also after purge and restart."""
        ids: list[str] = []
        for _ in range(3):
            async with factory.open() as queue:
                tasks = await queue.enqueue_many([NewTask("goal")] * 20)
                ids += [task.id for task in tasks]
                for task in tasks:
                    await queue.cancel(task.id)
                await queue.purge(timedelta(0))
                await factory.clock.advance(0.001)
                await queue.purge(timedelta(0))

        assert 60 == len(set(ids))

    async def test_c03_ids_are_ordered_by_time(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C3: ids are ordered by the time of enqueue."""
        ids = []
        for _ in range(5):
            ids.append((await queue.enqueue("goal")).id)
            await clock.advance(0.002)

        assert sorted(ids) == ids

    async def test_c04_a_call_that_raises_changed_nothing(self, queue: TaskQueue) -> None:
        """C4: every call is atomic: whole effect or none."""
        await queue.enqueue("goal", key="key")
        held = await claim_one(queue)
        before = await everything(queue)

        with pytest.raises(PayloadError):
            await queue.enqueue_many([NewTask("fine"), NewTask({1})])
        with pytest.raises(JottyError):
            await queue.enqueue_many([NewTask("fine"), NewTask("no parent", depends_on=["unknown"])])
        with pytest.raises(PayloadError):
            await queue.complete(held, {"fine": 1, "wrong": object()})
        with pytest.raises(PayloadError):
            await queue.record(held, [{"kind": "fine"}, {"kind": "wrong", "value": object()}])

        assert before == await everything(queue)

    async def test_c05_counts_equal_the_tasks_at_every_step(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C5: at every step, enqueued = sum of the states + deleted, and the counts equal the model's."""
        model = dict.fromkeys(TaskStatus, 0)
        for number, status in enumerate([*TaskStatus, *TaskStatus], start=1):
            await brought_to(queue, status, lane=f"{status} {number % 2}")
            model[status] += 1
            model[S.PENDING] += status is S.BLOCKED  # its parent
            stats = await queue.stats()
            assert model == stats.total
            assert sum(model.values()) == len(await collect(queue.tasks()))
        await clock.advance(1)
        deleted = await queue.purge(timedelta(0))

        assert 6 == deleted
        assert sum(model.values()) - deleted == sum((await queue.stats()).total.values())

    async def test_c05_counts_are_by_lane_and_state(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C5: counts equal the model's, by lane and state, without zeros."""
        await queue.enqueue_many(
            [NewTask("goal", lane="a"), NewTask("goal", lane="a"), NewTask("goal", lane="b")]
        )
        await claim_one(queue, lane="b")
        await clock.advance(2)
        await queue.enqueue("goal", lane="a")
        stats = await queue.stats()

        assert {"a": {S.PENDING: 3}, "b": {S.IN_PROGRESS: 1}} == stats.lanes
        assert {"a": 2.0} == stats.oldest


async def _state_after(queue: TaskQueue, call: str, status: TaskStatus) -> TaskStatus | type | None:
    """Bring a task to a state, make a call, and return its state then, or the error's class."""
    task = await brought_to(queue, status, lane=f"{call} {status}")
    try:
        await ALL_CALLS[call](queue, task)
    except QueueError as error:
        return type(error)
    after = await queue.get(task.id)
    assert after is None or after.status is status or after.status in MOVES[status]
    return after.status if after else None
