"""What a background run tells: in groups, from any process, from any place, to one end."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from jotty import Conductor, TaskQueue, WorkflowMode, actor
from jotty.errors import TaskNotFound
from jotty.testing import BackendProxy
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from jotty import ActorContext
    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock

    from .conftest import Store

pytestmark = pytest.mark.anyio

PACE = 0.05  # seconds that an event may wait for others
MOST = 64  # events that are written together


class Writes(BackendProxy):
    """Keeps when how many entries were appended."""

    def __init__(self, inner: QueueBackend, clock: VirtualClock) -> None:
        super().__init__(inner)
        self._clock = clock
        self.groups: list[tuple[int, list[Any]]] = []

    def clone(self) -> QueueBackend:
        return self.inner.clone()

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        self.groups.append((self._clock.now(), [json.loads(entry) for entry in entries]))
        return await super().append(task_id, lease, entries)

    def chunks(self) -> list[int]:
        """How many chunks were in each group that had any."""
        found = [sum(entry["kind"] == "event" for entry in entries) for _, entries in self.groups]
        return [number for number in found if number]


@pytest.fixture
def writes(store: Store, clock: VirtualClock) -> Writes:
    return Writes(store.backend.clone(), clock)


def flow_on(backend: QueueBackend, clock: VirtualClock, *actors: Any) -> WorkflowMode:
    return WorkflowMode(Conductor(actors, clock=clock), "async", TaskQueue(backend, clock=clock))


async def work(flow: WorkflowMode, clock: VirtualClock) -> None:
    async with clock.autojump():
        await flow.process_queue(drain=True)


async def test_chunks_are_written_in_groups_and_none_waits_longer_than_50_ms(
    store: Store, clock: VirtualClock, writes: Writes
) -> None:
    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for number in range(1000):
            await clock.sleep(0.004)
            yield f"{number} "

    flow = flow_on(writes, clock, talk)
    task_id = await flow.enqueue_task("g")
    await work(flow, clock)

    assert len(writes.groups) <= 4.0 / PACE + 3
    late = [
        at / 1e6 - entry["event"]["time"]
        for at, entries in writes.groups
        for entry in entries
        if entry["kind"] == "event"
    ]
    assert max(late) <= PACE + 0.001
    texts = [event["text"] for event in await store.events(task_id, "text_chunk")]
    assert texts == [f"{number} " for number in range(1000)]


async def test_a_flood_of_chunks_is_written_before_many_have_gathered(
    store: Store, clock: VirtualClock, writes: Writes
) -> None:
    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for number in range(1000):
            yield f"{number} "
            await checkpoint()

    flow = flow_on(writes, clock, talk)
    await flow.enqueue_task("g")
    begun = clock.now()
    await work(flow, clock)

    assert max(writes.chunks()) <= MOST * 1.5
    assert len(writes.chunks()) <= 1000 / MOST + 3
    assert clock.now() - begun < 1e6


async def test_runs_at_the_same_time_do_not_wait_for_each_other(
    store: Store, clock: VirtualClock, writes: Writes
) -> None:
    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for _ in range(10):
            await clock.sleep(0.2)
            yield goal

    flow = flow_on(writes, clock, talk)
    ids = [await flow.enqueue_task(f"g{number}") for number in range(3)]
    await work(flow, clock)

    for task_id in ids:
        assert [event["text"] for event in await store.events(task_id, "text_chunk")] == [
            (await store.task(task_id)).goal
        ] * 10
    assert max(writes.chunks()) == 1  # chunks that are far apart are not kept for others


async def test_a_stream_can_be_read_from_every_place_while_the_run_goes_on(
    store: Store, clock: VirtualClock
) -> None:
    seen: list[list[Any]] = []

    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for number in range(5):
            await clock.sleep(1)
            yield f"{number} "

    process = store.process(talk)
    task_id = await process.flow.enqueue_task("g")

    async def follow(after: int) -> None:
        seen.append([])
        events = seen[-1]
        async for event in process.flow.stream(task_id, after):
            events.append(event)

    async with clock.autojump(), anyio.create_task_group() as group:
        for after in range(5):
            group.start_soon(follow, after)
        await process.work()

    whole = await store.events(task_id)
    assert [event["seq"] for event in whole] == sorted(event["seq"] for event in whole)
    assert sorted(map(len, seen)) == [len(whole) - after for after in reversed(range(5))]
    assert all(events == whole[-len(events) :] for events in seen)
    ends = [event["type"] for event in whole if event["type"] in {"workflow_complete", "workflow_error"}]
    assert ends == ["workflow_complete"]


async def test_a_client_that_goes_away_cancels_nothing(store: Store, clock: VirtualClock) -> None:
    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for number in range(5):
            await clock.sleep(1)
            yield f"{number} "

    process = store.process(talk)
    task_id = await process.flow.enqueue_task("g")

    async def leave(seconds: float) -> None:
        stream = process.flow.stream(task_id)
        with clock.timeout(seconds):
            async for _ in stream:
                pass
        await stream.aclose()

    async def break_off() -> None:
        async for event in process.flow.stream(task_id):
            if event["type"] == "text_chunk":
                break

    async with clock.autojump(), anyio.create_task_group() as group:
        for seconds in (0.5, 1.5, 2.5):
            group.start_soon(leave, seconds)
        group.start_soon(break_off)
        await process.work()

    assert await store.output(task_id) == "0 1 2 3 4 "
    assert (await store.task(task_id)).lease == 1


async def test_a_run_that_is_deleted_ends_its_streams(store: Store, clock: VirtualClock) -> None:
    @actor
    async def talk(goal: str) -> str:
        return goal

    process = store.process(talk)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    stream = process.flow.stream(task_id)
    await anext(stream)
    await store.queue.delete(task_id)

    with pytest.raises(TaskNotFound):
        async for _ in process.flow.stream(task_id):
            pass


async def test_a_parked_and_resumed_run_is_one_stream(store: Store, clock: VirtualClock) -> None:
    @actor
    async def talk(ctx: ActorContext) -> AsyncIterator[str]:
        yield "a"
        yield str(await ctx.ask("?"))

    process = store.process(talk)
    task_id = await process.flow.enqueue_task("g")
    events: list[Any] = []

    async def follow() -> None:
        async for event in process.flow.stream(task_id):
            events.append(event)
            if event["type"] == "input_required":
                await process.flow.answer(task_id, event["key"], "b")

    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(follow)
        while (await store.task(task_id)).status != "completed":
            await process.work()
            await clock.sleep(1)

    assert events == await store.events(task_id)
    assert [event["type"] for event in events].count("workflow_complete") == 1
    assert await store.output(task_id) == "ab"


FOLLOWER = """
import sys, anyio
from jotty import open_queue, stream_run

