"""The events of a run, and what an actor tells through its context."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import anyio
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import ActorContext, Conductor, Goto, GraphOrchestrator, actor, events
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from .conftest import Watch

pytestmark = pytest.mark.anyio


@actor
async def talks(ctx: ActorContext) -> str:
    ctx.reasoning("thinking")
    ctx.tool_call("search", {"q": 1}, call_id="c1")
    ctx.tool_result("search", [2], call_id="c1")
    ctx.emit("progress", 0.5)
    ctx.text("hello")
    ctx.usage(model="big", input_tokens=3, output_tokens=2, cost=0.5)
    ctx.usage(model="big", input_tokens=1)
    ctx.usage(model="small", cost=0.25)
    return "hello"


async def test_an_actor_tells_through_its_context(watch: Watch) -> None:
    run = await watch(talks)
    common = {"run_id", "seq", "time", "agent", "attempt"}
    told = [
        {key: value for key, value in event.items() if key not in common}
        for event in run.told("reasoning", "tool_call", "tool_result", "agent_event", "text_chunk")
    ]

    assert [
        {"type": "reasoning", "text": "thinking"},
        {"type": "tool_call", "tool": "search", "arguments": {"q": 1}, "call_id": "c1"},
        {"type": "tool_result", "tool": "search", "result": [2], "call_id": "c1"},
        {"type": "agent_event", "name": "progress", "data": 0.5},
        {"type": "text_chunk", "text": "hello"},
    ] == told


async def test_usage_is_summed_over_the_run_and_by_model() -> None:
    usage = (await Conductor([talks]).run("goal"))["metadata"]["usage"]

    assert {
        "input_tokens": 4,
        "output_tokens": 2,
        "cost": 0.75,
        "models": {
            "big": {"input_tokens": 4, "output_tokens": 2, "cost": 0.5},
            "small": {"input_tokens": 0, "output_tokens": 0, "cost": 0.25},
        },
    } == usage


async def test_an_actor_sees_what_the_run_has_spent_so_far(watch: Watch) -> None:
    seen = []

    @actor(retries=1, backoff=0)
    async def fails_first(ctx: ActorContext) -> None:
        ctx.usage(model="small", input_tokens=1, cost=0.25)
        if ctx.attempt == 1:
            raise KeyError

    @actor
    def loops(fails_first: None, ctx: ActorContext) -> Any:
        seen.append(ctx.spent["cost"])
        ctx.usage(model="big", cost=0.5)
        seen.append(ctx.spent["cost"])
        return ctx.spent if ctx.round else Goto("loops")

    run = await watch(fails_first, loops)

    assert [0.5, 1.0, 1.0, 1.5] == seen
    assert {"big": 1.0, "small": 0.5} == {name: each["cost"] for name, each in run.output["models"].items()}
    assert run.result is not None
    assert run.output == run.result["metadata"]["usage"]


async def test_what_threads_spend_at_once_is_all_counted(watch: Watch) -> None:
    @actor
    def spends(name: str, ctx: ActorContext) -> float:
        for at in range(200):
            ctx.usage(model=f"{name}{at}", cost=1)
            assert at < ctx.spent["cost"]
        return ctx.spent["cost"]

    async def everyone(ctx: ActorContext) -> float:
        await ctx.map(spends, ["a", "b", "c"])
        return ctx.spent["cost"]

    assert 600 == (await watch(actor(everyone))).output


async def test_the_context_says_where_the_actor_is(watch: Watch) -> None:
    @actor(retries=1, backoff=0)
    async def looks(ctx: ActorContext, again: bool = False) -> Any:  # noqa: FBT001, FBT002  # a Goto gives it
        if ctx.attempt == 1:
            raise ValueError
        seen = (ctx.actor, ctx.agent, ctx.run_id, ctx.attempt, ctx.round, ctx.goal, ctx.context, ctx.history)
        return seen if again else Goto("looks#2", again=True)

    run = await watch(
        looks,
        mode="static",
        order=["looks", "looks"],
        goal="g",
        context={"year": 1},
        history=["before"],
        run_id="r1",
    )

    assert ("looks", "looks#2", "r1", 2, 1, "g", {"year": 1}, ("before",)) == run.output


async def test_what_is_told_after_the_attempt_is_dropped(watch: Watch) -> None:
    kept: list[ActorContext] = []

    @actor
    async def first(ctx: ActorContext) -> None:
        kept.append(ctx)

    @actor
    async def second(first: None) -> None:
        kept[0].text("late")

    run = await watch(first, second)

    assert [] == run.told("text_chunk")
    assert kept[0].is_over


async def test_every_event_has_the_keys_of_its_type_and_no_others(watch: Watch, clock: VirtualClock) -> None:
    @actor(retries=1, backoff=0)
    async def fails(talks: str) -> None:
        raise ValueError

    @actor
    async def skipped(fails: None) -> None: ...

    @actor
    async def loops(talks: str, n: int = 0) -> Any:
        return Goto("loops", n=1) if n == 0 else n

    @actor
    async def waits(talks: str) -> None:
        await anyio.sleep_forever()

    @actor(on_error="raise")
    async def ends(loops: int) -> None:
        await clock.sleep(1)
        raise KeyError

    broken = await watch(talks, fails, skipped, loops, waits, ends, settings={"on_error": "continue"})
    whole = await watch(talks)
    kinds = {_type_of(each): each for each in get_args(events.Event)}
    seen = {event["type"] for event in broken.events + whole.events}

    assert set(kinds) - {"input_required"} == seen
    for event in broken.events + whole.events:
        assert set(get_type_hints(kinds[event["type"]])) == set(event)


def _type_of(kind: Any) -> str:
    (name,) = get_args(get_type_hints(kind)["type"])
    return str(name)


async def test_events_are_numbered_timed_and_carry_the_run(watch: Watch, clock: VirtualClock) -> None:
    start = clock.now() / 1e6

    @actor
    async def slow() -> None:
        await clock.sleep(2.5)

    run = await watch(slow, run_id="r")

    assert [1, 2, 3, 4] == [event["seq"] for event in run.events]
    assert [start, start, start + 2.5, start + 2.5] == [event["time"] for event in run.events]
    assert {"r"} == {event["run_id"] for event in run.events}
    assert {"goal": "goal", "agents": ["slow"]}.items() <= run.events[0].items()
    assert run.result == run.events[-1]["result"]
    assert 2.5 == run.events[2]["seconds"]


async def test_new_runs_have_new_ids_that_sort_by_time() -> None:
    clock = VirtualClock()
    conductor = Conductor([talks], clock=clock)
    ids = []
    for _ in range(5):
        ids.append((await conductor.run("goal"))["metadata"]["run_id"])
        await clock.advance(1)

    assert sorted(set(ids)) == ids


@settings(max_examples=25, deadline=None)
@given(naps=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=5))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_run_twice_gives_the_same_events_in_the_same_order(
    backend: str, naps: list[list[int]]
) -> None:
    assert anyio.run(_told, naps, backend=backend) == anyio.run(_told, naps, backend=backend)


async def _told(naps: list[list[int]]) -> list[Any]:
    _fix_trios_order()
    clock, told = VirtualClock(), list[Any]()

    def branch(at: int, mine: list[int]) -> Any:
        left = iter(mine)

        async def run(ctx: ActorContext, again: int = 0) -> Any:
            await clock.sleep(next(left, 0))
            ctx.text(str(again))
            target = f"b{(at + 1) % len(naps)}"
            return Goto(target, again=again + 1) if again < 2 and next(left, 0) else again

        return actor(run, name=f"b{at}", retries=1)

    async def join(**inputs: Any) -> Any:
        return inputs

    branches = [branch(at, mine) for at, mine in enumerate(naps)]
    conductor = Conductor(
        [*branches, actor(join, depends_on=branches)], clock=clock, random=random.Random(1), max_parallel=3
    )
    async with clock.autojump():
        await GraphOrchestrator(conductor).prepare("goal").execute(told.append)
    return told


def _fix_trios_order() -> None:
    """Have trio, which shuffles the tasks that could run, shuffle them the same way each time."""
    trio._core._run._r.seed(0)


def test_a_fake_context_keeps_what_it_is_told() -> None:
    ctx = ActorContext.fake(goal="g", context={"year": 1}, attempt=2)
    ctx.text("a")
    ctx.emit("progress", 1)
    ctx.usage(model="m", cost=2.0)
    ctx.cancel()

    assert [
        {"type": "text_chunk", "agent": "actor", "attempt": 2, "text": "a"},
        {"type": "agent_event", "agent": "actor", "attempt": 2, "name": "progress", "data": 1},
    ] == ctx.events
    assert [{"model": "m", "input_tokens": 0, "output_tokens": 0, "cost": 2.0}] == ctx.usages
    assert (2.0, 0) == (ctx.spent["cost"], ctx.spent["input_tokens"])
    assert ("g", {"year": 1}, (), True, True) == (
        ctx.goal,
        ctx.context,
        ctx.history,
        ctx.cancelled,
        ctx.has_spoken,
    )


async def test_an_actor_can_be_tested_alone() -> None:
    ctx = ActorContext.fake()

    assert "hello" == await talks(ctx)
    assert ["reasoning", "tool_call", "tool_result", "agent_event", "text_chunk"] == [
        event["type"] for event in ctx.events
    ]
