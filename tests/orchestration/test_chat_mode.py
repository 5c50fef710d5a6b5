from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.orchestration import ChatMessage, ChatMode, Conductor, End, Goto, actor
from jotty.errors import GraphError
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@actor
async def plan(goal: str) -> AsyncIterator[str]:
    yield "I think "
    yield f"of {goal}"


@actor
async def reply(plan: str, ctx: Any) -> AsyncIterator[str]:
    ctx.tool_call("look", {"at": plan})
    ctx.tool_result("look", 1)
    yield "You said "
    yield plan.removeprefix("I think of ")


def short(event: Any) -> Any:
    rest = event.get("text") or event.get("tool") or event.get("agent") or event["message"].content
    return event["type"], rest


async def told(chat: ChatMode, message: Any = "hi", history: Any = (), context: Any = None) -> list[Any]:
    async with chat.stream(message, history, context) as stream:
        return [event async for event in stream]


async def test_the_output_actors_speak_and_the_others_reason() -> None:
    events = await told(ChatMode(Conductor([plan, reply])))

    assert [
        ("agent_selected", "plan"),
        ("reasoning", "I think "),
        ("reasoning", "of hi"),
        ("agent_selected", "reply"),
        ("tool_call", "look"),
        ("tool_result", "look"),
        ("text_chunk", "You said "),
        ("text_chunk", "hi"),
        ("done", "You said hi"),
    ] == [short(event) for event in events]
    assert list(range(1, 10)) == [event["seq"] for event in events]
    assert 1 == len({event["run_id"] for event in events})


async def test_the_reply_is_a_message_of_the_conductors_time() -> None:
    clock = VirtualClock()
    message = await ChatMode(Conductor([plan, reply], clock=clock)).send("hi")

    assert ChatMessage("assistant", "You said hi", datetime.fromtimestamp(clock.now() / 1e6, UTC)) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hello", "hello"),
        ({"a": "ü"}, '{"a": "ü"}'),
        (None, ""),
        (NEW_YEAR, '"2026-01-01 00:00:00+00:00"'),
    ],
)
async def test_a_reply_that_did_not_stream_is_one_chunk(value: Any, text: str) -> None:
    @actor
    async def answer(goal: str) -> Any:
        return value

    events = await told(ChatMode(Conductor([answer])))

    assert [text] * bool(text) == [event["text"] for event in events if event["type"] == "text_chunk"]
    assert text == events[-1]["message"].content


async def test_the_conductors_output_says_who_speaks() -> None:
    events = await told(ChatMode(Conductor([plan, reply], output="plan")))
    texts = {
        event["agent"]: event["type"] for event in events if event["type"] in ("text_chunk", "reasoning")
    }

    assert {"plan": "text_chunk", "reply": "reasoning"} == texts
    assert "I think of hi" == events[-1]["message"].content


async def test_several_speakers_make_one_message() -> None:
    @actor
    async def also(goal: str) -> str:
        return "Also."

    message = await ChatMode(Conductor([plan, reply, also], output=["reply", "also"])).send("hi")

    assert "You said hi\n\nAlso." == message.content


async def test_an_end_is_the_reply() -> None:
    @actor
    async def refuse(goal: str) -> End:
        return End("No.")

    @actor
    async def never(refuse: str) -> str:
        return refuse

    events = await told(ChatMode(Conductor([refuse, never])))

    assert [("agent_selected", "refuse"), ("text_chunk", "No."), ("done", "No.")] == [
        short(event) for event in events
    ]


async def test_only_the_chunks_of_the_last_round_make_a_reply_streamed() -> None:
    @actor
    async def answer(goal: str, again: int = 0) -> AsyncIterator[Any]:
        if again:
            yield End("whole")
        else:
            yield "part"
            yield Goto("answer", again=1)

    events = await told(ChatMode(Conductor([answer])))

    assert ["part", "whole"] == [event["text"] for event in events if event["type"] == "text_chunk"]


async def test_actors_see_the_history() -> None:
    @actor
    async def answer(goal: str, history: Any, mood: str) -> str:
        return f"{[each.content for each in history]} {goal} {mood}"

    before: list[Any] = [ChatMessage("user", "one"), {"role": "assistant", "content": "two"}]
    message = await ChatMode(Conductor([answer])).send(ChatMessage("user", "three"), before, {"mood": "good"})

    assert "['one', 'two'] three good" == message.content


async def test_an_agent_can_be_the_only_entry() -> None:
    @actor(on_demand=True)
    async def billing(goal: str, plan: str = "") -> str:
        return f"billing {goal}{plan}"

    @actor
    async def sign(billing: str = "nobody") -> str:
        return f"{billing}, signed"

    conductor = Conductor([plan, billing, sign])

    assert "billing hi, signed" == (await ChatMode(conductor, agent_id="billing").send("hi")).content


@pytest.mark.parametrize(("agent_id", "said"), [("nobody", "no actor here"), ("reply", "it needs 'plan'")])
async def test_an_agent_that_can_not_be_the_entry_is_refused(agent_id: str, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        ChatMode(Conductor([plan, reply]), agent_id=agent_id)


async def test_a_static_chat_ends_with_whoever_came_last() -> None:
    @actor(when=lambda: False)
    async def never() -> str:
        return "never"

    events = await told(ChatMode(Conductor([plan, never]), mode="static"))

    assert "I think of hi" == events[-1]["message"].content
    assert ["I think of hi"] == [event["text"] for event in events if event["type"] == "text_chunk"]


async def test_nothing_to_say_is_an_empty_reply() -> None:
    @actor(when=lambda: False)
    async def never() -> str:
        return "never"

    for mode in ("static", "dynamic"):
        assert "" == (await ChatMode(Conductor([never]), mode=mode).send("hi")).content


async def test_nothing_is_retried_after_a_chunk() -> None:
    tries = []

    @actor(retries=3, backoff=0)
    async def breaks(ctx: Any) -> None:
        tries.append(ctx.attempt)
        if ctx.attempt == 2:
            ctx.text("part")
        raise ValueError("no")

    events = await told(ChatMode(Conductor([breaks])))

    assert [1, 2] == tries
    assert ("done", None, "ValueError") == (
        events[-1]["type"],
        events[-1]["message"],
        events[-1]["error"]["type"],
    )
    with pytest.raises(ValueError, match="no"):
        await ChatMode(Conductor([breaks])).send("hi")


@pytest.mark.parametrize("history", [["text"], [{"role": "user"}], [3]])
async def test_a_history_of_anything_else_is_refused(history: Any) -> None:
    with pytest.raises(TypeError, match="The history holds"):
        ChatMode(Conductor([plan])).stream("hi", history)


def test_a_message_has_a_time_with_a_zone() -> None:
    before = datetime.now(UTC)
    message = ChatMessage("user", "hi")

    assert before <= message.created_at <= datetime.now(UTC)
    with pytest.raises(ValueError, match="time zone"):
        ChatMessage("user", "hi", datetime(2026, 1, 1))  # noqa: DTZ001  # which is the point
    with pytest.raises(TypeError):
        ChatMessage("user", 3)  # type: ignore[arg-type]  # which is the point
