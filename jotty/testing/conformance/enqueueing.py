"""B. Enqueue: C6, C8 to C11."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from jotty.core.queue import NewTask, Ref, RetryPolicy, TaskStatus
from jotty.errors import KeyInUse, PayloadError, QueueFull, TaskNotFound

from .rules import Rules, brought_to, claim_one, collect, current, everything, on_another_loop
from .terms import needs

if TYPE_CHECKING:
    from jotty.core.queue import TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["EnqueueRules"]

LONG: Final = "x" * 201
ROUNDS: Final = 25  # of 60 writes: more than a log takes before it is to be replaced by a snapshot
WRONG_VALUES: Final[dict[str, list[Any]]] = {
    "priority": [0, 6, -1, True, "high", 2.0, None],
    "delay": [-1, -0.001, float("nan"), float("inf"), True, "1", 1e12],
    "lane": ["", " a", "a ", "a\n", "a\0b", "\ud800", LONG, 5, None],
    "key": ["", " ", "a\tb", "\u2028", LONG, 5],
    "tags": [[""], [" a"], [LONG], [5], "text", {"set"}, None],
    "max_attempts": [0, -1, True, 1.5, "3", None],
    "timeout": [0, -1, float("nan"), True, "1"],
    "status": ["completed", "in_progress", "blocked", "unknown", 1],
    "on_dependency": ["explode", None, ""],
    "depends_on": ["id", {"id"}, [5], [None], None],
    "run_at": [datetime(2030, 1, 1), 5, "2030-01-01"],  # noqa: DTZ001 - is the mistake
    "retry": [3, None],
    "context": [[], "text", 1],
    "metadata": [[], "text"],
}
WRONG_CLAIMS: Final[dict[str, list[Any]]] = {
    "limit": [0, -1, True, 1.5, None],
    "lanes": [(), "default", [""], [5]],
    "worker": ["", " w", LONG, 5, None],
    "lease_timeout": [0, -1, float("nan"), True, "1"],
    "wait": [-1, float("nan"), float("inf"), "1"],
}


def _each(wrong: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [{name: value} for name, values in wrong.items() for value in values]


class EnqueueRules(Rules):
    """C6 and C8 to C11: enqueueing."""

    async def test_c06_every_handle_sees_what_was_enqueued(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C6: once enqueue returns, every process sees the task."""
        async with factory.open() as other:
            await other.stats()
            task = await queue.enqueue("goal", {"a": [1]}, tags=["t"], metadata={"m": 1}, headers={"h": "1"})
            seen = await other.get(task.id)
            claimed = await claim_one(other)

        assert task == seen
        assert task.id == claimed.id

    async def test_c06_what_was_enqueued_is_there_after_reopening(self, factory: QueueFactory) -> None:
        """C6: a task that was enqueued survives."""
        async with factory.open() as first:
            tasks = [await brought_to(first, status) for status in TaskStatus]
            before = await everything(first)
        async with factory.open() as second:
            after = await everything(second)

        assert before == after
        assert {task.id for task in tasks} <= set(after)

    async def test_c06_what_is_kept_outlives_very_much_that_comes_and_goes(
        self, factory: QueueFactory
    ) -> None:
        """C6: a task survives, also where the store tidies up, for who has it open and who comes later."""
        async with factory.open() as queue, factory.open() as behind:
            for status in TaskStatus:
                await brought_to(queue, status)
            await queue.record(await claim_one(queue, lane="pending"), [{"kind": "noted"}])
            before = await everything(behind)
            for _ in range(ROUNDS):
                for task in await queue.enqueue_many([NewTask("x" * 2000) for _ in range(20)]):
                    await queue.cancel(task.id)
                    await queue.delete(task.id)
            seen = await everything(queue), await everything(behind)
        async with factory.open() as fresh:
            found = await everything(fresh)

        assert (before, before) == seen
        assert before == found

    async def test_c06_a_task_comes_back_as_it_was_enqueued(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C6: what was enqueued is what is there."""
        retry = RetryPolicy(delay=0.5, factor=3, cap=60, jitter=0, max_postponements=7)
        task = await queue.enqueue(
            "goal",
            {"b": 1, "a": 2},
            priority=1,
            lane="lane",
            delay=2.5,
            key="key",
            max_attempts=9,
            retry=retry,
            timeout=1.5,
            tags=["y", "x", "y"],
            metadata={"m": None},
            headers={"traceparent": "00"},
        )
        async_now = datetime.fromtimestamp(clock.now() / 1e6, UTC)

        assert task == await queue.get(task.id)
        assert ("goal", {"b": 1, "a": 2}, {"m": None}) == (task.goal, task.context, task.metadata)
        assert ({"traceparent": "00"}, ("y", "x"), "key") == (task.headers, task.tags, task.key)
        assert (1, "lane", 9, retry, 1.5) == (
            task.priority,
            task.lane,
            task.max_attempts,
            task.retry,
            task.timeout,
        )
        assert (async_now, async_now + timedelta(seconds=2.5)) == (task.created_at, task.run_at)
        assert (TaskStatus.PENDING, 0, 0, None, None) == (
            task.status,
            task.lease,
            task.attempt,
            task.result,
            task.error,
        )

    async def test_c08_enqueueing_many_keeps_the_order_of_the_list(self, queue: TaskQueue) -> None:
        """C8: enqueueing many is FIFO in list order."""
        tasks = await queue.enqueue_many(NewTask(number) for number in range(30))
        claimed = await queue.claim(worker="worker", limit=30)

        assert list(range(30)) == [task.goal for task in tasks]
        assert list(range(30)) == [task.goal for task in claimed]
        assert sorted(task.seq for task in tasks) == [task.seq for task in tasks]

    async def test_c08_enqueueing_none_gives_none(self, queue: TaskQueue) -> None:
        """C8: an empty list is whole as it is."""
        assert [] == await queue.enqueue_many([])

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (NewTask(float("nan")), PayloadError),
            (NewTask("goal", depends_on=["unknown"]), TaskNotFound),
            (NewTask("goal", depends_on=[Ref(2)]), ValueError),
            (NewTask("goal", depends_on=[Ref(3)]), ValueError),
        ],
        ids=["payload", "unknown dependency", "Ref to itself", "Ref to a later item"],
    )
    async def test_c08_enqueueing_many_is_all_or_nothing(
        self, queue: TaskQueue, wrong: NewTask, error: type[Exception]
    ) -> None:
        """C8: enqueueing many is all or nothing."""
        with pytest.raises(error):
            await queue.enqueue_many([NewTask("fine"), NewTask("fine", key="key"), wrong, NewTask("fine")])

        assert {} == await everything(queue)
        assert "key" == (await queue.enqueue("goal", key="key")).key

    async def test_c09_a_live_key_gives_its_task_and_changes_nothing(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C9: while a task with key K is live, enqueue with key K returns its id and changes nothing."""
        first = await queue.enqueue("first", {"a": 1}, key="key", lane="a")
        before = await everything(queue)
        async with factory.open() as other:
            second = await other.enqueue("second", key="key", lane="b", priority=1, delay=9)

        assert first == second
        assert before == await everything(queue)

    @pytest.mark.parametrize(
        "status", sorted(set(TaskStatus) - {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})
    )
    async def test_c09_a_key_is_held_in_every_live_state(self, queue: TaskQueue, status: TaskStatus) -> None:
        """C9: live is not completed, failed or cancelled."""
        holder = await brought_to(queue, status, key="key")

        assert holder.id == (await queue.enqueue("goal", key="key")).id

    @pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
    async def test_c09_finishing_frees_the_key(self, queue: TaskQueue, status: TaskStatus) -> None:
        """C9: finishing frees the key in the same step."""
        over = await brought_to(queue, status, key="key")
        second = await queue.enqueue("second", key="key")

        assert over.id != second.id
        assert [over.id, second.id] == [task.id for task in await collect(queue.tasks(key="key"))]

    async def test_c09_a_key_twice_in_one_batch_gives_the_first(self, queue: TaskQueue) -> None:
        """C9: the same key twice in one batch gives the first's id."""
        first, other, second = await queue.enqueue_many(
            [NewTask("first", key="key"), NewTask("other"), NewTask("second", key="key")]
        )

        assert first == second
        assert ["first", "other"] == [task.goal for task in await collect(queue.tasks())]
        assert other.id != first.id

    async def test_c09_who_depends_on_an_item_with_a_live_key_depends_on_its_task(
        self, queue: TaskQueue
    ) -> None:
        """C9, C36: the task that has the key stands for the item, also where another refers to it."""
        stored = await queue.enqueue("stored", key="key")
        _, child = await queue.enqueue_many(
            [NewTask("item", key="key"), NewTask("child", depends_on=[Ref(0)])]
        )
        await queue.complete(await claim_one(queue))

        assert (stored.id,) == child.depends_on
        assert "child" == (await claim_one(queue)).goal

    async def test_c09_retrying_a_task_whose_key_is_taken_is_refused(self, queue: TaskQueue) -> None:
        """C9: retrying a task whose key another live task has: KeyInUse, nothing written."""
        over = await brought_to(queue, TaskStatus.FAILED, key="key")
        live = await queue.enqueue("second", key="key")
        before = await everything(queue)
        with pytest.raises(KeyInUse) as caught:
            await queue.retry(over.id)

        assert ("key", live.id) == (caught.value.key, caught.value.task_id)
        assert before == await everything(queue)

    async def test_c09_a_retried_task_has_its_key_again(self, queue: TaskQueue) -> None:
        """C9: the key belongs to the live task."""
        over = await brought_to(queue, TaskStatus.FAILED, key="key")
        await queue.retry(over.id)

        assert over.id == (await queue.enqueue("second", key="key")).id

    async def test_c09_racing_producers_create_one_task(self, factory: QueueFactory) -> None:
        """C9: of N racing producers with one key exactly one creates the task."""
        ids: list[str] = []

        async def produce(queue: TaskQueue) -> None:
            ids.append((await queue.enqueue("goal", key="key")).id)

        async with factory.open() as first, factory.open() as second, anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(produce, (first, second)[number % 2])

        assert 10 == len(ids)
        assert 1 == len(set(ids))

    @pytest.mark.parametrize("options", _each(WRONG_VALUES), ids=repr)
    async def test_c10_wrong_options_are_refused_before_any_write(
        self, queue: TaskQueue, options: dict[str, Any]
    ) -> None:
        """C10: priority outside 1..5 (a bool is no priority), negative delays, bad names: ValueError."""
        with pytest.raises((ValueError, TypeError)):
            await queue.enqueue("goal", **options)

        assert {} == await everything(queue)

    @pytest.mark.parametrize("options", _each(WRONG_CLAIMS), ids=repr)
    async def test_c10_wrong_claims_are_refused_before_any_effect(
        self, queue: TaskQueue, options: dict[str, Any]
    ) -> None:
        """C10: bad names and negative durations: ValueError."""
        await queue.enqueue("goal")
        before = await everything(queue)
        with pytest.raises((ValueError, TypeError)):
            await queue.claim(**{"worker": "worker", **options})

        assert before == await everything(queue)

    async def test_c10_wrong_arguments_of_the_other_calls_are_refused(self, queue: TaskQueue) -> None:
        """C10: wrong priorities, delays and names are a ValueError wherever they are given."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        before = await everything(queue)
        five: Any = 5
        wrong: list[Any] = [
            lambda: queue.enqueue("goal", delay=1, run_at=datetime(2030, 1, 1, tzinfo=UTC)),
            lambda: queue.reprioritise(held.id, 0),
            lambda: queue.reprioritise(held.id, True),  # a bool is no priority
            lambda: queue.fail(held, "error", delay=-1),
            lambda: queue.fail(held, five),
            lambda: queue.release(held, delay=-1),
            lambda: queue.heartbeat([held], lease_timeout=0),
            lambda: queue.park(held, []),
            lambda: queue.park(held, "text"),
            lambda: queue.park(held, [" "]),
            lambda: queue.park(held, ["question"], until=datetime(2030, 1, 1)),  # noqa: DTZ001 - is the mistake
            lambda: queue.answer(held.id, "", 1),
            lambda: queue.purge(timedelta(seconds=-1)),
            lambda: queue.purge(five),
            lambda: queue.result(held.id, timeout=-1),
            lambda: queue.enqueue_many([five]),
            lambda: collect(queue.tasks(status="unknown")),
            lambda: collect(queue.events(held.id, after=-1)),
        ]
        for call in wrong:
            with pytest.raises((ValueError, TypeError)):
                await call()

        assert before == await everything(queue)

    async def test_c11_a_full_store_takes_no_more(self, factory: QueueFactory) -> None:
        """C11: `max_size` counts the live tasks of the store: QueueFull, nothing written."""
        async with factory.open(max_size=3) as queue:
            await queue.enqueue_many([NewTask("1"), NewTask("2", status="backlog")])
            before = await everything(queue)
            with pytest.raises(QueueFull) as caught:
                await queue.enqueue_many([NewTask("3"), NewTask("4", lane="other")])
            after = await everything(queue)
            await queue.enqueue("3")
            with pytest.raises(QueueFull):
                await queue.enqueue("4", lane="other")

        assert 3 == caught.value.max_size
        assert before == after

    async def test_c11_only_live_tasks_count(self, factory: QueueFactory) -> None:
        """C11: `max_size` counts live tasks: what is over makes room, and a live key needs none."""
        async with factory.open(max_size=1) as queue:
            first = await queue.enqueue("goal", key="key")
            again = await queue.enqueue("goal", key="key")
            await queue.complete(await claim_one(queue))
            second = await queue.enqueue("goal")
            await queue.cancel(second.id)
            third = await queue.enqueue("goal")
            found = await current(queue, third)

        assert first.id == again.id
        assert TaskStatus.PENDING == found.status

    @needs("event_loops")
    async def test_c06_a_handle_in_another_thread_sees_the_task(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock, anyio_backend: str
    ) -> None:
        """C6: every handle sees what was enqueued, also one on another event loop."""
        task = await queue.enqueue("goal")
        backend = queue.backend.clone()

        async def look() -> tuple[str | None, str]:
            async with factory.open(backend=backend) as other:
                found = await other.get(task.id)
                return found.id if found else None, (await other.enqueue("from the thread")).id

        found, enqueued = await on_another_loop(clock, anyio_backend, look)

        assert task.id == found
        assert await queue.get(enqueued) is not None
