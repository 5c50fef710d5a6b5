"""What an actor spawns while it runs: handles and calls."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Actor, Goto, Output, actor
from jotty.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.core.orchestration import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Watch, Watched

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


@actor(on_demand=True)
async def search(query: str, depth: int = 1) -> str:
    return f"{query}/{depth}"


@actor(on_demand=True)
async def fail(text: str = "broken") -> str:
    raise ValueError(text)


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


# Handles


async def test_a_handle_gives_its_output_as_often_as_it_is_awaited(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        handle = ctx.spawn("search", query="a")
        return await handle, await handle

    run = await watch(search, plan)

    assert ("a/1", "a/1") == run.output
    assert ["plan", "plan/search[a]"] == run.path


async def test_a_handle_may_be_awaited_by_several_parts_of_its_actor_at_once(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        found = []
        handle = ctx.spawn(sleeper(clock), seconds=2)

        async def wait() -> None:
            found.append(await handle)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
        return found

    run = await watch(plan, settings={"max_parallel": 1}, timeout=LONG)

    assert [2, 2, 2] == run.output


async def test_what_is_spawned_runs_beside_its_spawner_and_with_the_others(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        handles = [ctx.spawn(sleeper(clock), seconds=seconds) for seconds in (3, 1, 2)]
        await clock.sleep(1)
        return [await handle for handle in handles]

    run = await watch(plan)

    assert [3, 1, 2] == run.output
    assert {"plan": 0, "plan/sleep[3]": 0, "plan/sleep[1]": 0, "plan/sleep[2]": 0} == times(run)
    assert 3 == times(run, "agent_complete")["plan"]


async def test_a_spawner_settles_after_all_that_it_has_spawned(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> str:
        ctx.spawn(sleeper(clock), seconds=5)
        return "plan"

    @actor
    async def write(plan: str) -> str:
        return plan

    run = await watch(plan, write)

    assert "plan" == run.output
    assert 5 == times(run)["write"]
    assert ["plan/sleep[5]", "plan", "write"] == [event["agent"] for event in run.told("agent_complete")]


async def test_after_orders_without_giving_anything(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        sleep = sleeper(clock)
        first = ctx.spawn(sleep, seconds=3)
        second = ctx.spawn(sleep, seconds=2, after=[first])
        third = ctx.spawn(sleep, seconds=1, after=(each for each in (first, second)))
        return await third

    run = await watch(plan)

    assert 1 == run.output
    assert {"plan": 0, "plan/sleep[3]": 0, "plan/sleep[2]": 3, "plan/sleep[1]": 5} == times(run)


async def test_after_a_failure_that_is_continued_from_others_run(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.spawn("search", query="a", after=[ctx.spawn("fail")])

    run = await watch(fail, search, plan, settings={"on_error": "continue"})

    assert "a/1" == run.output


async def test_a_handle_among_the_inputs_stands_for_its_output(watch: Watch, clock: VirtualClock) -> None:
    @actor(on_demand=True)
    async def add(left: float, right: float) -> float:
        return left + right

    @actor
    async def plan(ctx: ActorContext) -> Any:
        sleep = sleeper(clock)
        both = ctx.spawn("add", left=ctx.spawn(sleep, seconds=2), right=ctx.spawn(sleep, seconds=3))
        return await ctx.call("add", key="sum", left=both, right=10)

    run = await watch(add, plan)

    assert 15 == run.output
    assert 3 == min(at for agent, at in times(run).items() if "add" in agent)


async def test_handles_in_lists_tuples_and_dicts_stand_for_their_outputs(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(on_demand=True)
    async def same(value: Any) -> Any:
        return value

    @actor
    async def plan(ctx: ActorContext) -> Any:
        one, two = (ctx.spawn(sleeper(clock), seconds=seconds) for seconds in (1, 2))
        given = [[one, two, "x"], (two, ctx.spawn("fail")), {"one": one, "rest": 5}, [[0], {"deep": 1}]]
        return await ctx.map("same", given)

    run = await watch(fail, same, plan, settings={"on_error": "continue"}, timeout=LONG)

    assert [[1, 2, "x"], (2, None), {"one": 1, "rest": 5}, [[0], {"deep": 1}]] == run.output
    assert 8 == len(set(run.path))


async def test_an_absent_input_skips_who_needs_it_and_leaves_others_their_default(watch: Watch) -> None:
    @actor(on_demand=True)
    async def need(given: str) -> str:
        return given

    @actor(on_demand=True)
    async def use(given: str = "default", **more: Any) -> Any:
        return given, more

    @actor
    async def plan(ctx: ActorContext) -> Any:
        absent = ctx.spawn("fail")
        skipped = ctx.spawn("need", given=absent)
        return await skipped, await ctx.spawn("use", given=skipped, more=absent), await absent

    run = await watch(fail, need, use, plan, settings={"on_error": "continue"})

    assert (None, ("default", {}), None) == run.output
    assert ["'plan/fail[1]' is absent"] == [event["reason"] for event in run.told("agent_skipped")]
    assert run.result
    assert ["plan/fail[1]"] == [error["agent"] for error in run.result["errors"]]


async def test_a_handle_shows_who_it_is_and_how_it_stands(watch: Watch) -> None:
    seen = []

    @actor
    async def plan(ctx: ActorContext) -> None:
        handle = ctx.spawn("search", query="a")
        seen.extend([handle.agent, handle.key, handle.is_settled, repr(handle)])
        await handle
        seen.extend([handle.is_settled, repr(handle)])

    await watch(search, plan)

    assert [
        "plan/search[a]",
        "a",
        False,
        "<Handle of 'plan/search[a]': waits or runs>",
        True,
        "<Handle of 'plan/search[a]': output>",
    ] == seen


# Keys


async def test_keys_tell_what_is_spawned_apart(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        handles = [
            ctx.spawn("search", query="same"),
            ctx.spawn("search", query="same"),
            ctx.spawn("search", query="same", key="own"),
            ctx.spawn("search", query="with/slash"),
            ctx.spawn("search", query="q", depth=2),
        ]
        return [handle.key for handle in handles], [await handle for handle in handles]

    run = await watch(search, plan)
    keys, outputs = run.output

    assert ["same", "same#2", "own", "with/slash"] == keys[:4]
    assert ["same/1", "same/1", "same/1", "with/slash/1", "q/2"] == outputs
    assert {"plan/search[with%2Fslash]", "plan/search[own]"} <= set(run.path)


async def test_a_key_made_of_inputs_depends_on_nothing_else(watch: Watch) -> None:
    keys: list[set[str]] = []

    @actor
    async def plan(ctx: ActorContext, order: list[int]) -> None:
        keys.append({ctx.spawn("search", query=f"q{at}", depth=at).key for at in order})

    for order in ([1, 2, 3], [3, 1, 2]):
        await watch(search, plan, context={"order": order})

    assert keys[0] == keys[1]
    assert 3 == len(keys[0])


async def test_whatever_python_holds_may_be_an_input(watch: Watch) -> None:
    ring: list[Any] = []
    ring.append(ring)
    values = [object(), float("nan"), {1, 2}, {1: 2}, "\ud800", 2**80, ring, b"bytes", "x" * 1000, None, True]

    @actor(on_demand=True)
    async def same(value: Any) -> Any:
        return value

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return [await ctx.spawn("same", value=value) for value in values]

    run = await watch(same, plan)

    assert all(given is got for given, got in zip(values, run.output, strict=True))
    assert len(values) == len(set(run.path)) - 1


@pytest.mark.parametrize("key", ["", 5, "\ud800"])
async def test_a_key_must_be_a_text(watch: Watch, key: Any) -> None:
    @actor
    async def plan(ctx: ActorContext) -> None:
        ctx.spawn("search", key=key, query="a")

    run = await watch(search, plan)

    assert ValueError is type(run.error)


async def test_a_key_can_be_used_once_an_actor_and_attempt(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        first = await ctx.call("search", key="k", query="a")
        with pytest.raises(ValueError, match="'k' already"):
            ctx.spawn("search", key="k", query="b")
        with pytest.raises(ValueError, match="'k' already"):
            await ctx.call("search", key="k", query="b")
        return first, await ctx.call("fail", key="k")

    run = await watch(search, fail, plan, settings={"on_error": "continue"}, timeout=LONG)

    assert ("a/1", None) == run.output


async def test_keys_that_look_escaped_are_keys_of_their_own(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        handles = [ctx.spawn("search", key=key, query=key) for key in ("a/b", "a%2Fb")]
        return [await handle for handle in handles]

    run = await watch(search, plan, timeout=LONG)

    assert ["a/b/1", "a%2Fb/1"] == run.output


# Whom


async def test_actors_are_spawned_by_name_as_they_are_or_as_functions(watch: Watch) -> None:
    async def shout(text: str) -> str:
        return text.upper()

    def plain(text: str) -> str:
        return f"<{text}>"

    async def stream(text: str) -> AsyncIterator[str]:
        yield text
        yield "!"

    class Agent:
        name = "agent"

        async def run(self, prompt: str) -> str:
            return f"agent: {prompt}"

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return [
            await ctx.call("search", query="a"),
            await ctx.call(search, query="b"),
            await ctx.call(shout, text="c"),
            await ctx.call(plain, text="d"),
            await ctx.call(stream, text="e"),
            await ctx.call(Agent(), goal="f"),
            await ctx.call(actor(lambda x: x + 1, name="next"), x=1),
        ]

    run = await watch(search, plan)

    assert ["a/1", "b/1", "C", "<d>", "e!", "agent: f", 2] == run.output
    assert ["e", "!"] == [event["text"] for event in run.told("text_chunk")]
    assert {"plan/stream[e]"} == {event["agent"] for event in run.told("text_chunk")}
    assert {"plan": run.output} == run.outputs


async def test_of_what_runs_on_demand_nothing_runs_unless_it_is_spawned(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("search", query="a")

    run = await watch(search, fail, plan)

    assert "a/1" == run.output
    assert ["plan", "plan/search[a]"] == run.path


async def test_a_condition_is_not_asked_of_what_is_spawned(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def never() -> str:
        return "spawned"

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("never")

    run = await watch(never, plan)

    assert {"plan": "spawned"} == run.outputs


async def test_what_is_spawned_binds_what_its_spawner_descends_from(watch: Watch) -> None:
    @actor
    async def facts() -> str:
        return "facts"

    @actor
    async def other() -> str:
        return "other"

    @actor(on_demand=True)
    async def write(
        facts: str,
        goal: str,
        tone: str,
        http: str,
        ctx: ActorContext,
        other: str = "not bound",
        topic: str = "",
    ) -> Any:
        return facts, goal, tone, http, ctx.agent, other, topic

    @actor(depends_on=["facts"])
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("write", topic="t"), await ctx.call("write", facts="own", goal="own", topic="u")

    run = await watch(
        facts,
        other,
        write,
        plan,
        context={"tone": "dry"},
        resources={"http": "client"},
        settings={"output": "plan"},
    )
    first, second = run.output

    assert ("facts", "goal", "dry", "client") == first[:4]
    assert ("own", "own", "dry", "client") == second[:4]
    assert ("not bound", "t") == first[5:]
    assert first[4] in run.path


async def test_an_input_may_be_left_out_only_if_something_provides_it(watch: Watch) -> None:
    told = []

    @actor
    async def plan(ctx: ActorContext) -> None:
        tried: list[tuple[str, dict[str, Any]]] = [
            ("nobody", {}),
            ("search", {"quarry": "a"}),
            ("search", {}),
        ]
        for name, inputs in tried:
            try:
                ctx.spawn(name, **inputs)
            except GraphError as exc:
                told.append(str(exc))

    run = await watch(search, plan, timeout=LONG)

    assert run.error is None
    unknown, unneeded, missing = told
    assert "There is no actor 'nobody'. There are: search, plan." == unknown
    assert "Actor 'search' is given 'quarry', which it does not take. It takes: depth, query." in unneeded
    assert "Actor 'search' needs 'query', which nothing provides here. Give it query=..." == missing


@pytest.mark.parametrize("after", [[1], ["plan/search[a]"], [None]])
async def test_after_takes_nothing_but_handles(watch: Watch, after: Any) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        with pytest.raises(TypeError):
            ctx.spawn("search", query="a", after=after)
        return await ctx.call("search", query="a")

    run = await watch(search, plan, timeout=LONG)

    assert "a/1" == run.output


async def test_what_cannot_be_run_cannot_be_spawned(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> None:
        ctx.spawn(5)

    run = await watch(plan)

    assert TypeError is type(run.error)


async def test_spawned_actors_spawn_in_turn_and_their_names_tell_by_whom(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(on_demand=True)
    async def tree(ctx: ActorContext, depth: int) -> int:
        await clock.sleep(1)
        return 1 + sum(await ctx.map("tree", [depth - 1] * 2)) if depth else 1

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("tree", depth=3)

    run = await watch(tree, plan, settings={"max_parallel": 1}, timeout=LONG)

    assert 15 == run.output
    assert 16 == len(set(run.path)) == len(run.path)
    assert "plan/tree[3]/tree[2#2]/tree[1]/tree[0#2]" in run.path


async def test_spawned_actors_see_the_variables_of_the_run_and_not_each_others(watch: Watch) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("ada")

    async def who(own: str) -> str:
        found = user.get()
        user.set(own)
        return found

    @actor
    async def plan(ctx: ActorContext) -> Any:
        user.set("plan")
        return [*(await ctx.map(who, ["x", "y"])), await ctx.call(who, own="z"), user.get()]

    run = await watch(plan)

    assert ["ada", "ada", "ada", "plan"] == run.output


# Calls


async def test_a_call_gives_the_output_or_raises_the_failure(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        with pytest.raises(ValueError, match="broken") as caught:
            await ctx.call("fail")
        return await ctx.call("search", query="a"), caught.value.__notes__

    run = await watch(search, fail, plan, run_id="r")

    assert ("a/1", ["Raised by actor 'plan/fail[1]', attempt 1, of run r."]) == run.output
    assert run.result
    assert run.result["success"]


async def test_a_failure_that_is_not_caught_fails_the_caller_with_the_same_exception(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("fail", key="a/b")

    run = await watch(fail, plan, run_id="r")

    assert "ValueError('broken')" == repr(run.error)
    assert [
        "Raised by actor 'plan/fail[a/b]', attempt 1, of run r.",
        "Raised by actor 'plan', attempt 1, of run r.",
    ] == getattr(run.error, "__notes__", [])
    assert ["plan/fail[a%2Fb]", "plan"] == [event["agent"] for event in run.told("agent_error")]


async def test_a_failure_that_nobody_awaits_fails_its_spawner_when_that_ends(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor
    async def plan(ctx: ActorContext) -> str:
        ctx.spawn("fail")
        ctx.spawn(sleeper(clock), seconds=3)
        await clock.sleep(1)
        return "plan"

    run = await watch(fail, plan)

    assert "ValueError('broken')" == repr(run.error)
    assert 3 == times(run, "agent_error")["plan"]


async def test_what_is_spawned_has_its_own_attempts_and_policies(watch: Watch) -> None:
    tries = []

    @actor(on_demand=True, retries=2, backoff=1)
    async def flaky(text: str) -> str:
        tries.append(text)
        if len(tries) < 3:
            raise ValueError(text)
        return text

    @actor(on_demand=True, on_error="continue")
    async def hopeless() -> None:
        raise ValueError

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("flaky", text="a"), await ctx.call("hopeless")

    run = await watch(flaky, hopeless, plan)

    assert ("a", None) == run.output
    assert [1, 2] == [event["attempt"] for event in run.told("agent_retry")]
    assert run.result
    assert ["plan/hopeless[1]"] == [error["agent"] for error in run.result["errors"]]
    assert not run.result["success"]


async def test_an_attempt_that_fails_takes_with_it_what_it_has_spawned(
    watch: Watch, clock: VirtualClock
) -> None:
    log = []

    async def slow(name: str) -> str:
        try:
            await clock.sleep(50)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(2)
            log.append(f"{name} ended")
        return name

    @actor(retries=1, backoff=0)
    async def plan(ctx: ActorContext) -> Any:
        log.append(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            ctx.spawn(slow, name="a")
            ctx.spawn(slow, name="b")
            await clock.sleep(1)
            raise ValueError
        return await ctx.call(slow, name="a")

    run = await watch(plan)

    assert ["attempt 1", "a ended", "b ended", "attempt 2", "a ended"] == [
        *log[:1],
        *sorted(log[1:3]),
        *log[3:],
    ]
    assert "a" == run.output
    assert ["agent_start", "agent_cancelled", "agent_start", "agent_complete"] == run.story("plan/slow[a]")


async def test_what_had_not_begun_when_its_spawner_fails_never_begins(watch: Watch) -> None:
    log = []

    async def pay() -> None:
        log.append("paid")

    @actor(on_error="continue")
    async def plan(ctx: ActorContext) -> None:
        ctx.spawn(pay)
        ctx.spawn(pay)
        raise ValueError

    run = await watch(plan)

    assert [] == log
    assert ["plan"] == run.path


async def test_nothing_is_spawned_by_an_attempt_that_is_over(watch: Watch) -> None:
    kept: list[Any] = []

    @actor
    async def plan(ctx: ActorContext) -> None:
        kept.append(ctx)

    @actor
    async def write(plan: None) -> str:
        with pytest.raises(RuntimeError, match="its attempt is over"):
            await kept[0].call("search", query="a")
        with pytest.raises(RuntimeError, match="its attempt is over"):
            await kept[0].map("search", ["a"])
        with pytest.raises(RuntimeError, match="its attempt is over"):
            await kept[0].ask("Well?")
        with pytest.raises(RuntimeError, match="its attempt is over"):
            kept[0].spawn("search", query="a")
        return "refused"

    run = await watch(search, plan, write)

    assert "refused" == run.output


async def test_an_actor_in_a_thread_spawns_nothing(watch: Watch) -> None:
    @actor
    def plan(ctx: ActorContext) -> None:
        ctx.spawn("search", query="a")

    run = await watch(search, plan)

    assert RuntimeError is type(run.error)


# Outcomes


async def test_what_is_spawned_is_never_a_sink_and_its_output_is_nobody_elses(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> str:
        await ctx.map("search", ["a", "b"])
        return "plan"

    run = await watch(search, plan)

    assert "plan" == run.output
    assert {"plan": "plan"} == run.outputs
    assert run.result
    assert 3 == run.result["metadata"]["iterations"]
    assert {"plan", "plan/search[a]", "plan/search[b]"} == set(run.result["metadata"]["timings"]["actors"])


async def test_a_stream_may_spawn_and_end_with_an_output(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> AsyncIterator[Any]:
        yield "one "
        yield await ctx.call("search", query="two")
        yield Output(await ctx.map("search", ["a"]))

    run = await watch(search, plan)

    assert ["a/1"] == run.output
    assert ["one ", "two/1"] == [event["text"] for event in run.told("text_chunk")]


async def test_a_second_round_spawns_anew(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext, query: str = "first") -> Any:
        return await ctx.call("search", query=query, key="k")

    @actor
    async def review(plan: str) -> Any:
        return Goto("plan", query="second") if plan == "first/1" else plan

    run = await watch(search, plan, review)

    assert "second/1" == run.output
    assert 2 == run.path.count("plan/search[k]")


async def test_events_say_how_much_is_finished_and_known(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> None:
        await ctx.map("same", ["a", "b"], limit=1)

    @actor(depends_on=["plan"])
    async def write() -> None: ...

    @actor(when=lambda: False)
    async def same(text: str = "") -> str:
        return text

    run = await watch(same, plan, write)
    told = run.told("agent_complete", "agent_skipped")

    assert ["same", "plan/same[a]", "plan/same[b]", "plan", "write"] == [event["agent"] for event in told]
    assert [(1, 3), (2, 4), (3, 5), (4, 5), (5, 5)] == [(each["finished"], each["known"]) for each in told]


async def test_what_was_cancelled_is_known_no_more(watch: Watch, clock: VirtualClock) -> None:
    @actor(retries=1, backoff=0)
    async def plan(ctx: ActorContext) -> None:
        if ctx.attempt == 1:
            ctx.spawn(sleeper(clock), seconds=5)
            await clock.sleep(1)
            raise ValueError
        await ctx.map(sleeper(clock), [1, 2])

    run = await watch(plan)
    last = run.told("agent_complete")[-1]

    assert last["known"] == last["finished"]


# What asyncio's own tools do with it


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_handles_and_calls_may_be_gathered(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        sleep = sleeper(clock)
        handles = [ctx.spawn(sleep, seconds=seconds) for seconds in (3, 1)]
        return [
            *await asyncio.gather(*handles),
            *await asyncio.gather(*(ctx.call(sleep, seconds=n) for n in (2, 4))),
        ]

    run = await watch(plan, settings={"max_parallel": 1}, timeout=LONG)

    assert [3, 1, 2, 4] == run.output


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_gathered_call_that_fails_ends_the_others(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await asyncio.gather(ctx.call(sleeper(clock), seconds=100), ctx.call("fail"))

    run = await watch(fail, plan)

    assert ValueError is type(run.error)
    assert 0 == times(run, "agent_error")["plan"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_gathered_calls_are_cancelled_as_others_are(watch: Watch, clock: VirtualClock) -> None:
    @actor(retries=3, backoff=1)
    async def slow(at: int) -> None:
        await clock.sleep(100)

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await asyncio.gather(*(ctx.call(slow, at=at) for at in (1, 2)))

    run = await watch(plan, timeout=5)

    assert TimeoutError is type(run.error)
    assert [] == run.told("agent_retry", "agent_error")
    assert ["agent_start", "agent_cancelled"] == run.story("plan/slow[1]")


async def test_actors_may_call_each_other_deeper_than_one_stack(watch: Watch) -> None:
    @actor(on_demand=True)
    async def count(ctx: ActorContext, left: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 1 + await ctx.call("count", left=left - 1) if left else 0

    @actor
    async def start(ctx: ActorContext) -> int:
        return await ctx.call("count", left=400)  # type: ignore[no-any-return]

    run = await watch(count, start, max_iterations=1000)

    assert run.output == 400
