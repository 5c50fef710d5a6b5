"""The lease keeper in its thread: real time, in fractions of a second."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.queue import MemoryTaskQueue, QueueManager, Record, Task, TaskQueue, TaskStatus
from jotty.errors import StorageError, TaskCancelled
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

LEASE = 0.5


async def test_c27_a_blocked_event_loop_does_not_lose_its_leases() -> None:
    queue = MemoryTaskQueue()
    renewed: list[float] = []

    async def handler(task: Task) -> None:
        started = time.monotonic()
        while time.monotonic() - started < 3 * LEASE:
            time.sleep(0.01)  # noqa: ASYNC251 - an actor that blocks the loop is what this is about
        found = await queue.get(task.id)
        assert found is not None
        renewed.append((found.head.lease_until - task.head.lease_until) / 1e6)

    task = await queue.enqueue("g")
    await QueueManager(queue, handler, lease_timeout=LEASE).run(drain=True)

    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.lease) == (TaskStatus.COMPLETED, 1)
    assert renewed[0] > 2 * LEASE


async def test_no_thread_is_left_when_the_worker_ends() -> None:
    before = threading.active_count()
    queue = MemoryTaskQueue()

    async def handler(_: Task) -> None:
        assert threading.active_count() > before

    for _ in range(5):
        await queue.enqueue("g")
        await QueueManager(queue, handler).run(drain=True)

    # idle threads are kept for the next call, of which there is another if it comes before one is idle
    assert threading.active_count() <= before + 2


async def test_c33_a_cancel_from_elsewhere_is_learned_within_a_third_of_the_lease() -> None:
    queue, other = MemoryTaskQueue("seen-by-the-keeper"), MemoryTaskQueue("seen-by-the-keeper")
    running = anyio.Event()

    async def handler(_: Task) -> None:
        running.set()
        await anyio.sleep_forever()

    task = await queue.enqueue("g")
    manager = QueueManager(queue, handler, lease_timeout=LEASE)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await running.wait()
        await other.cancel(task.id)
        with anyio.fail_after(5), pytest.raises(TaskCancelled):
            await other.result(task.id)
        manager.stop()


class Unreliable(MemoryBackend):
    """A store that does not answer the next renewal."""

    failures = 1

    def clone(self) -> Unreliable:
        return self

    async def aclose(self) -> None:
        """Stay open: clones share this handle."""

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        if self.failures:
            self.failures -= 1
            raise StorageError(self.url, "no answer")
        return await super().extend(leases, us)


async def test_a_store_that_does_not_answer_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    backend = Unreliable()
    queue = TaskQueue(backend)
    kept: list[int] = []

    async def handler(task: Task) -> Any:
        for _ in range(500):
            found = await queue.get(task.id)
            assert found is not None
            if found.head.lease_until > task.head.lease_until:
                kept.append(found.lease)
                return
            await anyio.sleep(0.01)

    await queue.enqueue("g")
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        await QueueManager(queue, handler, lease_timeout=LEASE).run(drain=True)

    assert kept == [1]
    assert [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]


async def test_c27_a_finished_task_keeps_its_lease_until_it_is_settled() -> None:
    """Its neighbour blocks the loop before the worker can settle it, and others are reaping."""
    queue = MemoryTaskQueue()
    is_over = threading.Event()

    async def reap_on() -> None:
        elsewhere = TaskQueue(queue.backend.clone())
        while not is_over.is_set():
            await elsewhere.reap()
            await anyio.sleep(0.02)

    reaper = threading.Thread(target=anyio.run, args=(reap_on,))
    reaper.start()

    async def handler(task: Task) -> str:
        if task.goal == "blocks":
            time.sleep(3 * LEASE)  # noqa: ASYNC251 - an actor that blocks the loop is what this is about
        return "done"

    quick = await queue.enqueue("quick", max_attempts=1)
    blocks = await queue.enqueue("blocks", max_attempts=1)
    await QueueManager(queue, handler, lease_timeout=LEASE).run(drain=True)
    is_over.set()
    reaper.join()

    assert [await queue.result(task.id) for task in (quick, blocks)] == ["done", "done"]
