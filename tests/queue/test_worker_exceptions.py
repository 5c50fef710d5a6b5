"""Whatever a handler raises settles its task, so that none can take its workers down for ever."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import MemoryTaskQueue, QueueManager, RetryPolicy, Task, TaskStatus
from jotty.errors import ActorError
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Odd(BaseException):
    """An exception that no `except Exception` catches."""


def blamed() -> ActorError:
    error = ActorError("a", "raised KeyboardInterrupt")
    error.__cause__ = KeyboardInterrupt()
    return error


ORDINARY: list[Callable[[], BaseException]] = [
    ValueError,
    Odd,
    BaseException,
    GeneratorExit,
    SystemExit,
    StopAsyncIteration,
    lambda: BaseExceptionGroup("g", [Odd(), ValueError()]),
]
INTERRUPTS: list[Callable[[], BaseException]] = [
    KeyboardInterrupt,
    lambda: BaseExceptionGroup("g", [ValueError(), KeyboardInterrupt()]),
    lambda: BaseExceptionGroup("g", [BaseExceptionGroup("h", [KeyboardInterrupt()])]),
    blamed,
]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


class Raiser:
    """A handler of tasks whose goal is "bad", "long" or anything else, that keeps what it ran."""

    def __init__(self, make: Callable[[], BaseException], steps: int = 0) -> None:
        self._make = make
        self._steps = steps
        self.ran: list[Any] = []

    async def __call__(self, task: Task) -> None:
        self.ran.append(task.goal)
        if task.goal == "long":
            await anyio.sleep_forever()
        for _ in range(self._steps):
            await checkpoint()
        if task.goal == "bad":
            raise self._make()


async def place_of(queue: MemoryTaskQueue, task: Task) -> tuple[TaskStatus, int]:
    found = await queue.get(task.id)
    assert found is not None
    return found.status, found.attempt


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(ORDINARY), st.integers(0, 3), st.integers(1, 3))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_is_raised_is_a_failed_attempt_and_disturbs_nobody(
    backend: str, make: Callable[[], BaseException], steps: int, attempts: int
) -> None:
    async def scenario() -> None:
        clock, handler = VirtualClock(), Raiser(make, steps)
        queue = MemoryTaskQueue(clock=clock)
        bad = await queue.enqueue("bad", max_attempts=attempts)
        good = await queue.enqueue("good", max_attempts=1)
        async with clock.autojump():
            await QueueManager(queue, handler, clock=clock).run(drain=True)

        assert (TaskStatus.FAILED, attempts) == await place_of(queue, bad)
        assert (TaskStatus.COMPLETED, 1) == await place_of(queue, good)
        assert ["bad"] * attempts == [goal for goal in handler.ran if goal == "bad"]
        found = await queue.get(bad.id)
        assert found is not None
        assert found.error is not None
        assert type(make()).__qualname__ == found.error["type"]

    anyio.run(scenario, backend=backend)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(INTERRUPTS), st.integers(0, 3), st.integers(1, 3))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_c25_a_task_that_interrupts_its_worker_uses_up_its_own_attempts_and_no_others(
    backend: str, make: Callable[[], BaseException], steps: int, attempts: int
) -> None:
    async def scenario() -> None:
        clock, handler = VirtualClock(), Raiser(make, steps)
        queue = MemoryTaskQueue(clock=clock)
        long = await queue.enqueue("long", priority=1, max_attempts=1)
        bad = await queue.enqueue("bad", max_attempts=attempts, retry=RetryPolicy(delay=0))
        for attempt in range(1, attempts + 1):
            with pytest.raises(KeyboardInterrupt):
                await QueueManager(queue, handler, clock=clock).run(drain=True)

            expected = TaskStatus.FAILED if attempt == attempts else TaskStatus.PENDING
            assert (expected, attempt) == await place_of(queue, bad)
            assert (TaskStatus.PENDING, 0) == await place_of(queue, long)
        assert ["long", "bad"] * attempts == handler.ran

    anyio.run(scenario, backend=backend)


async def test_the_interrupt_comes_out_as_it_was_raised(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    interrupt = KeyboardInterrupt("enough")
    task = await queue.enqueue("bad", max_attempts=1)

    with pytest.raises(KeyboardInterrupt) as raised:
        await QueueManager(queue, Raiser(lambda: interrupt), clock=clock).run()

    found = await queue.get(task.id)
    assert interrupt is raised.value
    assert found is not None
    assert found.error is not None
    assert ("KeyboardInterrupt", "enough") == (found.error["type"], found.error["message"])


async def test_an_error_that_merely_came_of_an_interrupt_ends_no_worker(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    def make() -> BaseException:
        error = ValueError("translated")
        error.__cause__ = KeyboardInterrupt()
        return error

    task = await queue.enqueue("bad", max_attempts=1)
    await QueueManager(queue, Raiser(make), clock=clock).run(drain=True)

    assert (TaskStatus.FAILED, 1) == await place_of(queue, task)


async def test_a_worker_that_is_interrupted_while_it_is_cancelled_is_cancelled(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running = anyio.Event()

    async def handler(_: Task) -> None:
        try:
            running.set()
            await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    task = await queue.enqueue("g", max_attempts=1)
    async with anyio.create_task_group() as group:
        group.start_soon(QueueManager(queue, handler, clock=clock).run)
        await running.wait()
        group.cancel_scope.cancel()

    assert group.cancel_scope.cancelled_caught
    assert (TaskStatus.FAILED, 1) == await place_of(queue, task)


async def test_what_was_raised_is_said_in_the_log(
    queue: MemoryTaskQueue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    task = await queue.enqueue("bad", max_attempts=1)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"), pytest.raises(KeyboardInterrupt):
        await QueueManager(queue, Raiser(blamed), clock=clock).run()

    assert [f"Task {task.id} is failed: ActorError: {blamed()}"] == caplog.messages
