"""How many executions go on at once: `max_parallel`, the limits of actors, and what their waits give up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty.core.orchestration import Actor, Conductor, Goto, GraphOrchestrator, Limit, actor

if TYPE_CHECKING:
    from jotty.core.orchestration import ActorContext, Question
    from jotty.testing import VirtualClock

    from .conftest import Watch, Watched

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


@attrs.define
class Gauge:
    """Counts who is at work, and how many were at most."""

    clock: VirtualClock
    now: int = 0
    most: int = 0

    async def work(self, seconds: float) -> float:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.clock.sleep(seconds)
        finally:
            self.now -= 1
        return seconds

    def worker(self, name: str, seconds: float, **options: Any) -> Actor[..., Any]:
        async def call() -> float:
            return await self.work(seconds)

        return actor(call, name=name, **options)


@pytest.fixture
def gauge(clock: VirtualClock) -> Gauge:
    return Gauge(clock)


def took(run: Watched) -> float:
    return float(round(run.events[-1]["time"] - run.events[0]["time"], 3))


# max_parallel


@pytest.mark.parametrize(("bound", "seconds"), [(1, 12), (2, 7), (3, 5), (None, 2)])
async def test_what_is_spawned_shares_the_bound_of_the_run(
    watch: Watch, gauge: Gauge, bound: int | None, seconds: float
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(gauge.work, [1] * 6)

    others = [gauge.worker(f"w{at}", 2) for at in range(3)]
    run = await watch(plan, *others, settings={"max_parallel": bound}, timeout=LONG)

    assert bound is None or bound >= gauge.most
    # trio starts in an order of its own what may start at one instant, and may pack it better
    assert seconds - 1 <= took(run) <= seconds


async def test_who_waits_for_others_leaves_its_place_to_them_however_deep(watch: Watch, gauge: Gauge) -> None:
    @actor(on_demand=True)
    async def tree(ctx: ActorContext, depth: int) -> int:
        await gauge.work(1)
        found = await ctx.map("tree", [depth - 1] * 2) if depth else []
        await gauge.work(1)
        return 1 + int(sum(found))

    @actor
    async def plan(ctx: ActorContext) -> Any:
        handle = ctx.spawn("tree", depth=2)
        called = await ctx.call("tree", depth=1)
        return called + await handle

    run = await watch(tree, plan, settings={"max_parallel": 1}, timeout=LONG)

    assert 10 == run.output
    assert 1 == gauge.most
    assert 20 == took(run)


@pytest.mark.parametrize("bound", [1, 2])
async def test_who_asks_leaves_its_place_to_others(
    watch: Watch, clock: VirtualClock, gauge: Gauge, bound: int
) -> None:
    @actor
    async def decide(ctx: ActorContext) -> Any:
        answer = await ctx.ask("Go on?")
        await gauge.work(1)
        return answer

    async def answer(_: Question) -> str:
        await clock.sleep(3)
        return "yes"

    others = [gauge.worker(f"w{at}", 2) for at in range(2)]
    run = await watch(
        decide, *others, settings={"max_parallel": bound, "output": "decide"}, on_ask=answer, timeout=LONG
    )

    assert "yes" == run.output
    assert bound >= gauge.most
    assert (5 if bound == 1 else 4) == took(run)


async def test_a_wait_that_is_over_waits_for_a_place(watch: Watch, gauge: Gauge) -> None:
    @actor
    async def plan(ctx: ActorContext) -> None:
        first, second = ctx.spawn(gauge.work, seconds=1), ctx.spawn(gauge.work, seconds=5)
        await first
        await gauge.work(1)
        await second

    run = await watch(plan, settings={"max_parallel": 1}, timeout=LONG)

    assert 1 == gauge.most
    assert 7 == took(run)


async def test_a_goto_leaves_no_place_taken(watch: Watch, gauge: Gauge, clock: VirtualClock) -> None:
    rounds = []

    @actor
    async def plan(ctx: ActorContext) -> None:
        rounds.append(ctx.round)
        handles = [ctx.spawn(gauge.work, key=f"k{at}", seconds=2) for at in range(4)]
        for handle in handles:
            await handle

    @actor
    async def change() -> Any:
        await clock.sleep(3)
        return Goto("plan") if len(rounds) == 1 else "changed"

    last = [gauge.worker(f"w{at}", 1) for at in range(3)]
    run = await watch(plan, change, *last, settings={"max_parallel": 2}, timeout=LONG)

    assert run.error is None
    assert [0, 1] == rounds
    assert 2 >= gauge.most


async def test_who_cuts_its_wait_short_takes_its_place_again(
    watch: Watch, gauge: Gauge, clock: VirtualClock
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> None:
        handle = ctx.spawn(clock.sleep, seconds=3)
        with clock.timeout(1):
            await handle
        await gauge.work(10)

    others = [gauge.worker(f"w{at}", 10) for at in range(3)]
    run = await watch(plan, *others, settings={"max_parallel": 1}, timeout=LONG)

    assert run.error is None
    # the place is counted at once, even beyond the bound, since nobody may wait in a scope that is cancelled
    assert 2 >= gauge.most
    assert 34 == took(run)


async def test_the_attempt_after_one_that_timed_out_in_a_wait_has_a_place(
    watch: Watch, gauge: Gauge, clock: VirtualClock
) -> None:
    @actor(timeout=1, retries=1, backoff=0)
    async def plan(ctx: ActorContext) -> None:
        if ctx.attempt == 1:
            await ctx.call(clock.sleep, seconds=3)
        await gauge.work(0.5)

    others = [gauge.worker(f"w{at}", 10) for at in range(2)]
    run = await watch(plan, *others, settings={"max_parallel": 1}, timeout=LONG)

    assert run.error is None
    assert 1 == gauge.most


@pytest.mark.parametrize(("bound", "seconds"), [(1, 8), (2, 4), (3, 3), (None, 2)])
async def test_the_bound_holds_for_runs_within(
    watch: Watch, gauge: Gauge, bound: int | None, seconds: float
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(gauge.work, [1] * 2)

    inner = Conductor([gauge.worker("i1", 2), gauge.worker("i2", 2), plan], name="inner")
    middle = Conductor([actor(inner), gauge.worker("m", 1)], name="middle")
    run = await watch(actor(middle), gauge.worker("outer", 1), settings={"max_parallel": bound}, timeout=LONG)

    assert run.error is None
    assert bound is None or bound >= gauge.most
    assert seconds == took(run)


async def test_the_bound_of_a_conductor_within_holds_for_itself(watch: Watch, gauge: Gauge) -> None:
    inner = Conductor([gauge.worker(f"i{at}", 1) for at in range(4)], name="inner", max_parallel=2)
    run = await watch(actor(inner), timeout=LONG)

    assert 2 == gauge.most
    assert 2 == took(run)


async def test_handles_in_a_list_deadlock_nothing(watch: Watch, gauge: Gauge) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call(add, parts=[ctx.spawn(gauge.work, seconds=n) for n in (1, 2)])

    async def add(parts: list[float]) -> float:
        return sum(parts)

    run = await watch(plan, settings={"max_parallel": 1}, timeout=LONG)

    assert 3 == run.output
    assert 1 == gauge.most


# Limits


@pytest.mark.parametrize("concurrent", [1, 2, 3])
async def test_a_limit_holds_for_all_that_share_it_spawned_or_not(
    watch: Watch, gauge: Gauge, concurrent: int
) -> None:
    limited = gauge.worker("limited", 1, limit="api", on_demand=True)

    @actor
    async def plan(ctx: ActorContext) -> Any:
        handles = [ctx.spawn("limited", key=f"k{at}") for at in range(4)]
        return [await handle for handle in handles]

    others = [gauge.worker(f"w{at}", 1, limit="api") for at in range(2)]
    run = await watch(
        plan, limited, *others, settings={"limits": {"api": Limit(concurrent=concurrent)}}, timeout=LONG
    )

    assert concurrent == gauge.most
    assert 6 / concurrent == took(run)


async def test_a_limit_per_minute_holds_for_what_is_spawned(watch: Watch, clock: VirtualClock) -> None:
    @actor(on_demand=True, limit="api")
    async def search(query: int) -> int:
        return query

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map("search", range(7))

    settings = {"limits": {"api": Limit(per_minute=3)}, "max_parallel": 1}
    run = await watch(search, plan, settings=settings)
    start = run.events[0]["time"]
    ends = [event["time"] - start for event in run.told("agent_complete")]

    assert list(range(7)) == run.output
    assert [0, 0, 0, 60, 60, 60, 120, 120] == ends


@pytest.mark.parametrize("max_parallel", [1, 2, None])
async def test_a_limited_actor_may_call_itself_through_others(
    watch: Watch, gauge: Gauge, max_parallel: int | None
) -> None:
    @actor(on_demand=True, limit="api")
    async def ask(ctx: ActorContext, depth: int) -> int:
        await gauge.work(1)
        found = await ctx.call("between", depth=depth - 1) if depth else 0
        await gauge.work(1)
        return int(found) + 1

    @actor(on_demand=True)
    async def between(ctx: ActorContext, depth: int) -> Any:
        return sum(await ctx.map("ask", [depth, depth]))

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("ask", depth=2)

    settings = {"limits": {"api": Limit(concurrent=1)}, "max_parallel": max_parallel}
    run = await watch(ask, between, plan, settings=settings, timeout=LONG)

    assert 7 == run.output
    assert 1 == gauge.most
    assert 14 == took(run)


async def test_who_waits_for_a_limit_leaves_its_place_to_others(watch: Watch, gauge: Gauge) -> None:
    actors = [gauge.worker("a", 5, limit="api"), gauge.worker("b", 5, limit="api"), gauge.worker("c", 5)]
    settings = {"limits": {"api": Limit(concurrent=1)}, "max_parallel": 2}
    run = await watch(*actors, settings=settings, timeout=LONG)

    assert 10 == took(run)
    assert 2 == gauge.most


async def test_two_limits_and_a_bound_deadlock_nothing(watch: Watch, gauge: Gauge) -> None:
    @actor(on_demand=True, limit="left")
    async def left(ctx: ActorContext, depth: int) -> None:
        await gauge.work(1)
        if depth:
            await ctx.map("right", [depth - 1] * 2)
        await gauge.work(1)

    @actor(on_demand=True, limit="right")
    async def right(ctx: ActorContext, depth: int) -> None:
        await gauge.work(1)
        if depth:
            await ctx.map("left", [depth - 1] * 2)
        await gauge.work(1)

    @actor
    async def plan(ctx: ActorContext) -> None:
        handles = [ctx.spawn(each, depth=3) for each in ("left", "right")]
        for handle in handles:
            await handle

    limits = {"left": Limit(concurrent=1), "right": Limit(concurrent=1)}
    run = await watch(left, right, plan, settings={"limits": limits, "max_parallel": 2}, timeout=LONG)

    assert run.error is None
    assert 2 == gauge.most


async def test_no_limit_is_kept_by_who_is_cancelled_before_it_has_a_place(clock: VirtualClock) -> None:
    made = [actor(_sleeping(clock, n), name=name, limit=limit) for n, name, limit in _FOUR]
    conductor = Conductor(made, clock=clock, max_parallel=2, limits={"api": Limit(concurrent=1)})
    orchestrator = GraphOrchestrator(conductor)
    async with clock.autojump():
        with pytest.raises(TimeoutError):
            await orchestrator.run("goal", timeout=50)
        result = await orchestrator.run("goal", timeout=LONG)

    assert result["success"]


async def test_no_limit_is_kept_by_who_cuts_its_wait_short(
    watch: Watch, clock: VirtualClock, gauge: Gauge
) -> None:
    @actor(limit="api")
    async def plan(ctx: ActorContext) -> None:
        handle = ctx.spawn(clock.sleep, seconds=5)
        with clock.timeout(1):
            await handle

    @actor(limit="api", depends_on=["plan"])
    async def write() -> str:
        return "written"

    run = await watch(plan, write, settings={"limits": {"api": Limit(concurrent=1)}}, timeout=LONG)

    assert "written" == run.output


async def test_a_limit_is_free_again_however_its_holder_ends(watch: Watch, clock: VirtualClock) -> None:
    @actor(on_demand=True, limit="api", on_error="continue")
    async def one(how: str) -> Any:
        await clock.sleep(1)
        if how == "fail":
            raise ValueError
        if how == "goto":
            return Goto("other")
        return how

    @actor(on_demand=True, limit="api", timeout=1)
    async def late() -> None:
        await clock.sleep(5)

    @actor(on_demand=True)
    async def other() -> str:
        return "other"

    @actor
    async def plan(ctx: ActorContext) -> Any:
        with clock.timeout(0.5):
            await ctx.call("one", how="cancelled")
        with pytest.raises(TimeoutError):
            await ctx.call("late")
        return [await ctx.call("one", how=how) for how in ("fail", "goto", "good")]

    settings = {"limits": {"api": Limit(concurrent=1)}, "output": "plan"}
    run = await watch(one, late, other, plan, settings=settings, timeout=LONG)

    assert [None, None, "good"] == run.output


# Timeouts of actors


async def test_a_timeout_does_not_count_the_wait_for_a_place_or_a_limit(watch: Watch, gauge: Gauge) -> None:
    actors = [gauge.worker(f"w{at}", 2, limit="api", timeout=3) for at in range(3)]
    others = [gauge.worker(f"o{at}", 2, timeout=3) for at in range(3)]
    settings = {"limits": {"api": Limit(concurrent=1)}, "max_parallel": 1}
    run = await watch(*actors, *others, settings=settings, timeout=LONG)

    assert run.error is None
    assert 12 == took(run)


async def test_a_timeout_does_not_count_the_wait_for_a_place_after_a_wait(
    watch: Watch, gauge: Gauge, clock: VirtualClock
) -> None:
    @actor(timeout=5)
    async def plan(ctx: ActorContext) -> str:
        first = ctx.spawn(gauge.work, seconds=2)
        await clock.sleep(1)
        for at in range(2):  # they stand in line before it
            ctx.spawn(gauge.work, key=f"long {at}", seconds=20)
        await first
        await clock.sleep(1)
        return "plan"

    run = await watch(plan, settings={"max_parallel": 2}, timeout=LONG)

    assert "plan" == run.output
    assert 22 == took(run)


async def test_a_timeout_counts_the_wait_for_who_was_called(watch: Watch, clock: VirtualClock) -> None:
    log = []

    async def slow() -> None:
        try:
            await clock.sleep(10)
        except anyio.get_cancelled_exc_class():
            log.append("cancelled")
            raise

    @actor(timeout=5)
    async def plan(ctx: ActorContext) -> None:
        await ctx.call(slow)

    run = await watch(plan)

    assert TimeoutError is type(run.error)
    assert ["cancelled"] == log
    assert 5 == took(run)
    assert ["agent_start", "agent_cancelled"] == run.story("plan/slow[1]")


async def test_a_timeout_does_not_count_the_wait_for_answers(watch: Watch, clock: VirtualClock) -> None:
    @actor(timeout=5)
    async def plan(ctx: ActorContext) -> Any:
        await clock.sleep(2)
        found = []

        async def ask(key: str) -> None:
            found.append(await ctx.ask("?", key=key))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "10")
            group.start_soon(ask, "20")
        await clock.sleep(2)
        found.append(await ctx.ask("?", key="30"))
        return found

    async def answer(question: Question) -> str:
        await clock.sleep(float(question.key))
        return question.key

    run = await watch(plan, on_ask=answer)

    assert ["10", "20", "30"] == run.output
    assert 54 == took(run)


async def test_time_goes_on_after_an_answer(watch: Watch, clock: VirtualClock) -> None:
    @actor(timeout=5)
    async def plan(ctx: ActorContext) -> None:
        await clock.sleep(2)
        await ctx.ask("?")
        await clock.sleep(4)

    async def answer(_: Question) -> str:
        await clock.sleep(100)
        return "yes"

    run = await watch(plan, on_ask=answer)

    assert TimeoutError is type(run.error)
    assert 105 == took(run)


async def test_a_timeout_does_not_count_what_is_spawned_and_not_awaited(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(timeout=5)
    async def plan(ctx: ActorContext) -> str:
        ctx.spawn(clock.sleep, seconds=100)
        return "plan"

    run = await watch(plan)

    assert "plan" == run.output
    assert 100 == took(run)


_FOUR = ((10, "a", "api"), (1, "b", "api"), (100, "c", None), (100, "d", None))


def _sleeping(clock: VirtualClock, seconds: float) -> Any:
    async def sleep() -> None:
        await clock.sleep(seconds)

    return sleep
