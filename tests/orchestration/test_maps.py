"""An actor spawned for each item of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Actor, actor
from jotty.errors import GraphError

if TYPE_CHECKING:
    from jotty.core.orchestration import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Watch, Watched

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


@actor(on_demand=True)
async def search(query: str, depth: int = 1) -> str:
    return f"{query}/{depth}"


def sleeper(clock: VirtualClock) -> Actor[..., Any]:
    @actor(on_demand=True)
    async def sleep(seconds: float) -> float:
        await clock.sleep(seconds)
        return seconds

    return sleep


def times(run: Watched, type: str = "agent_start") -> dict[str, float]:  # noqa: A002  # an event's type
    """When each agent told this, in seconds from the run's start."""
    start = run.events[0]["time"]
    return {event["agent"]: round(event["time"] - start, 3) for event in run.told(type)}


async def test_a_map_gives_outputs_in_the_order_of_the_items(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(sleeper(clock), [3, 1, 2])

    run = await watch(plan)

    assert [3, 1, 2] == run.output
    assert 3 == times(run, "agent_complete")["plan"]


async def test_a_map_takes_any_iterable_also_an_empty_one_and_equal_items(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return [
            await ctx.map("search", []),
            await ctx.map("search", (each for each in "ab")),
            await ctx.map("search", ["c", "c"], depth=2),
            await ctx.map("search", {"d": 1}, key=str.upper),
            await ctx.map("search", [1, 2], query="e", key=lambda each: f"e{each}"),
        ]

    run = await watch(search, plan)

    assert [[], ["a/1", "b/1"], ["c/2", "c/2"], ["d/1"], ["e/1", "e/2"]] == run.output
    assert {"plan/search[D]", "plan/search[e1]", "plan/search[e2]"} <= set(run.path)


async def test_an_item_goes_where_nothing_else_does(watch: Watch) -> None:
    @actor
    async def facts() -> str:
        return "facts"

    @actor(on_demand=True)
    async def score(
        goal: str, ctx: ActorContext, facts: str, tone: str, score: int = 0, item: str = "", more: int = 7
    ) -> Any:
        return goal, ctx.actor, facts, tone, score, item, more

    @actor(depends_on=["facts"])
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map("score", ["x"])

    run = await watch(facts, score, plan, context={"tone": "dry"}, settings={"output": "plan"})

    assert [("goal", "score", "facts", "dry", 0, "x", 7)] == run.output


async def test_handles_may_be_items(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        handles = [ctx.spawn(sleeper(clock), seconds=seconds) for seconds in (2, 1)]
        return await ctx.map("search", handles)

    run = await watch(search, plan, settings={"max_parallel": 1}, timeout=LONG)

    assert ["2/1", "1/1"] == run.output


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_a_limit_bounds_how_many_of_a_map_run_at_once(
    watch: Watch, clock: VirtualClock, limit: int
) -> None:
    seconds = [3, 1, 1, 2, 1, 2]
    running: set[int] = set()
    most = 0

    async def work(at: int) -> int:
        nonlocal most
        running.add(at)
        most = max(most, len(running))
        await clock.sleep(seconds[at])
        running.remove(at)
        return at

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(work, range(6), limit=limit)

    run = await watch(plan)

    assert [0, 1, 2, 3, 4, 5] == run.output
    assert min(limit, 6) == most
    assert {1: 10, 2: 6, 3: 4, 10: 3}[limit] == times(run, "agent_complete")["plan"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
async def test_a_wrong_limit_is_refused(watch: Watch, limit: Any) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map("search", ["a"], limit=limit)

    run = await watch(search, plan)

    assert ValueError is type(run.error)
    assert ["plan"] == run.path


@pytest.mark.parametrize("limit", [None, 3])
async def test_a_failing_item_cancels_and_awaits_the_others_and_is_raised(
    watch: Watch, clock: VirtualClock, limit: int | None
) -> None:
    log = []

    async def work(at: int) -> None:
        try:
            await clock.sleep(at)
            if at == 1:
                raise ValueError(at)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await clock.sleep(3)
            log.append(at)
            raise

    @actor
    async def plan(ctx: ActorContext) -> Any:
        try:
            await ctx.map(work, [5, 1, 6, 7], limit=limit)
        except ValueError as exc:
            return exc.args, sorted(log)

    run = await watch(plan)

    assert ((1,), [5, 6, 7] if limit is None else [5, 6]) == run.output
    assert 4 == times(run, "agent_complete")["plan"]


async def test_of_several_items_that_fail_at_once_one_is_raised_and_the_others_are_known(
    watch: Watch, clock: VirtualClock
) -> None:
    async def work(at: int) -> None:
        await clock.sleep(1)
        raise ValueError(at)

    @actor
    async def plan(ctx: ActorContext) -> str:
        with pytest.raises(ValueError, match=r"[123]"):
            await ctx.map(work, [1, 2, 3])
        return "fallback"

    run = await watch(plan)

    assert "fallback" == run.output


async def test_failures_that_are_continued_from_leave_none_in_their_place(watch: Watch) -> None:
    @actor(on_demand=True, on_error="continue")
    async def half(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number // 2

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map("half", [4, 3, 2])

    run = await watch(half, plan)

    assert [2, None, 1] == run.output
    assert run.result
    assert ["3"] == [error["message"] for error in run.result["errors"]]


@pytest.mark.parametrize("at", [0, 2])
async def test_a_map_whose_items_or_keys_fail_leaves_nothing_running(
    watch: Watch, clock: VirtualClock, at: int
) -> None:
    def broken() -> Any:
        yield from range(at)
        raise KeyError("items")

    @actor
    async def plan(ctx: ActorContext) -> str:
        sleep = sleeper(clock)
        with pytest.raises(KeyError):
            await ctx.map(sleep, broken())
        with pytest.raises(ValueError, match="already"):
            await ctx.map(sleep, [100, 200], key=lambda _: "same")
        with pytest.raises(TypeError):
            await ctx.map(sleep, 5)  # type: ignore[arg-type]  # that is the point
        return "done"

    run = await watch(plan)

    assert "done" == run.output
    assert 0 == times(run, "agent_complete")["plan"]


async def test_an_actor_without_a_parameter_for_the_item_is_refused(watch: Watch) -> None:
    @actor(on_demand=True)
    async def alone(ctx: ActorContext) -> None: ...

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map("alone", [1])

    run = await watch(alone, plan)

    assert GraphError is type(run.error)


async def test_prompts_are_mapped_over_an_agent(watch: Watch) -> None:
    class Agent:
        name = "agent"

        async def run(self, prompt: str) -> str:
            return f"<{prompt}>"

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(Agent(), ["a", "b"])

    run = await watch(plan)

    assert ["<a>", "<b>"] == run.output
