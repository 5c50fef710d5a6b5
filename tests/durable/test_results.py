"""What is stored of a background run does not grow with it, and its result is whole all the same."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty import Conductor, Goto, RetryLater, TaskQueue, WorkflowMode, actor
from jotty.errors import PayloadError
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from jotty import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Store

pytestmark = pytest.mark.anyio


async def test_a_large_run_with_a_small_output_completes(clock: VirtualClock) -> None:
    async def measure(page: str) -> int:
        return len(page)

    @actor
    async def add_up(ctx: ActorContext) -> int:
        return sum(await ctx.map(measure, [f"{number:04} a rather long name" for number in range(1500)]))

    queue = TaskQueue(MemoryBackend(clock=clock), clock=clock, max_payload=50_000)
    work = WorkflowMode(Conductor([add_up], clock=clock), "async", queue)
    task_id = await work.enqueue_task("g", max_iterations=2000)
    async with clock.autojump():
        await work.process_queue(drain=True)

    stored = await queue.result(task_id, 0.0)
    result = await work.result(task_id)
    (last,) = [event async for event in work.stream(task_id) if event["type"] == "workflow_complete"]
    assert len(str(stored)) < 1000
    assert (result["final_output"], result["metadata"]["iterations"]) == (1500 * 23, 1501)
    assert len(result["metadata"]["path"]) == len(result["metadata"]["timings"]["actors"]) == 1501
    assert last["result"] == result


async def test_path_and_timings_are_those_of_the_same_run_now(clock: VirtualClock) -> None:
    def actors() -> list[Any]:
        rounds: list[int] = []

        @actor
        async def draft(feedback: str = "") -> str:
            await clock.sleep(1.5)
            return f"draft{feedback}"

        @actor
        async def count(draft: str) -> int:
            await clock.sleep(9)
            return len(draft)

        @actor
        async def review(draft: str) -> Any:
            await clock.sleep(2.25)
            rounds.append(1)
            return Goto("draft", feedback="!") if rounds.count(1) == 1 else "fine"

        @actor(on_error="continue")
        async def fail() -> None:
            await clock.sleep(0.125)
            rounds.append(0)
            raise RetryLater(2) if rounds.count(0) == 1 else ValueError(rounds)

        @actor(when=lambda count: count < 0)
        async def never(count: int) -> int:
            return count

        @actor(on_error="continue", when=lambda draft: draft.nothing)
        async def unasked(draft: str) -> None: ...

        @actor
        async def tell(ctx: ActorContext, count: int, review: str) -> str:
            slow = ctx.spawn(clock.sleep, key="slow", seconds=0.75)
            await ctx.call(clock.sleep, key="slower", seconds=1.0)
            await slow
            return f"{count} {review}"

        return [draft, count, review, fail, never, unasked, tell]

    queue = TaskQueue(MemoryBackend(clock=clock), clock=clock)
    work = WorkflowMode(Conductor(actors(), clock=clock), "async", queue)
    task_id = await work.enqueue_task("g")
    async with clock.autojump():
        now = (await WorkflowMode(Conductor(actors(), clock=clock)).execute("g"))["metadata"]
        await work.process_queue(drain=True)
    later = (await work.result(task_id))["metadata"]

    assert {"count", "fail", "tell/sleep[slow]"} <= set(now["timings"]["actors"])
    assert now["timings"]["actors"] == later["timings"]["actors"]
    assert sorted(now["path"]) == sorted(later["path"])
    assert now["iterations"] == later["iterations"] == len(later["path"])


async def test_after_a_crash_and_an_answer_path_and_timings_hold_all_claims(
    store: Store, clock: VirtualClock
) -> None:
    crashes = [1]

    @actor
    async def first() -> str:
        await clock.sleep(2)
        return "a"

    @actor
    async def second(first: str) -> str:
        await clock.sleep(4)
        if crashes and crashes.pop():
            store.die()
            await anyio.sleep_forever()
        return first + "b"

    @actor
    async def ask(ctx: ActorContext, second: str) -> str:
        await clock.sleep(1)
        answer: str = await ctx.ask("Well?", key="q")
        return second + answer

    actors = (first, second, ask)
    worker = store.process(*actors)
    task_id = await worker.flow.enqueue_task("g")
    await worker.work()
    follower = store.process(*actors)
    await follower.work()
    await follower.flow.answer(task_id, "q", "!")
    await follower.work()
    metadata = (await follower.flow.result(task_id))["metadata"]

    assert (await store.task(task_id)).result["final_output"] == "ab!"
    assert metadata["path"] == ["first", "second", "second", "ask"]
    assert metadata["iterations"] == 4
    assert metadata["timings"]["actors"] == {"first": 2.0, "second": 4.0, "ask": 2.0}


@attrs.frozen
class Source:
    name: str
    day: date


@pytest.mark.parametrize("form", ["value", "json", "result"])
async def test_outputs_of_own_types_may_be_supplied_as_they_are_or_as_a_result_has_them(
    clock: VirtualClock, form: str
) -> None:
    @actor
    async def find() -> Source:
        return Source("a", date(2026, 1, 2))

    @actor
    async def use(find: Source) -> str:
        return f"{find.name} {find.day:%d.%m.}"

    work = WorkflowMode(
        Conductor([find, use], clock=clock), "async", TaskQueue(MemoryBackend(clock=clock), clock=clock)
    )
    given: Any = Source("b", date(2026, 3, 4)) if form == "value" else {"name": "b", "day": "2026-03-04"}
    async with clock.autojump():
        if form == "result":
            earlier = await work.enqueue_task("g", outputs={"find": Source("b", date(2026, 3, 4))})
            await work.process_queue(drain=True)
            given = (await work.result(earlier))["actor_outputs"]["find"]
        task_id = await work.enqueue_task("g", outputs={"find": given})
        await work.process_queue(drain=True)
    result = await work.result(task_id)

    assert result["final_output"] == "b 04.03."
    assert result["actor_outputs"]["find"] == {"name": "b", "day": "2026-03-04"}
    assert result["metadata"]["path"] == ["use"]


async def test_a_supplied_output_that_cannot_be_stored_is_named(clock: VirtualClock) -> None:
    @actor
    async def find() -> Source:
        raise NotImplementedError

    work = WorkflowMode(
        Conductor([find], clock=clock), "async", TaskQueue(MemoryBackend(clock=clock), clock=clock)
    )
    odd: Any = object()

    with pytest.raises(PayloadError, match=r"outputs\['find'\]\.day"):
        await work.enqueue_task("g", outputs={"find": Source("b", odd)})