async def main():
    async with open_queue(sys.argv[1]) as queue:
        async for event in stream_run(queue, sys.argv[2], int(sys.argv[3])):
            print(event["seq"], event["type"], event.get("text", ""), flush=True)

anyio.run(main)
"""


async def test_another_process_sees_the_chunks_as_they_come(tmp_path: Path) -> None:
    goes_on = anyio.Event()

    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        yield "first"
        await goes_on.wait()  # until the other one has seen it
        yield "second"

    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    flow = WorkflowMode(Conductor([talk]), "async", TaskQueue(SQLiteBackend(tmp_path / "tasks.db")))
    task_id = await flow.enqueue_task("g")
    command = [sys.executable, "-c", FOLLOWER, url, task_id]
    told = ""
    with anyio.fail_after(30):
        async with (
            await anyio.open_process([*command, "0"], stderr=subprocess.PIPE) as process,
            anyio.create_task_group() as group,
        ):
            group.start_soon(flow.process_queue)
            assert process.stdout is not None
            with suppress(anyio.EndOfStream):
                while True:
                    told += (await process.stdout.receive()).decode()
                    if "text_chunk first" in told:
                        goes_on.set()
            await process.wait()
            flow.stop_processing()
    rest = await anyio.run_process([*command, "3"])
    await flow.queue.aclose()  # type: ignore[union-attr]  # it has one

    lines = [line.split(maxsplit=1) for line in told.splitlines()]
    assert [rest.strip() for _, rest in lines] == [
        "workflow_start",
        "agent_start",
        "text_chunk first",
        "text_chunk second",
        "agent_complete",
        "workflow_complete",
    ]
    assert rest.stdout.decode().splitlines() == told.splitlines()[3:]
