"""Whatever ends a run, or a part of it, ends all that belongs to it, and is waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from jotty.core.orchestration import (
    Conductor,
    End,
    Goto,
    GraphOrchestrator,
    Limit,
    actor,
    result_of,
)
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jotty.core.orchestration import ActorContext, Question

    from .conftest import Watch, Watched

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


def tasks() -> int:
    """Count the tasks of the event loop that runs here, but for those of trio itself."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def took(run: Watched) -> float:
    return float(round(run.events[-1]["time"] - run.events[0]["time"], 3))


class Log(list[str]):
    """What happened, and who is at work."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.working: list[str] = []

    async def work(self, name: str, seconds: float = 50, cleanup: float = 2) -> str:
        """Work for some time; take some also to stop."""
        self.working.append(name)
        try:
            await self.clock.sleep(seconds)
            self.append(f"{name} worked")
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.clock.sleep(cleanup)
            self.append(f"{name} stopped")
            raise
        finally:
            self.working.remove(name)
        return name


@pytest.fixture
def log(clock: VirtualClock) -> Log:
    return Log(clock)


# End and Goto while others are in flight


@pytest.mark.parametrize("how", ["returned", "called", "spawned", "deep"])
async def test_an_end_cancels_and_awaits_branches_and_all_that_is_spawned(
    watch: Watch, clock: VirtualClock, log: Log, how: str
) -> None:
    @actor(on_demand=True)
    async def end(seconds: float) -> Any:
        await clock.sleep(seconds)
        return End("ended")

    @actor(on_demand=True)
    async def between(ctx: ActorContext) -> Any:
        ctx.spawn(log.work, name="beside")
        return await ctx.call("end", seconds=1)

    @actor
    async def plan(ctx: ActorContext) -> Any:
        ctx.spawn(log.work, name="spawned")
        if how == "returned":
            await clock.sleep(1)
            return End("ended")
        if how == "called":
            await ctx.call("end", seconds=1)
        if how == "deep":
            await ctx.call("between")
        ctx.spawn("end", seconds=1)
        await log.work("plan")
        log.append("plan went on")
        return "plan"

    @actor
    async def branch() -> Any:
        return await log.work("branch")

    @actor
    async def after(plan: str, branch: str) -> None:
        log.append("after")

    run = await watch(end, between, plan, branch, after, timeout=LONG)

    assert "ended" == run.output
    assert 5 >= took(run)  # two seconds each to stop, one after the other at most
    assert {"branch stopped", "spawned stopped"} <= set(log)
    assert not [each for each in log if each.endswith(("worked", "on", "after"))]
    assert [] == log.working
    assert run.result
    assert run.result["success"]
    assert "workflow_complete" == run.events[-1]["type"]


@pytest.mark.parametrize("by", ["branch", "spawned"])
async def test_a_goto_cancels_and_awaits_what_its_target_has_spawned(
    watch: Watch, clock: VirtualClock, log: Log, by: str
) -> None:
    rounds: list[int] = []

    @actor
    async def plan(ctx: ActorContext) -> Any:
        rounds.append(ctx.round)
        if ctx.round:
            return "done"
        ctx.spawn(log.work, name="spawned")
        if by == "spawned":
            ctx.spawn("change")
        return await ctx.call(log.work, name="called")

    @actor(on_demand=by == "spawned")
    async def change() -> Any:
        await clock.sleep(1)
        return Goto("plan") if len(rounds) == 1 else "changed"

    @actor
    async def write(plan: str) -> str:
        return plan

    run = await watch(plan, change, write, timeout=LONG)

    assert "done" == run.outputs["write"]
    assert ["called stopped", "spawned stopped"] == sorted(log)
    assert [0, 1] == rounds
    assert 5 >= took(run)  # two seconds each to stop, one after the other at most
    story = [event["type"] for event in run.events if event.get("agent") == "plan"]
    assert ["agent_start", "agent_cancelled", "agent_start", "agent_complete"] == story


async def test_a_goto_elsewhere_leaves_who_has_spawned_it_alone(
    watch: Watch, clock: VirtualClock, log: Log
) -> None:
    @actor
    async def other(word: str = "first") -> str:
        return word

    @actor
    async def after(other: str) -> str:
        return other

    async def go() -> Any:
        return Goto("other", word="second")

    @actor(depends_on=["after"])
    async def plan(ctx: ActorContext) -> Any:
        return "never"

    @actor
    async def beside(ctx: ActorContext) -> Any:
        await clock.sleep(1)
        return await ctx.call(go), await ctx.call(log.work, name="on", seconds=2)

    run = await watch(other, after, beside, settings={"output": ("after", "beside")}, timeout=LONG)

    assert {"after": "second", "beside": (None, "on")} == run.output
    assert plan.name not in run.path


async def test_a_goto_or_end_that_comes_too_late_changes_nothing(watch: Watch, clock: VirtualClock) -> None:
    async def stubborn(outcome: Any) -> Any:
        try:
            await clock.sleep(50)
        except anyio.get_cancelled_exc_class():
            return outcome

    @actor(on_error="continue")
    async def plan(ctx: ActorContext) -> Any:
        ctx.spawn(stubborn, key="goto", outcome=Goto("write"))
        ctx.spawn(stubborn, key="end", outcome=End("late"))
        await clock.sleep(1)
        raise ValueError

    @actor(depends_on=["plan"])
    async def write() -> str:
        return "written"

    run = await watch(plan, write, timeout=LONG)

    assert "written" == run.output
    assert 1 == run.path.count("write")


# Failures


async def test_a_failure_cancels_and_awaits_all_that_others_have_spawned(
    watch: Watch, clock: VirtualClock, log: Log
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        ctx.spawn(log.work, name="spawned", cleanup=5)
        return await ctx.map(log.work, ["a", "b"])

    @actor
    async def done() -> str:
        return "done"

    @actor
    async def fail() -> None:
        await clock.sleep(1)
        raise ValueError("first")

    run = await watch(plan, fail, done, timeout=LONG)

    assert "ValueError('first')" == repr(run.error)
    assert ["a stopped", "b stopped", "spawned stopped"] == sorted(log)
    assert 6 == took(run)
    result = result_of(run.error) if run.error is not None else None
    assert result
    assert {"done": "done"} == result["actor_outputs"]
    assert ["fail"] == [error["agent"] for error in result["errors"]]
    assert run.events[-1]["type"] == "workflow_error"
    assert ["Raised by actor 'fail', attempt 1, of run " + run.events[0]["run_id"] + "."] == getattr(
        run.error, "__notes__", []
    )


async def test_what_fails_as_it_is_cancelled_does_not_hide_the_first_failure(
    watch: Watch, clock: VirtualClock
) -> None:
    async def bad() -> None:
        try:
            await clock.sleep(50)
        except anyio.get_cancelled_exc_class():
            raise KeyError("second") from None

    @actor
    async def plan(ctx: ActorContext) -> Any:
        ctx.spawn(bad)
        return await ctx.call(bad)

    @actor
    async def fail() -> None:
        await clock.sleep(1)
        raise ValueError("first")

    run = await watch(plan, fail, timeout=LONG)

    assert "ValueError('first')" == repr(run.error)


# Time


async def test_a_runs_timeout_cancels_and_awaits_everything(watch: Watch, log: Log) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(log.work, ["a", "b"])

    @actor
    async def done() -> str:
        return "done"

    run = await watch(plan, done, timeout=5)

    assert "TimeoutError('The run took longer than its timeout of 5 s.')" == repr(run.error)
    assert ["a stopped", "b stopped"] == sorted(log)
    assert 7 == took(run)
    result = result_of(run.error) if run.error is not None else None
    assert result
    assert {"done": "done"} == result["actor_outputs"]
    assert not result["success"]
    assert "workflow_error" == run.events[-1]["type"]


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "5", True])
async def test_a_wrong_timeout_is_refused_before_anything_runs(watch: Watch, log: Log, timeout: Any) -> None:
    run = await watch(actor(log.work, bind={"name": "goal"}), timeout=timeout)

    assert ValueError is type(run.error)
    assert [] == run.events


async def test_an_actors_timeout_cancels_and_awaits_what_it_has_spawned(watch: Watch, log: Log) -> None:
    @actor(timeout=5, retries=1, backoff=0)
    async def plan(ctx: ActorContext) -> Any:
        if ctx.attempt == 2:
            return "second"
        ctx.spawn(log.work, name="spawned")
        return await ctx.map(log.work, ["a"])

    run = await watch(plan)

    assert "second" == run.output
    assert ["a stopped", "spawned stopped"] == sorted(log)
    assert 9 >= took(run)


# Threads


async def test_without_a_grace_a_thread_is_waited_for_however_long() -> None:
    ended, begun = threading.Event(), anyio.Event()

    @actor
    def slow(ctx: ActorContext) -> None:
        anyio.from_thread.run_sync(begun.set)
        while not ctx.cancelled:
            time.sleep(0.001)
        time.sleep(0.05)
        ended.set()

    @actor
    async def fail() -> None:
        await begun.wait()
        raise ValueError

    conductor = Conductor([slow, fail], thread_grace=None)
    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        await conductor.run("goal")

    assert ended.is_set()


async def test_a_thread_that_was_spawned_is_told_to_stop_and_awaited() -> None:
    ended, begun = threading.Event(), anyio.Event()

    def slow(ctx: ActorContext) -> None:
        anyio.from_thread.run_sync(begun.set)
        while not ctx.cancelled:
            time.sleep(0.001)
        ended.set()

    @actor(on_error="continue")
    async def plan(ctx: ActorContext) -> None:
        ctx.spawn(slow)
        await begun.wait()
        raise ValueError

    @actor(depends_on=["plan"])
    async def write() -> bool:
        return ended.is_set()

    result = await Conductor([plan, write]).run("goal")

    assert True is result["final_output"]


# A caller who goes away


@asynccontextmanager
async def store(clock: VirtualClock) -> AsyncIterator[str]:
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 10_000)
        yield "store"
        group.cancel_scope.cancel()


@actor
async def decide(ctx: ActorContext) -> Any:
    return await ctx.ask("?", timeout=30)


def spawning_actors(log: Log) -> list[Any]:
    @actor(on_demand=True, limit="api", retries=1, backoff=0.5)
    async def search(ctx: ActorContext, query: int) -> int:
        await log.work(f"search {query}", 1, cleanup=0.25)
        if query == 2 and ctx.attempt == 1:
            raise ValueError
        return query

    @actor
    async def plan(ctx: ActorContext, store: str) -> Any:
        first = ctx.spawn("search", query=7)
        found = [*await ctx.map("search", range(3), limit=2), await ctx.call("search", query=8)]
        return [*found, await ctx.spawn("search", query=first, after=[first])]

    @actor
    async def review(ctx: ActorContext, plan: Any, decide: str) -> Any:
        await log.work("review", 1, cleanup=0.25)
        return plan if ctx.round else Goto("plan")

    return [search, plan, review]


def other_actors(log: Log, clock: VirtualClock) -> list[Any]:
    @actor(timeout=1.5, retries=2, backoff=0, on_error="continue")
    async def slow() -> None:
        await log.work("slow", 2, cleanup=0.25)

    @actor
    async def words() -> AsyncIterator[str]:
        for word in "abc":
            await clock.sleep(1)
            yield word

    @actor
    async def inner_work(ctx: ActorContext, store: str) -> Any:
        return await ctx.map(log.work, ["inner a", "inner b"])

    inner = Conductor([inner_work], name="inner", resources={"store": lambda: store(clock)})
    return [slow, words, actor(inner, timeout=4, on_error="continue")]


def busy(log: Log, clock: VirtualClock) -> Conductor:
    """A conductor that does a bit of everything, for about twelve seconds."""
    return Conductor(
        [*spawning_actors(log), *other_actors(log, clock), decide],
        clock=clock,
        resources={"store": lambda: store(clock)},
        limits={"api": Limit(concurrent=2)},
        max_parallel=4,
        random=Random(1),
    )


async def answer_later(clock: VirtualClock, _: Question) -> str:
    await clock.sleep(3)
    return "yes"


async def cancelled_after(
    clock: VirtualClock, run: Callable[[], Awaitable[Any]], *, seconds: float, passes: int
) -> bool:
    """Cancel a run after so much virtual time and then so many passes of the event loop."""
    async with clock.autojump():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await clock.sleep(seconds)
                    for _ in range(passes):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                group.start_soon(cancel)
                await run()
                group.cancel_scope.cancel()
    return scope.cancelled_caught


@pytest.mark.parametrize("passes", range(8))
async def test_a_caller_who_is_cancelled_leaves_nothing_behind_whenever_that_is(passes: int) -> None:
    for quarters in range(44):
        clock = VirtualClock()
        log, events = Log(clock), list[Any]()
        conductor = busy(log, clock)
        before, threads = tasks(), threading.active_count()

        run = GraphOrchestrator(conductor).prepare("goal", on_ask=partial(answer_later, clock))
        work = partial(run.execute, events.append)
        assert await cancelled_after(clock, work, seconds=quarters / 4, passes=passes)

        kinds = [event["type"] for event in events]
        ended = sum(map(kinds.count, ("agent_complete", "agent_error", "agent_cancelled")))
        assert [] == log.working
        assert before == tasks()
        assert threads >= threading.active_count()
        assert kinds.count("agent_start") == ended
        assert not {"workflow_complete", "workflow_error"} & set(kinds)
        limiter = conductor.limiters.of("api")
        assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]


async def test_the_same_run_ends_well_if_nobody_cancels_it(clock: VirtualClock, log: Log) -> None:
    """What the test above cancels does what it is meant to."""
    before = tasks()

    async with clock.autojump():
        run = GraphOrchestrator(busy(log, clock)).prepare("goal", on_ask=partial(answer_later, clock))
        result = await run.execute()

    assert [0, 1, 2, 8, 7] == result["actor_outputs"]["review"]
    assert {"inner", "slow"} == {error["agent"] for error in result["errors"]}
    assert 11 < result["metadata"]["timings"]["seconds"] < 16
    assert before == tasks()
    assert [] == log.working


async def test_events_of_one_actor_are_in_order_whatever_happens(clock: VirtualClock, log: Log) -> None:
    events: list[Any] = []
    async with clock.autojump():
        run = GraphOrchestrator(busy(log, clock)).prepare("goal", on_ask=lambda _: "yes")
        await run.execute(events.append)
    open_ones: dict[str, int] = {}
    for event in events:
        agent = event.get("agent")
        if event["type"] == "agent_start":
            assert agent not in open_ones
            open_ones[agent] = 1
        elif event["type"] == "agent_retry":
            assert open_ones[agent] == event["attempt"]
            open_ones[agent] += 1
        elif event["type"] in ("agent_complete", "agent_error", "agent_cancelled"):
            assert event["attempt"] == open_ones.pop(agent)
        elif event["type"] in ("text_chunk", "input_required"):
            assert event["attempt"] == open_ones[agent]

    assert {} == open_ones
    assert list(range(1, len(events) + 1)) == [event["seq"] for event in events]
    assert sorted(event["time"] for event in events) == [event["time"] for event in events]
