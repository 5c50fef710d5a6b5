"""E. Finish: C28 to C32, as a worker sees it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import Head, Record, RetryLater, RetryPolicy, TaskStatus
from jotty.errors import PayloadError, TaskFailed

from .rules import Rules, claim_one, current, everything, watched

if TYPE_CHECKING:
    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory


__all__ = ["FinishRules"]


class _Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class FinishRules(Rules):
    """C28 to C32: completing and failing."""

    async def test_c28_state_and_result_are_stored_together(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C28: state and result are stored together, and every handle sees both."""
        await queue.enqueue("goal", {"a": 1})
        held = await claim_one(queue)
        await clock.advance(1)
        done = await queue.complete(held, {"answer": [42]})
        async with factory.open() as other:
            seen = await current(other, held)
            result = await other.result(held.id)

        assert done == seen
        assert (TaskStatus.COMPLETED, {"answer": [42]}, "goal") == (seen.status, seen.result, seen.goal)
        assert {"answer": [42]} == result
        assert seen.started_at is not None
        assert (seen.started_at + timedelta(seconds=1), None, 0) == (
            seen.finished_at,
            seen.due,
            seen.head.lease_until,
        )

    async def test_c28_nobody_sees_the_one_without_the_other(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C28: state and result are stored together, also for who looks in that very moment."""
        seen: list[Task] = []
        async with factory.open() as other:
            for number in range(10):
                await queue.enqueue("goal")
                held = await claim_one(queue)

                async def look(held: Task = held) -> None:
                    seen.append(await current(other, held))

                await watched(partial(queue.complete, held, number), look)
                await look()

        assert set(range(10)) == {task.result for task in seen if task.status is TaskStatus.COMPLETED}
        assert [] == [task for task in seen if task.status is not TaskStatus.COMPLETED and task.result]

    async def test_c28_no_result_is_none(self, queue: TaskQueue) -> None:
        """C28: a task may be completed with nothing."""
        await queue.enqueue("goal")
        done = await queue.complete(await claim_one(queue))

        assert (None, None) == (done.result, await queue.result(done.id))

    async def test_c29_completing_again_is_a_no_op(self, queue: TaskQueue) -> None:
        """C29: completing again with the same lease: no-op, first result stays."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        first = await queue.complete(held, 1)
        before = await everything(queue)
        again = await queue.complete(held, 2)
        with_new_value = await queue.complete(first, 3)

        assert [1, 1, 1] == [task.result for task in (first, again, with_new_value)]
        assert before == await everything(queue)

    async def test_c30_a_result_that_is_no_json_leaves_the_task_in_progress(self, queue: TaskQueue) -> None:
        """C30: a result that is no JSON: PayloadError from complete, the task still in progress."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        with pytest.raises(PayloadError) as caught:
            await queue.complete(held, {"a": [1, {2}]})

        assert "result['a'][1]" == caught.value.path
        assert held == await current(queue, held)
        assert TaskStatus.COMPLETED is (await queue.complete(held, 1)).status

    async def test_c31_a_failure_is_tried_again_after_the_backoff(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C31: fail: pending at now + backoff."""
        await queue.enqueue("goal", retry=RetryPolicy(delay=2, factor=3, jitter=0))
        first = await queue.fail(await claim_one(queue), "error")
        waits = [first.head.run_at - clock.now()]
        await clock.advance(2)
        failed = await queue.fail(await claim_one(queue), "error")
        waits.append(failed.head.run_at - clock.now())

        assert [2_000_000, 6_000_000] == waits
        assert (TaskStatus.PENDING, 2, 0, None) == (
            failed.status,
            failed.attempt,
            failed.head.lease_until,
            failed.due,
        )
        assert failed == await current(queue, failed)

    async def test_c31_a_delay_stands_for_the_backoff(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C31: whoever fails a task may say when to try again."""
        await queue.enqueue("goal")
        failed = await queue.fail(await claim_one(queue), "error", delay=7)

        assert clock.now() + 7_000_000 == failed.head.run_at

    async def test_c31_without_attempts_left_it_is_failed(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C31: or failed, where no attempt is left."""
        await queue.enqueue("goal", max_attempts=2)
        states = []
        for _ in range(2):
            states.append((await queue.fail(await claim_one(queue), "error")).status)
            await clock.advance(3600)

        assert [TaskStatus.PENDING, TaskStatus.FAILED] == states
        assert [] == await queue.claim(worker="worker")

    async def test_c31_an_error_not_to_be_retried_fails_the_task(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C31: or failed, where the error is not to be retried."""
        await queue.enqueue("goal")
        failed = await queue.fail(await claim_one(queue), "error", retry=False)

        assert (TaskStatus.FAILED, clock.now()) == (failed.status, failed.head.finished_at)

    async def test_c31_the_error_is_kept(self, queue: TaskQueue) -> None:
        """C31: the error (type, message, traceback) is kept, also while the next attempt waits."""
        await queue.enqueue("goal", max_attempts=2, retry=RetryPolicy(delay=0))
        try:
            raise KeyError("what is missing")  # noqa: TRY301 - for its traceback
        except KeyError as error:
            failed = await queue.fail(await claim_one(queue), error)
        waiting = await current(queue, failed)
        failed = await queue.fail(await claim_one(queue), "told in words")
        with pytest.raises(TaskFailed) as caught:
            await queue.result(failed.id)

        assert waiting.error is not None
        assert ("KeyError", "'what is missing'") == (waiting.error["type"], waiting.error["message"])
        assert "test_c31_the_error_is_kept" in waiting.error["traceback"]
        assert failed.error is not None
        assert "told in words" == failed.error["message"]
        assert (failed.id, failed.error) == (caught.value.task_id, caught.value.error)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("x" * 100_000),
            ValueError("\U0001f40d" * 10_000),
            ValueError("\ud800 \0 \u2028 \x1b[0m"),
            type("N" * 5000, (Exception,), {})("\0" * 9000),
            _Untellable(),
            KeyboardInterrupt(),
            ExceptionGroup("group", [ValueError("\udfff" * 5000)]),
            "\udc80" * 20_000,
            "",
        ],
        ids=["long", "astral", "surrogate", "type", "untellable", "interrupt", "group", "text", "empty"],
    )
    async def test_c31_any_error_fits_in_8_kib(self, queue: TaskQueue, error: BaseException | str) -> None:
        """C31: the error is kept, 8 KiB at most, any text safe."""
        await queue.enqueue("goal", max_attempts=1)
        failed = await queue.fail(await claim_one(queue), error)
        assert failed.error is not None
        size = sum(len(text.encode()) for text in failed.error.values())

        assert {"type", "message", "traceback"} == set(failed.error)
        assert size <= 8 * 1024
        assert failed == await current(queue, failed)

    async def test_c31_completing_forgets_an_earlier_error(self, queue: TaskQueue) -> None:
        """C31: the outcome of a completed task is its result."""
        await queue.enqueue("goal", retry=RetryPolicy(delay=0))
        await queue.fail(await claim_one(queue), "error")
        done = await queue.complete(await claim_one(queue), 1)

        assert (1, None) == (done.result, done.error)
        assert done == await current(queue, done)

    @pytest.mark.parametrize(("asked", "waited"), [(5.0, 5.0), (0.0, 0.1), (0.01, 0.1)])
    async def test_c31_retry_later_gives_the_attempt_back(
        self, queue: TaskQueue, clock: VirtualClock, asked: float, waited: float
    ) -> None:
        """C31: RetryLater(seconds) gives the attempt back, and waits at least 0.1 s."""
        await queue.enqueue("goal", max_attempts=1)
        later = await queue.fail(await claim_one(queue), RetryLater(asked))

        assert (TaskStatus.PENDING, 0) == (later.status, later.attempt)
        assert clock.now() + waited * 1_000_000 == later.head.run_at

    async def test_c31_retry_later_is_taken_so_often_in_a_row(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C31: RetryLater is taken at most `retry.max_postponements` times in a row."""
        await queue.enqueue("goal", retry=RetryPolicy(max_postponements=2, delay=0))
        outcomes: list[Any] = []
        errors: list[Exception | str] = [*[RetryLater(1)] * 2, "a plain error", *[RetryLater(1)] * 3]
        for error in errors:
            outcomes.append((await queue.fail(await claim_one(queue), error)).status)
            await clock.advance(1)
        (task,) = [task async for task in queue.tasks()]

        assert [TaskStatus.PENDING] * 5 + [TaskStatus.FAILED] == outcomes
        assert task.error is not None
        assert "RetryLater" == task.error["type"]

    @pytest.mark.parametrize("seconds", [float("inf"), 1e300, float("nan"), -1])
    async def test_c31_retry_later_takes_no_absurd_wait(self, queue: TaskQueue, seconds: float) -> None:
        """C31, C41: a wait that no calendar has is a ValueError, wherever it is noticed."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        with pytest.raises(ValueError, match=r"[Ss]econds"):
            await queue.fail(held, RetryLater(seconds))

        assert held == await current(queue, held)

    async def test_c31_a_result_that_is_too_large_fails_the_task(self, factory: QueueFactory) -> None:
        """C31: a result beyond `max_payload` fails the task at once, with that error."""
        async with factory.open(max_payload=100) as queue:
            await queue.enqueue("goal")
            failed = await queue.complete(await claim_one(queue), "x" * 99)
            await queue.enqueue("goal")
            done = await queue.complete(await claim_one(queue), "x" * 98)

        assert (TaskStatus.FAILED, TaskStatus.COMPLETED) == (failed.status, done.status)
        assert failed.error is not None
        assert "PayloadError" == failed.error["type"]

    @pytest.mark.parametrize("attempt", [1, 12])
    async def test_c32_backoff_stays_within_its_cap(
        self, queue: TaskQueue, clock: VirtualClock, attempt: int
    ) -> None:
        """C32: backoff within [0, cap], no overflow, jitter from an injected generator."""
        await queue.enqueue("goal", max_attempts=10**6, retry=RetryPolicy(delay=1, cap=50))
        for _ in range(attempt - 1):
            await queue.fail(await claim_one(queue), "error", delay=0)
        waits = []
        for _ in range(3):
            failed = await queue.fail(await claim_one(queue), "error")
            waits.append(failed.head.run_at - clock.now())
            await clock.advance(50)

        assert all(0 <= wait <= 50_000_000 for wait in waits)
        assert 3 == len(set(waits)), "there must be jitter"

    async def test_c32_the_millionth_wait_is_within_its_cap(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C32: no overflow at attempt 10**6."""
        worn = Head(id="worn", attempt=10**6 - 1, max_attempts=2 * 10**6, retry=RetryPolicy(cap=50))
        await queue.stats()  # opens it
        await queue.backend.insert([Record(worn, b'{"goal":"goal"}')])
        failed = await queue.fail(await claim_one(queue), "error")

        assert 10**6 == failed.attempt
        assert 0 <= failed.head.run_at - clock.now() <= 50_000_000

    async def test_c32_jitter_comes_from_the_injected_generator(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C32: jitter from an injected generator: the same seed gives the same waits."""
        waits: list[int] = []
        for _ in range(2):
            await queue.enqueue("goal", lane=f"lane {len(waits)}", retry=RetryPolicy(delay=100, jitter=1))
            async with factory.open(random=Random(7)) as seeded:
                failed = await seeded.fail(await claim_one(seeded, lane=f"lane {len(waits)}"), "error")
            waits.append(failed.head.run_at - clock.now())

        assert waits[0] == waits[1]
