"""Questions that actors ask while somebody waits for the run: `on_ask`, and the answers of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import (
    Actor,
    Conductor,
    Goto,
    GraphOrchestrator,
    Question,
    RunStream,
    WorkflowMode,
    actor,
)
from jotty.errors import InputRequired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.core.orchestration import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio

LONG = 1_000  # seconds after which a run that hangs is given up


@actor
async def decide(ctx: ActorContext) -> Any:
    return await ctx.ask("Go on?")


def asking(*, name: str = "decide", **asked: Any) -> Actor[..., Any]:
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Go on?", **asked)

    return actor(ask, name=name)


def stream_of(clock: VirtualClock, *actors: Any, **settings: Any) -> RunStream[Any]:
    return GraphOrchestrator(Conductor(actors, clock=clock, **settings)).run_stream("goal", timeout=LONG)


async def until(stream: RunStream[Any], type: str, **fields: Any) -> Any:  # noqa: A002  # an event's type
    """Take events until one is of this type and has these fields."""
    async for event in stream:
        if event["type"] == type and fields.items() <= event.items():
            return event
    raise AssertionError(f"no {type}")


# on_ask


async def test_on_ask_is_given_the_question_and_its_answer_is_returned(
    watch: Watch, clock: VirtualClock
) -> None:
    asked = []
    start = clock.now()

    def answer(question: Question) -> str:
        asked.append(question)
        return "yes"

    run = await watch(asking(key="k", options=["yes", "no"], timeout=60), on_ask=answer)

    assert "yes" == run.output
    assert [
        Question(key="k", agent="decide", question="Go on?", options=["yes", "no"], until=start + 60_000_000)
    ] == asked
    (told,) = run.told("input_required")
    assert {"agent": "decide", "attempt": 1, "key": "k", "question": "Go on?", "options": ["yes", "no"]} == {
        name: told[name] for name in ("agent", "attempt", "key", "question", "options")
    }


@pytest.mark.parametrize("value", [None, "", 0, ["a"], object()])
async def test_on_ask_may_be_async_and_answer_anything(watch: Watch, clock: VirtualClock, value: Any) -> None:
    async def answer(_: Question) -> Any:
        await clock.sleep(3)
        return value

    run = await watch(decide, on_ask=answer)

    assert value is run.output


async def test_a_workflow_passes_on_ask_on(clock: VirtualClock) -> None:
    workflow = WorkflowMode(Conductor([decide], clock=clock))
    result = await workflow.execute("goal", on_ask=lambda question: f"to {question.key}")

    assert "to decide" == result["final_output"]


async def test_a_conductor_has_its_questions_answered_by_on_ask(clock: VirtualClock) -> None:
    @actor
    async def confirm(ctx: ActorContext, year: int) -> Any:
        return f"{await ctx.ask('Go on?')} in {year}"

    result = await Conductor([confirm], clock=clock).run("goal", year=2026, on_ask={"confirm": "yes"})

    assert "yes in 2026" == result["final_output"]


@pytest.mark.parametrize("on_ask", ["yes", 3, ["yes"]])
async def test_what_cannot_answer_is_refused_at_once(clock: VirtualClock, on_ask: Any) -> None:
    with pytest.raises(TypeError, match="on_ask must be a function of a Question, or a mapping"):
        await Conductor([decide], clock=clock).run("goal", on_ask=on_ask)


async def test_without_anybody_to_answer_the_question_is_an_error_and_not_retried(watch: Watch) -> None:
    @actor(retries=3, backoff=1)
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Go on?", key="k")

    run = await watch(ask)

    assert isinstance(run.error, InputRequired)
    assert ("k", "Go on?") == (run.error.key, run.error.question)
    assert [] == run.told("agent_retry", "input_required")


async def test_what_on_ask_raises_fails_the_actor_which_may_ask_again(watch: Watch) -> None:
    asked = []

    @actor(retries=1, backoff=1)
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Go on?")

    def answer(question: Question) -> str:
        asked.append(question.key)
        if len(asked) == 1:
            raise KeyError("nobody at home")
        return "yes"

    run = await watch(ask, on_ask=answer)

    assert "yes" == run.output
    assert ["ask", "ask"] == asked
    assert 1 == len(run.told("input_required"))


async def test_an_answer_that_is_none_of_the_options_is_refused(watch: Watch) -> None:
    run = await watch(asking(options=["yes", "no"]), on_ask=lambda _: "maybe")

    assert "ValueError(\"'maybe' is no answer to 'decide'. The options are: 'yes', 'no'.\")" == repr(
        run.error
    )


async def test_questions_of_several_actors_are_open_at_once(watch: Watch, clock: VirtualClock) -> None:
    async def answer(question: Question) -> str:
        await clock.sleep(2)
        return question.agent

    run = await watch(asking(name="a"), asking(name="b"), asking(name="c", key="own"), on_ask=answer)

    assert {"a": "a", "b": "b", "c": "c"} == run.output
    assert {"a", "b", "own"} == {event["key"] for event in run.told("input_required")}
    assert 2 == run.events[-1]["time"] - run.events[0]["time"]


async def test_two_who_ask_under_one_key_at_once_are_told_apart(watch: Watch, clock: VirtualClock) -> None:
    async def answer(_: Question) -> str:
        await clock.sleep(2)
        return "yes"

    run = await watch(asking(name="a", key="k"), asking(name="b", key="k"), on_ask=answer)

    assert ValueError is type(run.error)
    assert "Give each question a key of its own" in str(run.error)


async def test_an_answer_holds_for_who_asks_under_its_key_later(watch: Watch) -> None:
    asked = []

    @actor
    async def again(ctx: ActorContext, decide: str) -> Any:
        return decide, await ctx.ask("Go on?", key="k")

    def answer(question: Question) -> int:
        asked.append(question)
        return len(asked)

    run = await watch(asking(key="k"), again, on_ask=answer)

    assert (1, 1) == run.output
    assert 1 == len(asked) == len(run.told("input_required"))


async def test_an_actor_that_asks_twice_is_answered_twice(watch: Watch) -> None:
    asked = []

    @actor(retries=1, backoff=0)
    async def tidy(ctx: ActorContext) -> Any:
        said = [await ctx.ask("Send the letter?"), await ctx.ask("Delete all drafts?")]
        if ctx.attempt == 1:
            raise ConnectionError
        return said

    def answer(question: Question) -> str:
        asked.append((question.key, question.question))
        return "yes" if question.question.startswith("Send") else "no"

    run = await watch(tidy, on_ask=answer)

    assert ["yes", "no"] == run.output
    assert [("tidy", "Send the letter?"), ("tidy.2", "Delete all drafts?")] == asked


async def test_an_actor_that_asks_again_and_again_is_answered_each_time(watch: Watch) -> None:
    answers = iter(["yes", "yes", "no"])

    @actor
    async def more(ctx: ActorContext) -> int:
        count = 0
        while await ctx.ask("One more?") == "yes":
            count += 1
        return count

    assert (await watch(more, on_ask=lambda _: next(answers))).output == 2


async def test_an_actor_cannot_ask_twice_under_one_key(watch: Watch) -> None:
    @actor
    async def tidy(ctx: ActorContext) -> Any:
        return [await ctx.ask("Send?", key="k"), await ctx.ask("Delete?", key="k")]

    run = await watch(tidy, on_ask=lambda _: "yes")

    assert "'tidy' has asked under the key 'k' already. Give each question its own key." == str(run.error)


async def test_an_answer_to_one_is_none_to_another_who_asks_something_else_under_its_key(
    watch: Watch,
) -> None:
    async def decide(ctx: ActorContext, item: str) -> Any:
        return await ctx.ask(f"Delete {item}?", key="delete")

    @actor
    async def tidy(ctx: ActorContext) -> Any:
        return await ctx.map(decide, ["a", "b"], limit=1)

    run = await watch(tidy, on_ask=lambda _: "yes")

    assert type(run.error) is ValueError
    assert "Give each question a key of its own" in str(run.error)


async def test_an_answer_to_another_actor_must_be_one_of_the_options_too(watch: Watch) -> None:
    @actor
    async def again(ctx: ActorContext, decide: str) -> Any:
        return await ctx.ask("Go on?", key="k", options=["yes", "no"])

    run = await watch(asking(key="k"), again, on_ask=lambda _: "maybe")

    assert ValueError is type(run.error)
    assert {"decide": "maybe"} == run.events[-1]["result"]["actor_outputs"]


async def test_each_round_of_a_loop_asks_anew(watch: Watch) -> None:
    answers = iter(["no", "no", "yes"])
    asked = []

    @actor
    async def write(goal: str, feedback: str = "") -> str:
        return goal + feedback

    @actor
    async def review(ctx: ActorContext, write: str) -> Any:
        answer = await ctx.ask(f"Is {write} good?")
        return write if answer == "yes" else Goto("write", feedback=answer)

    def answer(question: Question) -> str:
        asked.append((question.key, question.question))
        return next(answers)

    run = await watch(write, review, on_ask=answer)

    assert "goalno" == run.output
    assert [
        ("review", "Is goal good?"),
        ("review#2", "Is goalno good?"),
        ("review#3", "Is goalno good?"),
    ] == asked


async def test_each_round_asks_anew_also_by_those_that_are_spawned_or_within(watch: Watch) -> None:
    answers = iter(["no", "no", "no", "yes", "yes", "yes"])
    asked = []

    @actor
    async def draft() -> str:
        return "text"

    @actor
    async def review(ctx: ActorContext, draft: str, inner: str) -> Any:
        found = [await ctx.ask("?"), await ctx.call(asking(name="other")), inner]
        return found if "no" not in found else Goto("draft")

    def answer(question: Question) -> str:
        asked.append(question.key)
        return next(answers)

    inner = actor(Conductor([decide], name="inner"), depends_on=["draft"])
    run = await watch(draft, inner, review, on_ask=answer, max_iterations=12)

    assert ["yes", "yes", "yes"] == run.output
    assert ["inner/decide", "review", "review/other[1]"] == asked[:3]
    assert 6 == len(set(asked))


@pytest.mark.parametrize("key", ["", 5, "x" * 10_000])
async def test_a_wrong_key_is_refused(watch: Watch, key: Any) -> None:
    run = await watch(asking(key=key), on_ask=lambda _: "yes")

    assert isinstance(run.error, (ValueError, TypeError))
    assert [] == run.told("input_required")


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5"])
async def test_a_wrong_timeout_is_refused(watch: Watch, timeout: Any) -> None:
    run = await watch(asking(timeout=timeout), on_ask=lambda _: "yes")

    assert isinstance(run.error, (ValueError, TypeError))
    assert [] == run.told("input_required")


# Expiry


@pytest.mark.parametrize("default", [None, "later", 0])
async def test_a_question_that_expires_has_its_default(
    watch: Watch, clock: VirtualClock, default: Any
) -> None:
    cancelled = []

    async def answer(_: Question) -> None:
        try:
            await clock.sleep(100)
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    run = await watch(asking(timeout=5, default=default), on_ask=answer)

    assert default is run.output
    assert run.result
    assert run.result["success"]
    assert 5 == run.events[-1]["time"] - run.events[0]["time"]
    assert [True] == cancelled


async def test_where_nobody_can_answer_a_question_with_a_default_has_it_at_once(watch: Watch) -> None:
    ask = asking(timeout=5, default="later")
    runs = [
        await watch(ask),
        await watch(ask, on_ask={"another question": "yes"}),
        await watch(asking(timeout=5), on_ask={}),
        await watch(asking(default="later"), on_ask={}),
    ]

    assert ["later", "later"] == [run.output for run in runs[:2]]
    assert [InputRequired, InputRequired] == [type(run.error) for run in runs[2:]]
    assert {0.0} == {run.events[-1]["time"] - run.events[0]["time"] for run in runs}


async def test_a_question_that_expires_without_a_default_is_a_timeout_error(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(retries=1, backoff=0)
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Go on?", timeout=5)

    async def answer(_: Question) -> None:
        await clock.sleep(100)

    run = await watch(ask, on_ask=answer)

    assert "TimeoutError(\"Nobody has answered the question 'ask' in time.\")" == repr(run.error)
    assert 5 == run.events[-1]["time"] - run.events[0]["time"]
    assert 1 == len(run.told("input_required"))


async def test_an_expiry_is_counted_from_the_first_time_that_it_is_asked(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(retries=1, backoff=1, timeout=20)
    async def ask(ctx: ActorContext) -> Any:
        with clock.timeout(4 if ctx.attempt == 1 else None) as scope:
            return await ctx.ask("Go on?", timeout=10, default="expired")
        assert scope.cancelled_caught
        raise ValueError

    async def answer(_: Question) -> None:
        await clock.sleep(100)

    run = await watch(ask, on_ask=answer)

    assert "expired" == run.output
    assert 10 == run.events[-1]["time"] - run.events[0]["time"]


# Streams


async def test_a_stream_is_answered_by_the_key_of_its_event(clock: VirtualClock) -> None:
    async with clock.autojump(), stream_of(clock, decide) as stream:
        event = await until(stream, "input_required")
        stream.answer(event["key"], "yes")
        result = await stream.result()

    assert "yes" == result["final_output"]
    assert {"question": "Go on?", "options": None, "agent": "decide"}.items() <= event.items()


async def test_other_actors_go_on_while_a_stream_waits_for_its_answer(clock: VirtualClock) -> None:
    async def work() -> str:
        await clock.sleep(5)
        return "worked"

    @actor
    async def after(work: str) -> str:
        return work

    async with clock.autojump():
        stream = stream_of(clock, decide, work, after, max_parallel=1)
        async with stream:
            await until(stream, "agent_complete", agent="after")
            stream.answer("decide", "yes")
            result = await stream.result()

    assert {"decide": "yes", "after": "worked"} == result["final_output"]


async def test_questions_are_answered_in_any_order(clock: VirtualClock) -> None:
    async with clock.autojump(), stream_of(clock, *(asking(name=name) for name in "abc")) as stream:
        keys = {(await until(stream, "input_required"))["key"] for _ in range(3)}
        for key in "cab":
            stream.answer(key, key.upper())
            assert key == (await until(stream, "agent_complete"))["agent"]
        result = await stream.result()

    assert {"a", "b", "c"} == keys
    assert {"a": "A", "b": "B", "c": "C"} == result["final_output"]


async def test_a_wrong_answer_is_refused_and_the_question_stays_open(clock: VirtualClock) -> None:
    async with clock.autojump(), stream_of(clock, asking(options=["yes", "no"])) as stream:
        await until(stream, "input_required")
        with pytest.raises(ValueError, match="is no answer to 'decide'"):
            stream.answer("decide", "maybe")
        with pytest.raises(ValueError, match=r"No question waits under the key 'other'.*: decide\."):
            stream.answer("other", "yes")
        stream.answer("decide", "no")
        with pytest.raises(ValueError, match="'decide'"):
            stream.answer("decide", "yes")
        result = await stream.result()

    assert "no" == result["final_output"]


async def test_what_is_not_asked_is_not_answered(clock: VirtualClock) -> None:
    async with clock.autojump():
        stream = stream_of(clock, decide)
        with pytest.raises(RuntimeError):
            stream.answer("decide", "too early")
        async with stream:
            started = await until(stream, "workflow_start")
            await until(stream, "input_required")
            stream.answer("decide", "yes")
            await stream.result()
            with pytest.raises(RuntimeError):
                stream.answer("decide", "too late")

    assert started
    with pytest.raises(RuntimeError):
        stream.answer("decide", "closed")


async def test_a_closed_stream_leaves_its_questions_and_runs_nothing(clock: VirtualClock) -> None:
    ended = []

    @actor
    async def ask(ctx: ActorContext) -> None:
        try:
            await ctx.ask("?")
        finally:
            ended.append("ask")

    async with clock.autojump(), stream_of(clock, ask) as stream:
        await until(stream, "input_required")

    assert ["ask"] == ended


async def test_on_ask_answers_the_questions_of_a_stream_that_has_one(clock: VirtualClock) -> None:
    workflow = WorkflowMode(Conductor([decide], clock=clock))
    async with clock.autojump(), workflow.execute_stream("goal", on_ask=lambda _: "yes") as stream:
        kinds = [event["type"] async for event in stream]
        result = await stream.result()

    assert "yes" == result["final_output"]
    assert "input_required" in kinds


async def test_a_goto_takes_back_a_question_and_asks_it_anew(clock: VirtualClock) -> None:
    rounds = []

    @actor
    async def plan(ctx: ActorContext) -> Any:
        rounds.append(ctx.round)
        return await ctx.ask("?")

    @actor
    async def change() -> Any:
        await clock.sleep(1)
        return Goto("plan") if len(rounds) == 1 else "changed"

    async with clock.autojump(), stream_of(clock, plan, change) as stream:
        await until(stream, "input_required", key="plan")
        event = await until(stream, "input_required")
        with pytest.raises(ValueError, match="'plan'"):
            stream.answer("plan", "too late")
        stream.answer(event["key"], "yes")
        result = await stream.result()

    assert "plan#2" == event["key"]
    assert "yes" == result["actor_outputs"]["plan"]


async def test_those_within_and_those_spawned_ask_in_the_stream(clock: VirtualClock) -> None:
    @actor
    async def plan(ctx: ActorContext) -> Any:
        return await ctx.call(asking(name="one"))

    @actor
    async def chunks(ctx: ActorContext) -> AsyncIterator[str]:
        yield "asked: "
        yield await ctx.ask("?")

    async with clock.autojump():
        stream = stream_of(clock, plan, chunks, actor(Conductor([decide], name="inner")), max_parallel=1)
        async with stream:
            keys = sorted([(await until(stream, "input_required"))["key"] for _ in range(3)])
            for key in keys:
                stream.answer(key, f"{key}!")
            result = await stream.result()

    assert ["chunks", "inner/decide", "plan/one[1]"] == keys
    assert {
        "plan": "plan/one[1]!",
        "chunks": "asked: chunks!",
        "inner": "inner/decide!",
    } == result["final_output"]
