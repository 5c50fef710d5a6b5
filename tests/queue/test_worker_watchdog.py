"""A worker whose event loop is blocked: who is blamed, and what is done for the tasks meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from jotty import Conductor, MemoryTaskQueue, WorkflowMode, actor
from jotty.core.queue import (
    Change,
    Claimed,
    ClaimRequest,
    QueueManager,
    SQLiteTaskQueue,
    Swapped,
    Task,
    TaskQueue,
    TaskStatus,
)
from jotty.core.queue.worker.watchdog import LoopWatch
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType

pytestmark = pytest.mark.anyio


class Changes:
    number = 0

    def __call__(self) -> None:
        self.number += 1


def watch(running: list[str], describe: Any = None) -> tuple[LoopWatch, Changes]:
    changes = Changes()
    return LoopWatch(lambda: running, describe, changes), changes


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]


async def answered() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def test_a_loop_that_answers_is_never_told_of(caplog: pytest.LogCaptureFixture) -> None:
    looks, changes = watch(["a"])

    for _ in range(20):
        looks.look()
        await answered()

    assert told(caplog) == []
    assert (changes.number, looks.blocked) == (0, 0.0)


async def test_a_blocked_loop_is_told_of_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    looks, _ = watch(["a"])
    for _ in range(2):  # both of the times
        for _ in range(9):
            looks.look()  # nothing else comes between: the loop is blocked by this test
        assert looks.blocked > 0
        await answered()

    lines = told(caplog)
    assert len(lines) == 4
    assert ["has not answered" in line for line in lines] == [True, False] * 2
    assert ["answers again" in line for line in lines] == [False, True] * 2
    assert looks.blocked == 0.0


async def test_each_look_at_a_blocked_loop_is_news_as_the_seconds_grow_and_so_is_its_end() -> None:
    looks, changes = watch(["a"])
    numbers = []
    for _ in range(6):
        looks.look()
        numbers.append(changes.number)
    await answered()
    numbers.append(changes.number)

    assert numbers == [0, 0, 1, 2, 3, 4, 5]


async def test_a_block_of_less_than_a_second_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    looks, _ = watch(["a"])
    for _ in range(5):
        looks.look()
        looks.look()  # half a second later
        await answered()

    assert told(caplog) == []


async def test_a_loop_on_which_no_task_runs_may_be_blocked(caplog: pytest.LogCaptureFixture) -> None:
    looks, _ = watch([])
    for _ in range(9):
        looks.look()

    assert told(caplog) == []


async def test_the_line_that_blocks_is_named_and_what_runs_a_frame_if_that_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def describe(frame: FrameType) -> str | None:
        return "actor 'culprit'" if frame.f_code is culprit.__code__ else None

    def culprit(looks: LoopWatch) -> None:
        for _ in range(9):
            looks.look()

    for known in (None, describe):
        looks, _ = watch(["t1", "t2"], known)
        culprit(looks)
        await answered()

    line = culprit.__code__.co_firstlineno + 2
    anonymous, _, named, _ = told(caplog)
    assert f"culprit at {__file__}:{line} blocks it. Running here: task t1, task t2." in anonymous
    assert "actor 'culprit'" not in anonymous
    assert "actor 'culprit', in " in named


async def test_a_description_that_fails_does_not_keep_the_warning_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def describe(_: FrameType) -> str | None:
        raise ValueError("nameless")

    looks, _ = watch([str(number) for number in range(12)], describe)
    for _ in range(9):
        looks.look()

    (line,) = told(caplog)
    assert "ValueError('nameless')" in line
    assert "and 7 more" in line


async def test_an_actor_that_blocks_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @actor
    async def careless(goal: str) -> str:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not told(caplog):
            time.sleep(0.05)  # noqa: ASYNC251 - an actor that blocks the loop is what this is about
        return goal

    @actor
    async def innocent(careless: str) -> str:
        return careless

    queue = MemoryTaskQueue()
    work = WorkflowMode(Conductor([careless, innocent]), execution="async", queue=queue)
    task_id = await work.enqueue_task("g")
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        await work.process_queue(drain=True)

    begun, over = told(caplog)
    assert "actor 'careless', in " in begun
    assert __file__ in begun
    assert f"task {task_id}" in begun
    assert "innocent" not in begun
    assert "answers again" in over


async def test_actors_that_share_a_function_are_blamed_together() -> None:
    from jotty.core.orchestration.blame import describe_frames

    class Agent:
        name = "agent"

        async def run(self, prompt: str) -> str:
            return prompt

    async def work(goal: str) -> str:
        return goal

    agent = Agent()
    describe = describe_frames([actor(work, name="a"), actor(work, name="b"), actor(agent)])

    class Frame:
        def __init__(self, function: Any) -> None:
            self.f_code = function.__code__

    frames: list[Any] = [Frame(work), Frame(Agent.run), Frame(describe_frames)]
    assert [describe(frame) for frame in frames] == ["actor 'a' or 'b'", "actor 'agent'", None]


async def test_c49_what_blocks_the_loop_is_released_when_its_grace_is_over_from_beside_the_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tasks.db"
    released_after: list[float] = []
    is_over = threading.Event()

    async def stop_and_look(manager: QueueManager, task_id: str) -> None:
        async with SQLiteTaskQueue(path) as elsewhere:
            started = time.monotonic()
            manager.stop(grace=0.3)
            while not is_over.is_set():
                found = await elsewhere.get(task_id)
                assert found is not None
                if found.status is TaskStatus.PENDING:
                    released_after.append(time.monotonic() - started)
                    is_over.set()
                await anyio.sleep(0.02)

    async def handler(task: Task) -> str:
        thread = threading.Thread(target=anyio.run, args=(stop_and_look, manager, task.id))
        thread.start()
        is_over.wait(10)  # which blocks the loop
        is_over.set()
        thread.join()
        return "too late"

    async with SQLiteTaskQueue(path) as queue:
        task = await queue.enqueue("g", max_attempts=1)
        manager = QueueManager(queue, handler)
        with caplog.at_level(logging.WARNING, logger="jotty.queue"):
            assert await manager.run() == 0
        found = await queue.get(task.id)

    assert found is not None
    assert (found.status, found.attempt, found.lease) == (TaskStatus.PENDING, 0, 1)
    assert 0.3 <= released_after[0] < 0.9
    assert "the event loop is blocked" in caplog.text


async def test_what_is_slow_to_release_but_does_not_block_the_loop_is_left_to_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Slow(MemoryBackend):
        async def turn(
            self, changes: Sequence[Change], request: ClaimRequest
        ) -> tuple[list[Swapped], Claimed]:
            if changes:
                await anyio.sleep(0.7)
            return await super().turn(changes, request)

    queue = TaskQueue(Slow())
    task = await queue.enqueue("g")
    manager = QueueManager(queue, lambda _: anyio.sleep_forever())
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await anyio.sleep(0.05)
            manager.stop(grace=0)

    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt) == (TaskStatus.PENDING, 0)
    assert "the event loop is blocked" not in caplog.text
    assert "dropped" not in caplog.text


async def test_a_loop_that_is_not_blocked_keeps_its_tasks_until_their_grace_is_over() -> None:
    queue = MemoryTaskQueue()
    manager = QueueManager(queue, lambda _: anyio.sleep(0.6), grace=5)
    task = await queue.enqueue("g", max_attempts=1)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await anyio.sleep(0.05)
        manager.stop()

    found = await queue.get(task.id)
    assert found is not None
    assert found.status is TaskStatus.COMPLETED
