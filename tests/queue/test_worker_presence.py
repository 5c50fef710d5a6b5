"""Workers that announce themselves, and who sees them."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    MemoryTaskQueue,
    Present,
    QueueManager,
    SQLiteTaskQueue,
    Task,
    TaskQueue,
    WorkerInfo,
    microseconds,
)
from jotty.core.queue.worker.presence import Tally, worker_info
from jotty.errors import StorageError
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


async def test_a_worker_tells_what_it_is_and_does_and_is_off_the_list_when_it_has_ended(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    async def handler(task: Task) -> None:
        await clock.sleep(task.goal)

    for seconds in (1, 1, 3600):
        await queue.enqueue(seconds)
    started = clock.now()
    listed: list[WorkerInfo] = []
    manager = QueueManager(queue, handler, lanes=["default", "b"], worker="ada", clock=clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(manager.run)
        await clock.sleep(25)
        listed += await queue.workers()
        manager.stop(grace=0)
    after = await queue.workers()

    (seen,) = listed
    assert (seen.name, seen.host, seen.pid) == ("ada", socket.gethostname(), os.getpid())
    assert (seen.lanes, seen.max_concurrent, seen.running) == (("default", "b"), 3, 1)
    assert (seen.ended, seen.per_minute, seen.unhandled, seen.blocked) == (2, 2, 0, 0.0)
    assert microseconds(seen.started_at.timestamp()) == started
    assert after == []


async def test_a_worker_that_was_killed_is_listed_for_half_a_minute_at_most(clock: VirtualClock) -> None:
    told: list[int] = []

    class Dying(MemoryBackend):
        async def announce(self, worker: str, data: bytes, us: int) -> None:
            if us:  # one that dies does not take itself off
                told.append(clock.now())
                await super().announce(worker, data, us)

    queue = TaskQueue(Dying(clock=clock), clock=clock)
    manager = QueueManager(queue, lambda _: clock.sleep(1), clock=clock)
    seen: list[int] = []
    async with clock.autojump():
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await clock.sleep(45)
            manager.stop()
        for _ in range(2):
            seen.append(len(await queue.workers()))
            await clock.sleep(30)

    assert seen == [1, 0]
    assert [round((at - told[0]) / 1e6) for at in told] == [0, 10, 20, 30, 40]


async def test_an_announcement_that_fails_disturbs_no_work(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Shy(MemoryBackend):
        tried = 0

        async def announce(self, worker: str, data: bytes, us: int) -> None:
            del worker, data, us
            self.tried += 1
            raise StorageError(self.url, "no room") if self.tried % 2 else TypeError("a bug")

    backend = Shy(clock=clock)
    queue = TaskQueue(backend, clock=clock)

    async def handler(_: Task) -> str:
        await clock.sleep(100)
        return "undisturbed"

    task = await queue.enqueue("g", max_attempts=1)
    with caplog.at_level("INFO", logger="jotty.queue"):
        async with clock.autojump():
            assert await QueueManager(queue, handler, clock=clock).run(drain=True) == 1

    assert await queue.result(task.id) == "undisturbed"
    assert backend.tried > 5
    assert caplog.text.count("could not announce itself") == 1
    assert await queue.workers() == []


async def test_two_workers_of_one_process_are_two(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    managers = [QueueManager(queue, lambda _: clock.sleep(1), clock=clock) for _ in range(2)]
    seen: set[str] = set()
    async with anyio.create_task_group() as group:
        for one in managers:
            group.start_soon(one.run)
        await clock.advance(1)
        seen |= {info.name for info in await queue.workers()}
        for one in managers:
            one.stop()

    assert seen == {one.worker for one in managers}
    assert len(seen) == 2


async def test_a_worker_whose_event_loop_is_blocked_goes_on_to_announce_itself_and_for_how_long_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tasks.db"
    seen: list[WorkerInfo] = []
    done = False

    async def look() -> None:
        async with SQLiteTaskQueue(path) as elsewhere:
            while not done:
                await anyio.sleep(0.05)
                seen[:] = await elsewhere.workers() or seen

    async def handler(_: Task) -> None:
        nonlocal done
        until = time.monotonic() + 12
        while time.monotonic() < until and not (seen and seen[0].blocked >= 2):
            time.sleep(0.05)  # noqa: ASYNC251 - an actor that blocks the loop is what this is about
        done = True

    async with SQLiteTaskQueue(path) as queue:
        await queue.enqueue("g")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: anyio.to_thread.run_sync(anyio.run, look))
            await QueueManager(queue, handler).run(drain=True)

    assert seen[0].running == 1
    assert 2 <= seen[0].blocked < 5  # not as it was when it was noticed, nor when it is announced anyway


VALID: dict[str, Any] = {
    "host": "h",
    "pid": 1,
    "lanes": ["default"],
    "max_concurrent": 3,
    "running": 0,
    "started_at": 1,
    "ended": 0,
    "per_minute": 0,
    "unhandled": {"count": 0, "ids": []},
    "blocked": 0.0,
}


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(),
        st.dictionaries(st.sampled_from(sorted(VALID)), st.none() | st.text() | st.floats(), min_size=1).map(
            lambda wrong: json.dumps({**VALID, **wrong}).encode()
        ),
    )
)
def test_what_a_stranger_announces_never_raises(data: bytes) -> None:
    info = worker_info(Present("w", data, 1))

    assert info is None or info.name == "w"


@pytest.mark.parametrize("wrong", [b"[" * 100_000, b'{"a": ' * 100_000, b"null", b"7"])
def test_what_is_no_announcement_at_all_is_passed_over(wrong: bytes) -> None:
    assert worker_info(Present("w", wrong, 1)) is None


@settings(deadline=None)
@given(st.sampled_from(["started_at", "pid", "blocked"]), st.integers() | st.floats())
def test_figures_beyond_all_bounds_are_passed_over(name: str, figure: float) -> None:
    info = worker_info(Present("w", json.dumps({**VALID, name: figure}).encode(), 1))

    assert info is None or info.name == "w"


def test_what_a_newer_version_adds_is_passed_over() -> None:
    info = worker_info(Present("w", json.dumps({**VALID, "mood": "good"}).encode(), 5_000_000))

    assert info is not None
    assert (info.name, info.until.timestamp()) == ("w", 5.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 29, 30, 31, 60]), st.integers(0, 5))))
def test_the_last_minute_counts_what_ended_in_it(steps: list[tuple[int, int]]) -> None:
    class Hand:
        at = 1_000_000_000

        def now(self) -> int:
            return self.at

    clock: Any = Hand()
    tally = Tally(clock)
    ended: list[int] = []
    for seconds, number in steps:
        clock.at += seconds * 1_000_000
        tally.add(number)
        ended += [clock.at] * number

    assert tally.total == len(ended)
    assert tally.last_minute() == len([at for at in ended if at > clock.at - 60_000_000])
