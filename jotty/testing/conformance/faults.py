"""G. Errors: C40 to C42."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from jotty.core.queue import NewTask, RetryPolicy, Task, TaskQueue, TaskStatus
from jotty.errors import JottyError, QueueClosed

from .rules import Rules, brought_to, cancelled_at, claim_one, collect, current, everything, under_way
from .states import ALL_CALLS, CLIENT_CALLS, LEASE_CALLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["FaultRules"]

S = TaskStatus
OTHER_CALLS: Final[Mapping[str, Callable[[TaskQueue, Task], Awaitable[Any]]]] = {
    "enqueue": lambda queue, _: queue.enqueue("goal"),
    "enqueue_many": lambda queue, _: queue.enqueue_many([NewTask("goal")]),
    "claim": lambda queue, _: queue.claim(worker="worker"),
    "heartbeat": lambda queue, task: queue.heartbeat([task]),
    "get": lambda queue, task: queue.get(task.id),
    "tasks": lambda queue, _: collect(queue.tasks()),
    "stats": lambda queue, _: queue.stats(),
    "result": lambda queue, task: queue.result(task.id, timeout=0),
    "events": lambda queue, task: collect(queue.events(task.id, follow=False)),
    "reap": lambda queue, _: queue.reap(),
    "open": lambda queue, _: queue.__aenter__(),
}
WAITS: Final[Mapping[str, Callable[[TaskQueue, str], Awaitable[Any]]]] = {
    "claim": lambda queue, _: queue.claim(worker="worker", wait=600),
    "claim from many lanes": lambda queue, _: queue.claim(worker="worker", lanes=["a", "b"], wait=600),
    "result": lambda queue, task_id: queue.result(task_id),
    "events": lambda queue, task_id: collect(queue.events(task_id)),
}
# Each with the states that the task may be in, if the call was cancelled somewhere on its way.
INTERRUPTED: Final[Mapping[str, set[TaskStatus]]] = {
    "complete": {S.IN_PROGRESS, S.COMPLETED},
    "fail": {S.IN_PROGRESS, S.PENDING},
    "fail for good": {S.IN_PROGRESS, S.FAILED},
    "release": {S.IN_PROGRESS, S.PENDING},
    "park": {S.IN_PROGRESS, S.BLOCKED},
}


class FaultRules(Rules):
    """C40 to C42: closing, errors and cancellation."""

    @pytest.mark.parametrize("call", [*ALL_CALLS, *OTHER_CALLS])
    async def test_c40_a_closed_queue_says_so(self, factory: QueueFactory, call: str) -> None:
        """C40: closed: QueueClosed everywhere."""
        queue = factory.open()
        await queue.enqueue("goal", lane="one")
        held = await claim_one(queue, lane="one")
        await queue.aclose()
        with pytest.raises(QueueClosed) as caught:
            await {**ALL_CALLS, **OTHER_CALLS}[call](queue, held)

        assert queue.url == caught.value.url

    async def test_c40_closing_is_idempotent(self, factory: QueueFactory) -> None:
        """C40: aclose is idempotent, also on a queue that was never opened."""
        queue = factory.open()
        await queue.aclose()
        await queue.aclose()
        with pytest.raises(QueueClosed):
            await queue.enqueue("goal")
        async with factory.open() as queue:
            await queue.enqueue("goal")
            await queue.aclose()

    @pytest.mark.parametrize("wait", WAITS)
    async def test_c40_what_waits_ends_with_queue_closed(
        self, factory: QueueFactory, clock: VirtualClock, wait: str
    ) -> None:
        """C40: closed: QueueClosed everywhere, also for what waits meanwhile; aclose never hangs."""
        queue = factory.open()
        task = await queue.enqueue("goal", delay=3600)
        async with under_way(clock, partial(WAITS[wait], queue, task.id)) as waiting:
            await clock.advance(0.1)
            early = waiting.is_over
            await queue.aclose()
            await clock.advance(0.25)

            assert (False, QueueClosed) == (early, type(waiting.error))

    async def test_c40_closing_one_handle_closes_no_other(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C40: a handle is closed, not the store."""
        async with factory.open() as other:
            task = await other.enqueue("goal")

        assert task == await queue.get(task.id)
        assert task.id == (await claim_one(queue)).id

    @pytest.mark.parametrize(
        "hostile",
        ["", "\0", "\ud800", "' OR 1=1 --", "x" * 10_000, "../../x", 5, None, 2**70, b"a", ("a",)],
        ids=repr,
    )
    async def test_c41_only_our_errors_leave_the_api(self, queue: TaskQueue, hostile: Any) -> None:
        """C41: only JottyError's children (and ValueError, TypeError, TimeoutError) leave the queue's API."""
        await queue.enqueue("goal")
        before = await everything(queue)
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: queue.get(hostile),
            lambda: queue.cancel(hostile),
            lambda: queue.retry(hostile),
            lambda: queue.accept(hostile),
            lambda: queue.delete(hostile),
            lambda: queue.answer(hostile, "question", 1),
            lambda: queue.result(hostile, timeout=0),
            lambda: queue.enqueue("goal", depends_on=[hostile]),
            lambda: collect(queue.events(hostile, follow=False)),
            lambda: collect(queue.tasks(lane=hostile or "none")),
            lambda: collect(queue.tasks(tag=hostile or "none")),
            lambda: collect(queue.tasks(key=hostile or "none")),
        ]
        for call in calls:
            await _permitted(call)

        assert before == await everything(queue)

    @pytest.mark.parametrize(
        "retry",
        [{"delay": 1e300, "cap": 1e300}, {"delay": 1e18, "cap": 1e18, "jitter": 0}],
        ids=repr,
    )
    async def test_c41_an_absurd_retry_policy_breaks_nothing(
        self, queue: TaskQueue, retry: dict[str, Any]
    ) -> None:
        """C32, C41: no overflow; a schedule that no calendar has is a ValueError before any write."""
        try:
            policy = RetryPolicy(**retry)
        except ValueError:
            return
        await queue.enqueue("goal", retry=policy)
        failed = await queue.fail(await claim_one(queue), "error")

        assert failed == await current(queue, failed)
        assert failed.run_at is not None

    @pytest.mark.parametrize("call", INTERRUPTED)
    async def test_c42_a_cancelled_settle_is_whole_or_nothing(
        self, factory: QueueFactory, queue: TaskQueue, call: str
    ) -> None:
        """C42: cancelling an await anywhere: whole effect or none, the handle usable."""
        async with factory.open() as other:
            for suspension in range(50):
                await other.enqueue("goal", lane=f"lane {suspension}")
                held = await claim_one(queue, lane=f"lane {suspension}")
                reached = await cancelled_at(suspension, partial(LEASE_CALLS[call], queue, held))
                after = await current(other, held)
                entries = await collect(other.events(held.id, follow=False))

                assert after.status in INTERRUPTED[call]
                assert after.status.is_terminal == ([entry.kind for entry in entries] == ["end"])
                assert (after.status is S.COMPLETED) == (after.result == "other")
                if not reached:
                    return

    async def test_c42_a_cancelled_claim_gives_back_what_it_took(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C42: a cancelled claim first releases what it took, attempt given back."""
        async with factory.open() as other:
            tasks = await other.enqueue_many([NewTask("goal")] * 3)
            for suspension in range(50):
                reached = await cancelled_at(suspension, lambda: queue.claim(worker="worker", limit=3))
                after = [await current(other, task) for task in tasks]
                expected = (S.PENDING, 0) if reached else (S.IN_PROGRESS, 1)

                assert {expected} == {(task.status, task.attempt) for task in after}
                if not reached:
                    return

    async def test_c42_a_cancelled_wait_takes_nothing(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C42: a claim that is cancelled while it waits leaves what comes later to others."""
        async with under_way(clock, lambda: queue.claim(worker="gone", wait=600)) as waiting:
            await clock.advance(1)
        async with factory.open() as other:
            await other.enqueue("goal")
            await clock.advance(1)
            taken = await queue.claim(worker="worker")

        assert not waiting.is_over
        assert ["worker"] == [task.worker for task in taken]

    async def test_c42_a_cancelled_enqueue_is_whole_or_nothing(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C42, C8: cancelling an enqueue of many: all or none."""
        async with factory.open() as other:
            for suspension in range(50):
                lane = f"lane {suspension}"
                new = [NewTask("goal", lane=lane) for _ in range(3)]
                reached = await cancelled_at(suspension, partial(queue.enqueue_many, new))

                assert len(await collect(other.tasks(lane=lane))) in {0, 3}
                if not reached:
                    return

    @pytest.mark.parametrize("call", ["cancel", "retry", "accept", "answer", "reprioritise", "delete"])
    async def test_c42_a_cancelled_client_call_is_whole_or_nothing(
        self, factory: QueueFactory, queue: TaskQueue, call: str
    ) -> None:
        """C42, C37: the change and its entry in the journal are there, or neither is."""
        state = {"retry": S.FAILED, "accept": S.BACKLOG, "delete": S.CANCELLED}.get(call, S.PENDING)
        async with factory.open() as other:
            for suspension in range(50):
                task = await brought_to(other, state, lane=f"lane {suspension}")
                entries = 0 if call == "delete" else len(await collect(other.events(task.id, follow=False)))
                reached = await cancelled_at(suspension, partial(CLIENT_CALLS[call], queue, task))
                after = await other.get(task.id)

                assert after is not None or call == "delete"
                if after is not None:
                    written = await collect(other.events(task.id, follow=False))
                    assert (after == task) == (call == "delete" or len(written) == entries)
                if not reached:
                    return

    async def test_c42_a_cancelled_heartbeat_keeps_the_lease(self, queue: TaskQueue) -> None:
        """C42: whole effect or none, and the lease is held in both cases."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        for suspension in range(50):
            if not await cancelled_at(suspension, lambda: queue.heartbeat([held])):
                break

        assert S.COMPLETED is (await queue.complete(held)).status

    async def test_c42_a_handle_that_was_cancelled_while_opening_opens_later(
        self, factory: QueueFactory
    ) -> None:
        """C42: cancelling an await anywhere leaves the handle usable."""
        for suspension in range(50):
            async with factory.open() as other:
                await other.stats()
            queue = factory.open()
            reached = await cancelled_at(suspension, partial(queue.enqueue, "goal"))
            with anyio.fail_after(10):
                task = await queue.enqueue("goal")
                found = await queue.get(task.id)
                await queue.aclose()

            assert task == found
            if not reached:
                return


async def _permitted(call: Callable[[], Awaitable[Any]]) -> None:
    with suppress(JottyError, ValueError, TypeError, TimeoutError):
        try:
            await call()
        except UnicodeError as error:  # a ValueError, but not one that was meant
            raise AssertionError("C41: a codec's error is none of ours") from error
