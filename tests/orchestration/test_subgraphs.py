"""Conductors as actors of others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Conductor, End, Goto, Resource, actor, result_of
from jotty.errors import GraphError, MaxIterationsExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.core.orchestration import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


class Broken(Exception):
    """What fails here."""


@actor
async def outline(goal: str, facts: str = "no facts") -> str:
    return f"{goal}: {facts}"


@actor
async def draft(outline: str) -> str:
    return f"[{outline}]"


def report(*actors: Any, **settings: Any) -> Conductor:
    return Conductor(actors or (outline, draft), name="report", **settings)


async def test_its_output_is_that_of_its_sinks_and_its_events_stand_under_its_name(watch: Watch) -> None:
    @actor
    async def facts() -> str:
        return "facts"

    @actor
    async def publish(report: str) -> str:
        return report.upper()

    run = await watch(facts, actor(report()), publish, goal="g")

    assert {"facts": "facts", "report": "[g: facts]", "publish": "[G: FACTS]"} == run.outputs
    assert ["facts", "report", "report/outline", "report/draft", "publish"] == run.path
    assert ["agent_start", "agent_complete"] == run.story("report/draft")
    assert run.result
    assert 5 == run.result["metadata"]["iterations"]
    assert run.path == run.result["metadata"]["path"]
    assert 1 == len(run.told("workflow_start")) == len(run.told("workflow_complete"))


async def test_its_events_come_between_its_start_and_its_end(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def slow(ctx: ActorContext) -> None:
        ctx.text("chunk")
        ctx.usage(model="m", input_tokens=3)
        await clock.sleep(3)

    run = await watch(actor(report(slow, outline)), outline)

    assert [
        "report agent_start",
        "report/slow agent_start",
        "report/slow text_chunk",
        "report/slow agent_complete",
        "report agent_complete",
    ] == run.story("report", "report/slow")
    assert run.result
    assert 3 == run.result["metadata"]["usage"]["input_tokens"]
    assert {"report": 3, "report/slow": 3, "report/outline": 0, "outline": 0} == run.result["metadata"][
        "timings"
    ]["actors"]


async def test_it_takes_what_its_actors_need_and_nothing_within_gives(watch: Watch) -> None:
    @actor
    async def write(goal: str, tone: str, http: str, source: str, extra: int = 1) -> Any:
        return goal, tone, http, source, extra

    @actor
    async def origin() -> str:
        return "origin"

    inner = actor(report(write), bind={"source": "origin", "goal": "topic"})
    run = await watch(
        origin, inner, context={"tone": "dry", "topic": "t", "extra": 2}, resources={"http": "client"}
    )

    assert ("t", "dry", "client", "origin", 2) == run.output


async def test_what_it_lacks_is_a_graph_error_before_anything_runs(watch: Watch) -> None:
    @actor
    async def write(tone: str) -> str:
        return tone

    run = await watch(outline, actor(report(write)))

    assert isinstance(run.error, GraphError)
    assert "The parameter 'tone' of actor 'report' can't be bound." in str(run.error)
    assert [] == run.events


async def test_its_actors_do_not_see_those_around_it(watch: Watch) -> None:
    @actor
    async def facts() -> str:
        return "outer"

    @actor(name="facts")
    async def own_facts() -> str:
        return "inner"

    run = await watch(facts, actor(report(own_facts, outline)), goal="g")

    assert {"facts": "outer", "report": "g: inner"} == run.outputs


async def test_it_may_stand_in_static_order_and_under_other_names(watch: Watch) -> None:
    @actor
    async def publish(second: str = "", first: str = "") -> Any:
        return first, second

    actors = [actor(report(), name="first"), publish, actor(report(), name="second", bind={"facts": "first"})]
    run = await watch(*actors, goal="g", mode="static", order=["first", "second", "publish"])

    assert ("[g: no facts]", "[g: [g: no facts]]") == run.output
    assert ["first/outline", "second/outline"] == [each for each in run.path if "outline" in each]


async def test_a_goal_that_is_no_text_fails_it(watch: Watch) -> None:
    run = await watch(actor(report(), bind={"goal": "number"}), context={"number": 5})

    assert TypeError is type(run.error)


async def test_it_may_hold_others_in_turn(watch: Watch) -> None:
    middle = Conductor(
        [actor(report()), actor(report(), name="again", bind={"facts": "report"})], name="middle"
    )
    outer = Conductor([actor(middle)], name="outer")
    run = await watch(actor(outer), goal="g")

    assert "[g: [g: no facts]]" == run.output
    assert [
        "outer",
        "outer/middle",
        "outer/middle/report",
        "outer/middle/report/outline",
        "outer/middle/report/draft",
        "outer/middle/again",
        "outer/middle/again/outline",
        "outer/middle/again/draft",
    ] == run.path


async def test_several_outputs_are_a_dict_and_absent_ones_are_missing(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def never() -> None: ...

    @actor
    async def publish(report: dict[str, str]) -> Any:
        return sorted(report)

    run = await watch(actor(report(outline, draft, never, output=("outline", "draft", "never"))), publish)

    assert ["draft", "outline"] == run.output


# Failures


async def test_a_failure_within_is_raised_as_it_is_and_told_of_on_each_level(
    watch: Watch, clock: VirtualClock
) -> None:
    ended = []

    @actor
    async def fail() -> None:
        await clock.sleep(1)
        raise Broken("within")

    @actor
    async def slow() -> None:
        try:
            await clock.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(1)
            ended.append("slow")

    run = await watch(actor(report(fail, slow)), slow, run_id="r")

    assert isinstance(run.error, Broken)
    assert [
        "Raised by actor 'report/fail', attempt 1, of run r.",
        "Raised by actor 'report', attempt 1, of run r.",
    ] == run.error.__notes__
    assert ["report/fail", "report"] == [event["agent"] for event in run.told("agent_error")]
    assert ["slow", "slow"] == ended
    result = result_of(run.error)
    assert result
    assert ["report"] == [error["agent"] for error in result["errors"]]


async def test_a_failure_that_it_continues_from_is_listed_and_the_run_is_no_success(watch: Watch) -> None:
    @actor
    async def fail() -> None:
        raise Broken("within")

    @actor
    async def use(fail: str = "default") -> str:
        return fail

    run = await watch(actor(report(fail, use, on_error="continue")))

    assert "default" == run.output
    assert run.result
    assert ["report/fail"] == [error["agent"] for error in run.result["errors"]]
    assert not run.result["success"]


async def test_its_own_failure_may_be_continued_from(watch: Watch) -> None:
    @actor
    async def fail() -> None:
        raise Broken("within")

    @actor
    async def use(report: str = "default") -> str:
        return report

    run = await watch(actor(report(fail), on_error="continue"), use)

    assert "default" == run.output
    assert run.result
    assert ["report"] == [error["agent"] for error in run.result["errors"]]


async def test_another_attempt_runs_all_of_it_again(watch: Watch) -> None:
    tries = []

    @actor
    async def flaky(outline: str) -> str:
        tries.append(outline)
        if len(tries) == 1:
            raise Broken
        return outline

    run = await watch(actor(report(outline, flaky), retries=1, backoff=1))

    assert "goal: no facts" == run.output
    assert ["report", "report/outline", "report/flaky", "report/outline", "report/flaky"] == run.path
    assert run.result
    assert run.result["success"]
    assert [] == run.result["errors"]


async def test_its_timeout_holds_for_all_of_it(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def slow() -> None:
        await clock.sleep(100)

    run = await watch(actor(report(slow), timeout=5))

    assert TimeoutError is type(run.error)
    assert ["agent_start", "agent_cancelled"] == run.story("report/slow")
    assert 5 == run.events[-1]["time"] - run.events[0]["time"]


async def test_iterations_within_count_for_the_whole_run(watch: Watch) -> None:
    @actor
    async def again(draft: str) -> Any:
        return Goto("outline")

    run = await watch(actor(report(outline, draft, again)), max_iterations=8)

    assert isinstance(run.error, MaxIterationsExceeded)
    assert {"report": 1, "report/outline": 3, "report/draft": 2, "report/again": 2} == dict(run.error.counts)


# Routing


async def test_an_end_within_ends_what_is_within(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def end() -> Any:
        await clock.sleep(1)
        return End("early")

    @actor
    async def slow() -> str:
        await clock.sleep(5)
        return "slow"

    @actor
    async def publish(report: str, slow: str) -> Any:
        return report, slow

    run = await watch(actor(report(end, slow)), slow, publish)

    assert ("early", "slow") == run.output
    assert ["agent_start", "agent_cancelled"] == run.story("report/slow")


async def test_a_goto_within_goes_to_what_is_within(watch: Watch) -> None:
    @actor
    async def write(goal: str, feedback: str = "") -> str:
        return goal + feedback

    @actor
    async def review(write: str) -> Any:
        return write if "!" in write else Goto("write", feedback="!")

    @actor(name="write")
    async def outer_write() -> str:
        return "outer"

    run = await watch(actor(report(write, review)), outer_write, goal="g")

    assert {"report": "g!", "write": "outer"} == run.outputs
    told = [event for event in run.told("agent_complete") if event["kind"] == "goto"]
    assert ["report/write"] == [event["target"] for event in told]
    assert [["report/write", "report/review"]] == [event["reset"] for event in told]


async def test_a_goto_to_what_is_around_fails(watch: Watch) -> None:
    @actor
    async def go() -> Any:
        return Goto("outline")

    run = await watch(outline, actor(report(go)))

    assert GraphError is type(run.error)


async def test_a_goto_around_it_runs_it_again_from_the_start(watch: Watch, clock: VirtualClock) -> None:
    log = []

    @actor
    async def write(ctx: ActorContext, feedback: str = "") -> str:
        log.append(ctx.round)
        await clock.sleep(2)
        return f"text{feedback}"

    @actor
    async def review(report: str) -> Any:
        return report if report.endswith("!") else Goto("report", feedback="!")

    run = await watch(actor(report(write)), review)

    assert "text!" == run.output
    assert [0, 1] == [event["round"] for event in run.told("agent_start") if event["agent"] == "report"]
    assert 2 == run.path.count("report/write")


async def test_a_goto_around_it_cancels_and_awaits_all_that_is_within(
    watch: Watch, clock: VirtualClock
) -> None:
    log = []

    async def deep() -> None:
        try:
            await clock.sleep(50)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(3)
            log.append("deep ended")

    @actor
    async def write(ctx: ActorContext) -> str:
        if not log:
            await ctx.call(deep)
        log.append("written")
        return "text"

    @actor
    async def start() -> str:
        return "start"

    @actor
    async def change(start: str) -> Any:
        if log:
            return "changed"
        await clock.sleep(1)
        return Goto("report")

    run = await watch(start, actor(report(write), depends_on=["start"]), change)

    assert ["deep ended", "written"] == log
    assert run.result
    assert 4 == run.result["metadata"]["timings"]["seconds"]


# What is shared


async def test_its_resources_are_entered_for_it_and_left_with_it(watch: Watch, clock: VirtualClock) -> None:
    log = []

    @asynccontextmanager
    async def store() -> AsyncIterator[str]:
        log.append("entered")
        try:
            yield "store"
        finally:
            await clock.sleep(1)
            log.append("left")

    @actor
    async def use(store: str) -> str:
        log.append("used")
        return store

    @actor
    async def publish(report: str) -> str:
        log.append("published")
        return report

    run = await watch(actor(report(use, resources={"store": Resource(store, scope="run")})), publish)

    assert "store" == run.output
    assert ["entered", "used", "left", "published"] == log


async def test_a_failing_actor_within_resources_is_told_of_as_itself(watch: Watch) -> None:
    @asynccontextmanager
    async def store() -> AsyncIterator[str]:
        async with anyio.create_task_group():
            yield "store"

    @actor
    async def fail(store: str) -> str:
        raise Broken(store)

    run = await watch(actor(report(fail, resources={"store": store})))

    assert Broken is type(run.error)


async def test_one_conductor_may_run_in_several_places_at_once(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def slow(goal: str) -> str:
        await clock.sleep(2)
        return goal

    inner = report(slow)

    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.map(inner, ["x", "y"]), await ctx.call(inner, goal="z")

    run = await watch(actor(inner, name="left"), actor(inner, name="right"), plan, goal="g")

    assert {"left": "g", "right": "g", "plan": (["x", "y"], "z")} == run.outputs
    assert {"left/slow", "right/slow", "plan/report[x]/slow", "plan/report[y]/slow"} <= set(run.path)
    assert run.result
    assert 4 == run.result["metadata"]["timings"]["seconds"]


async def test_its_actors_spawn_their_own(watch: Watch) -> None:
    @actor(on_demand=True)
    async def search(query: str) -> str:
        return f"inner {query}"

    @actor
    async def plan(ctx: ActorContext, facts: str) -> Any:
        return await ctx.map("search", ["a", "b"]), ctx.agent

    @actor(name="search", on_demand=True)
    async def outer_search(query: str) -> str:
        return f"outer {query}"

    @actor
    async def facts(ctx: ActorContext) -> str:
        return str(await ctx.call("search", query="c"))

    run = await watch(actor(report(search, plan)), outer_search, facts)

    assert (["inner a", "inner b"], "report/plan") == run.outputs["report"]
    assert "outer c" == run.outputs["facts"]
    assert {"report/plan/search[a]", "facts/search[c]"} <= set(run.path)


async def test_on_demand_it_runs_when_it_is_asked_for(watch: Watch) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call("report", goal="asked")

    run = await watch(actor(report(), on_demand=True), plan)

    assert {"plan": "[asked: no facts]"} == run.outputs


async def test_a_condition_may_skip_it(watch: Watch) -> None:
    @actor
    async def publish(report: str = "nothing") -> str:
        return report

    run = await watch(actor(report(), when=lambda goal: False), publish)  # an actor's names

    assert "nothing" == run.output
    assert ["publish"] == run.path


async def test_its_history_and_run_are_those_around_it(watch: Watch) -> None:
    @actor
    async def look(ctx: ActorContext, history: Any) -> Any:
        return ctx.run_id, history, ctx.history, ctx.goal

    run = await watch(actor(report(look)), run_id="r", history=["said"], goal="g")

    assert ("r", ("said",), ("said",), "g") == run.output


async def test_progress_counts_what_is_within_once_it_is_known(watch: Watch) -> None:
    run = await watch(actor(report()), outline)
    told = [(event["finished"], event["known"]) for event in run.told("agent_complete")]

    assert sorted(told) == told
    assert (4, 4) == told[-1]


async def test_supplied_outputs_stand_for_it(watch: Watch) -> None:
    @actor
    async def publish(report: str) -> str:
        return report

    run = await watch(actor(report()), publish, outputs={"report": "supplied"})

    assert "supplied" == run.output
    assert ["publish"] == run.path
