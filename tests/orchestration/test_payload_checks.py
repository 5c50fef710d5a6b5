"""`check_payloads`: in sync mode, too, outputs must be such as a queue can store, and arrive as from one."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.core.orchestration import Conductor, End, Goto, Output, WorkflowMode, actor
from jotty.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.core.orchestration import ActorContext, Result

pytestmark = pytest.mark.anyio


class Mood(enum.Enum):
    GOOD = "good"


@dataclass
class Fact:
    text: str
    found: dt.date


@attrs.frozen
class Note:
    facts: list[Fact]
    mood: Mood


async def checked(*actors: Any, check: bool = True, **options: Any) -> Result:
    workflow = WorkflowMode(Conductor(actors, **options), check_payloads=check)
    return await workflow.execute("goal")


async def refused(*actors: Any, **options: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        await checked(*actors, **options)
    return caught.value


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", float("nan"), "\ud800", 2**70, {1: "a"}, [{"deep": object()}]],
    ids=["object", "set", "bytes", "nan", "surrogate", "integer", "key", "deep"],
)
async def test_what_cannot_be_stored_fails_its_actor_by_name(value: Any) -> None:
    @actor
    async def make() -> Any:
        return value

    error = await refused(make)

    assert "make" in str(error)
    assert ["Raised by actor 'make', attempt 1, of run"] == [note[:41] for note in error.__notes__]
    assert value is (await checked(make, check=False))["final_output"]


async def test_it_is_not_retried_and_may_be_continued_from() -> None:
    tries = []

    @actor(retries=3, backoff=0)
    async def make() -> Any:
        tries.append(1)
        return object()

    @actor
    async def use(make: Any = "default") -> Any:
        return make

    result = await checked(make, use, on_error="continue")

    assert "default" == result["final_output"]
    assert [1] == tries
    assert ["make"] == [error["agent"] for error in result["errors"]]


async def test_others_are_given_what_they_would_be_after_a_restart() -> None:
    given: list[Any] = []
    note = Note([Fact("f", dt.date(2026, 1, 1))], Mood.GOOD)

    @actor
    async def make() -> Note:
        return note

    @actor
    async def pair() -> tuple[int, ...]:
        return (1, 2)

    @actor
    async def use(make: Note, pair: tuple[int, ...]) -> str:
        given.extend([make, pair])
        return "used"

    result = await checked(make, pair, use)

    assert [note, (1, 2)] == given
    assert note is not given[0]
    assert {"make": note, "pair": (1, 2), "use": "used"} == result["actor_outputs"]


async def test_without_an_annotation_json_is_given_on_as_it_is() -> None:
    made: dict[str, list[Any]] = {"list": [1, None, True, 1.5, "é\x00"]}

    @actor
    async def make():  # type: ignore[no-untyped-def] # noqa: ANN202  # that is the point
        return made

    result = await checked(make)

    assert made == result["final_output"]
    assert made is not result["final_output"]


async def test_outputs_of_what_is_spawned_and_within_are_checked() -> None:
    async def bad() -> Any:
        return object()

    async def fact(text: str) -> Fact:
        return Fact(text, dt.date(2026, 1, 1))

    @actor
    async def plan(ctx: ActorContext) -> Any:
        with pytest.raises(PayloadError, match="bad"):
            await ctx.call(bad)
        return [one.text for one in await ctx.map(fact, ["a", "b"])]

    inner = Conductor([actor(bad)], name="inner")

    assert ["a", "b"] == (await checked(plan))["final_output"]
    assert "inner/bad" in str((await refused(actor(inner))).__notes__)


async def test_a_conductor_within_gives_on_what_its_last_actor_makes() -> None:
    @actor
    async def make() -> Fact:
        return Fact("f", dt.date(2026, 1, 1))

    @actor
    async def use(inner: Fact) -> str:
        return inner.text

    assert "f" == (await checked(actor(Conductor([make], name="inner")), use))["final_output"]


async def fact() -> Fact:
    return Fact("f", dt.date(2026, 1, 1))


async def mood() -> Mood:
    return Mood.GOOD


async def plain() -> dict[str, int]:
    return {"fact": 1}


@pytest.mark.parametrize(
    ("actors", "expected"),
    [
        ([fact, mood], {"fact": Fact("f", dt.date(2026, 1, 1)), "mood": Mood.GOOD}),
        ([fact, plain], {"fact": Fact("f", dt.date(2026, 1, 1)), "plain": {"fact": 1}}),
        ([fact, actor(mood, when=lambda: False)], Fact("f", dt.date(2026, 1, 1))),
        ([plain, actor(fact, when=lambda: False)], {"fact": 1}),
        (
            [mood, actor(Conductor([fact, plain], name="deep"))],
            {"mood": Mood.GOOD, "deep": {"fact": Fact("f", dt.date(2026, 1, 1)), "plain": {"fact": 1}}},
        ),
    ],
)
async def test_a_conductor_within_gives_on_what_its_last_actors_make(actors: Any, expected: Any) -> None:
    @actor
    async def use(inner: Any) -> bool:
        return bool(inner == expected)

    result = await checked(actor(Conductor(actors, name="inner")), use)

    assert expected == result["actor_outputs"]["inner"]
    assert result["final_output"]


async def test_an_end_within_may_be_any_json_where_several_make_the_output() -> None:
    @actor
    async def ends(fact: Fact, mood: Mood) -> End:
        return End({"fact": [mood.value, fact.text]})

    inner = Conductor([fact, mood, ends, plain], name="inner")

    assert {"fact": ["good", "f"]} == (await checked(actor(inner)))["final_output"]


async def test_what_none_of_the_last_actors_is_annotated_with_is_refused() -> None:
    @actor
    async def other() -> Mood:
        return Note([], Mood.GOOD)  # type: ignore[return-value]  # which is the point

    assert "'other'" in str(await refused(actor(Conductor([fact, other], name="inner"))))


async def test_streams_and_explicit_outputs_are_checked() -> None:
    @actor
    async def words() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    @actor
    async def last() -> AsyncIterator[Any]:
        yield "chunk"
        yield Output(object())

    assert "ab" == (await checked(words))["final_output"]
    assert "last" in str(await refused(last))


async def test_an_end_is_checked() -> None:
    @actor
    async def end(how: str) -> Any:
        return End(object() if how == "bad" else [1])

    workflow = WorkflowMode(Conductor([end]), check_payloads=True)

    assert [1] == (await workflow.execute("goal", {"how": "good"}))["final_output"]
    with pytest.raises(PayloadError, match="end"):
        await workflow.execute("goal", {"how": "bad"})


async def test_the_inputs_of_a_goto_are_checked() -> None:
    @actor
    async def write(feedback: Any = None) -> Any:
        return feedback or "first"

    def review(value: Any) -> Any:
        @actor(name="review")
        async def look(write: Any) -> Any:
            return Goto("write", feedback=value) if write == "first" else write

        return look

    assert ["better"] == (await checked(write, review(["better"])))["final_output"]
    assert "review" in str(await refused(write, review(object())))


async def test_a_payload_that_is_too_large_is_refused() -> None:
    @actor
    async def make() -> str:
        return "x" * 2**21

    assert "make" in str(await refused(make))


@actor
async def ask(ctx: ActorContext) -> Any:
    return type(await ctx.ask("Which?", options=None, key="k")).__name__


async def test_an_answer_must_be_such_as_a_queue_can_store() -> None:
    workflow = WorkflowMode(Conductor([ask]), check_payloads=True)

    with pytest.raises(PayloadError, match="the answer to 'k'"):
        await workflow.execute("goal", on_ask={"k": object()})
    with pytest.raises(PayloadError, match="the answer to 'k'"):
        await workflow.execute("goal", on_ask=lambda _: "x" * 2**20)
    assert "list" == (await workflow.execute("goal", on_ask={"k": [1]}))["final_output"]
    unchecked = WorkflowMode(Conductor([ask]))
    assert "object" == (await unchecked.execute("goal", on_ask={"k": object()}))["final_output"]


async def test_a_refused_answer_leaves_the_question_of_a_stream_open() -> None:
    workflow = WorkflowMode(Conductor([ask]), check_payloads=True)
    async with workflow.execute_stream("goal") as stream:
        async for event in stream:
            if event["type"] == "input_required":
                with pytest.raises(PayloadError, match="the answer to 'k'"):
                    stream.answer("k", {1})
                stream.answer("k", 1)
        assert "int" == (await stream.result())["final_output"]
