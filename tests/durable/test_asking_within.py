"""Who asks, and what goes on beside it: graphs within graphs, bounds, timeouts; and questions that expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty import Conductor, TaskStatus, actor
from jotty.errors import TaskFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jotty import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Store

pytestmark = pytest.mark.anyio


# Those that expire


@pytest.mark.parametrize("others", [True, False])
async def test_a_question_that_nobody_answers_in_time_has_its_default(
    store: Store, clock: VirtualClock, *, others: bool
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> str:
        return str(await ctx.ask("?", key="word", timeout=60, default="none"))

    @actor
    async def busy(goal: str) -> None:
        await clock.sleep(100 if others else 0)

    process = store.process(ann, busy, output="ann")
    task_id = await process.flow.enqueue_task("g")
    begun = clock.now()
    await process.work()
    if not others:
        assert (await store.task(task_id)).status is TaskStatus.BLOCKED
        await clock.advance(59)
        await process.work()
        assert (await store.task(task_id)).status is TaskStatus.BLOCKED
        await clock.advance(2)
        await process.work()

    assert await store.output(task_id) == "none"
    (step,) = [entry for entry in await store.journal(task_id, "step") if entry.data["agent"] == "ann"]
    assert 60 <= step.data["time"] - begun / 1e6 < 62
    (expired,) = await store.journal(task_id, "expired")
    assert (expired.data["key"], expired.data["value"]) == ("word", "none")


async def test_without_a_default_a_question_that_expires_is_a_timeout(
    store: Store, clock: VirtualClock
) -> None:
    caught: list[str] = []

    @actor
    async def ann(ctx: ActorContext) -> str:
        try:
            await ctx.ask("?", key="word", timeout=60)
        except TimeoutError as error:
            caught.append(str(error))
        return "went on"

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    await clock.advance(61)
    await process.work()

    assert await store.output(task_id) == "went on"
    assert len(caught) == 1
    assert "'word'" in caught[0]


async def test_a_question_does_not_wait_anew_after_a_restart(
    store: Store, clock: VirtualClock, calls: list[str]
) -> None:
    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def ann(ctx: ActorContext) -> str:
            calls.append("ann")
            return str(await ctx.ask("?", key="word", timeout=60, default="none"))

        @actor
        async def busy(goal: str) -> None:
            if act is not None:
                clock.call_later(40, act)
            await clock.sleep(500)

        return [ann, busy]

    first = store.process(*actors(store.die), output="ann")
    task_id = await first.flow.enqueue_task("g")
    begun = clock.now()
    await first.work(lease_timeout=10)
    await store.process(*actors(None), output="ann").work()

    (step,) = [entry for entry in await store.journal(task_id, "step") if entry.data["agent"] == "ann"]
    assert 60 <= step.data["time"] - begun / 1e6 < 62
    assert calls == ["ann", "ann"]
    assert len(await store.events(task_id, "input_required")) == 1


async def test_a_question_that_expired_stays_expired_after_a_crash(store: Store, clock: VirtualClock) -> None:
    seen: list[Any] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def ann(ctx: ActorContext) -> str:
            seen.append(await ctx.ask("?", key="word", timeout=60, default="none"))
            await ctx.step("a", dict)
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return str(seen[-1])

        return [ann]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await clock.advance(61)
    await first.work(lease_timeout=10)
    await store.queue.answer(task_id, "word", "too late")
    await store.process(*actors(None)).work()

    assert seen == ["none", "none"]


# Where it is asked


async def test_a_question_may_be_asked_within_a_graph_within_the_graph(
    store: Store, calls: list[str]
) -> None:
    @actor
    async def ivo(goal: str) -> str:
        calls.append("ivo")
        return goal

    @actor
    async def jan(ivo: str, ctx: ActorContext) -> Any:
        calls.append("jan")
        return [ivo, await ctx.ask("?")]

    @actor
    async def bob(inner: Any) -> Any:
        calls.append("bob")
        return inner

    process = store.process(Conductor([ivo, jan], name="inner"), bob)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert tuple((await store.task(task_id)).head.awaiting) == ("inner/jan",)
    await process.flow.answer(task_id, "inner/jan", "yes")
    await process.work()

    assert calls == ["ivo", "jan", "jan", "bob"]
    assert await store.output(task_id) == ["g", "yes"]


@pytest.mark.parametrize("bound", [1, 2])
async def test_who_waits_for_an_answer_leaves_its_place_to_others(
    store: Store, clock: VirtualClock, bound: int
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?")

    @actor
    async def bob(ctx: ActorContext) -> Any:
        return await ctx.ask("?")

    @actor
    async def cem(goal: str) -> str:
        return "cem"

    process = store.process(ann, bob, cem, max_parallel=bound)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert sorted((await store.task(task_id)).head.awaiting) == ["ann", "bob"]
    await process.flow.answer(task_id, "bob", 2)
    await process.work()
    await process.flow.answer(task_id, "ann", 1)
    await process.work()

    assert await store.output(task_id) == {"ann": 1, "bob": 2, "cem": "cem"}


async def test_a_graph_that_waits_for_an_answer_leaves_its_place_to_others(
    store: Store, clock: VirtualClock
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?", timeout=10, default="nobody")

    @actor
    async def ivo(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="inner")

    @actor
    async def bob(ann: str) -> str:
        return f"bob({ann})"

    process = store.process(ann, Conductor([ivo], name="inner"), bob, max_parallel=1)
    task_id = await process.flow.enqueue_task("g")
    async with clock.autojump():
        with clock.timeout(3600):
            await process.work()
            await clock.sleep(20)
            await process.work()

    assert [entry.data["agent"] for entry in await store.journal(task_id, "step")] == ["ann", "bob"]
    assert (await store.task(task_id)).status is TaskStatus.BLOCKED


async def test_a_run_parks_though_what_was_ready_last_is_only_skipped(
    store: Store, clock: VirtualClock
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?")

    @actor(when=lambda: False)
    async def bob(goal: str) -> str:
        return "bob"

    process = store.process(ann, bob, max_parallel=1)
    task_id = await process.flow.enqueue_task("g")
    async with clock.autojump():
        with clock.timeout(60):
            await process.work()

    assert (await store.task(task_id)).status is TaskStatus.BLOCKED


async def test_a_wait_for_an_answer_is_none_of_the_time_that_an_actor_may_take(
    store: Store, clock: VirtualClock
) -> None:
    @actor(timeout=10)
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="word")

    @actor
    async def busy(goal: str) -> None:
        await clock.sleep(100)

    process = store.process(ann, busy, output="ann")
    task_id = await process.flow.enqueue_task("g")

    async with clock.autojump(), anyio.create_task_group() as group:

        async def answer() -> None:
            await clock.sleep(50)
            await process.flow.answer(task_id, "word", "yes")

        group.start_soon(answer)
        await process.work()

    assert await store.output(task_id) == "yes"


async def test_an_actor_that_catches_all_exceptions_is_parked_all_the_same(store: Store) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        try:
            return await ctx.ask("?")
        except Exception as error:  # noqa: BLE001 - as careless actors do
            return f"caught {error!r}"

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert (await store.task(task_id)).status is TaskStatus.BLOCKED
    await process.flow.answer(task_id, "ann", "yes")
    await process.work()

    assert await store.output(task_id) == "yes"


async def test_two_actors_cannot_wait_under_one_key(store: Store) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="word")

    @actor
    async def bob(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="word")

    process = store.process(ann, bob)
    task_id = await process.flow.enqueue_task("g", max_attempts=1)
    await process.work()

    with pytest.raises(TaskFailed, match="a key of its own"):
        await process.flow.result(task_id)


async def test_what_streams_may_ask(store: Store) -> None:
    @actor
    async def talk(ctx: ActorContext) -> AsyncIterator[str]:
        yield "well, "
        yield str(await ctx.ask("?"))

    process = store.process(talk)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    await process.flow.answer(task_id, "talk", "yes")
    await process.work()

    assert await store.output(task_id) == "well, yes"


async def test_who_waited_for_a_handle_in_vain_does_not_keep_the_run_from_parking(
    store: Store, clock: VirtualClock
) -> None:
    async def slow() -> str:
        await clock.sleep(10)
        return "slow"

    @actor
    async def ann(ctx: ActorContext) -> Any:
        handle = ctx.spawn(slow)
        with clock.timeout(1):
            await handle
        return await ctx.ask("?")

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    async with clock.autojump():
        with clock.timeout(60):
            await process.work()

    assert (await store.task(task_id)).status is TaskStatus.BLOCKED
