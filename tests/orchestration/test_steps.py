"""Steps within an actor, in a run that is not durable."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import actor

if TYPE_CHECKING:
    from jotty.core.orchestration import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio


async def test_a_step_calls_its_function_and_gives_what_it_returns(watch: Watch) -> None:
    async def double(value: int) -> int:
        return value * 2

    class Made:
        def __init__(self, value: int) -> None:
            self.value = value

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return [
            await ctx.step("async", double, 2),
            await ctx.step("plain", lambda *values: sum(values), 1, 2, 3),
            await ctx.step("awaitable", lambda value: double(value), 4),  # noqa: PLW0108  # that is the point
            (await ctx.step("class", Made, 5)).value,
        ]

    run = await watch(plan)

    assert [4, 6, 8, 5] == run.output
    assert ["plan"] == run.path


async def test_a_plain_function_runs_in_a_thread_while_virtual_time_stands_still(
    watch: Watch, clock: VirtualClock
) -> None:
    def slow() -> int:
        time.sleep(0.02)
        return threading.get_ident()

    @actor
    async def plan(ctx: ActorContext) -> Any:
        with clock.timeout(1) as scope:
            return await ctx.step("slow", slow), scope.cancel_called

    @actor
    async def other() -> None:
        await clock.sleep(5)

    run = await watch(plan, other)
    thread, was_late = run.outputs["plan"]

    assert threading.get_ident() != thread
    assert not was_late


async def test_what_a_step_raises_is_raised_and_another_attempt_takes_it_again(watch: Watch) -> None:
    taken: list[str] = []

    async def take(name: str) -> str:
        taken.append(name)
        if len(taken) == 2:
            raise KeyError(name)
        return name

    @actor(retries=1, backoff=0)
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.step("a", take, "a"), await ctx.step("b", take, "b")

    run = await watch(plan)

    assert ("a", "b") == run.output
    assert ["a", "b", "a", "b"] == taken


@pytest.mark.parametrize("key", ["", 5, None])
async def test_a_key_of_a_step_is_a_text_of_its_own(watch: Watch, key: Any) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        with pytest.raises(ValueError, match="The key of a step"):
            await ctx.step(key, int)
        first = await ctx.step("k", int)
        with pytest.raises(ValueError, match="already"):
            await ctx.step("k", int)
        return first

    run = await watch(plan)

    assert 0 == run.output


async def test_a_step_is_the_actors_own_work_and_keeps_its_place(watch: Watch, clock: VirtualClock) -> None:
    working: list[str] = []
    most = 0

    async def work(name: str) -> None:
        nonlocal most
        working.append(name)
        most = max(most, len(working))
        await clock.sleep(2)
        working.remove(name)

    @actor
    async def plan(ctx: ActorContext) -> None:
        await ctx.step("k", work, "step")

    @actor
    async def other() -> None:
        await work("other")

    await watch(plan, other, settings={"max_parallel": 1})

    assert 1 == most


async def test_a_thread_takes_no_steps_and_asks_nothing(watch: Watch) -> None:
    @actor(on_error="continue")
    def plan(ctx: ActorContext) -> None:
        ctx.step("k", int).send(None)

    @actor(on_error="continue")
    def ask(ctx: ActorContext) -> None:
        ctx.ask("?").send(None)

    run = await watch(plan, ask)

    assert run.result
    assert ["RuntimeError", "RuntimeError"] == [error["type"] for error in run.result["errors"]]
    assert all("it runs in a thread" in error["message"] for error in run.result["errors"])


async def test_a_cancelled_step_waits_for_its_thread(watch: Watch) -> None:
    ended, begun = threading.Event(), anyio.Event()

    def slow() -> None:
        anyio.from_thread.run_sync(begun.set)
        time.sleep(0.03)
        ended.set()

    @actor
    async def plan(ctx: ActorContext) -> None:
        await ctx.step("k", slow)

    @actor
    async def fail() -> None:
        await begun.wait()
        raise ValueError

    run = await watch(plan, fail)

    assert ValueError is type(run.error)
    assert ended.is_set()
