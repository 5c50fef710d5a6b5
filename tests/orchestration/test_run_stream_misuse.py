"""A stream has one consumer: who is the second at once is told so, and nobody waits for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Conductor, GraphOrchestrator, RunStream, actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.testing import VirtualClock

pytestmark = pytest.mark.anyio

STORY = ["workflow_start", "agent_start", *["text_chunk"] * 5, "agent_complete", "workflow_complete"]


@pytest.fixture
def stream(clock: VirtualClock) -> RunStream[Any]:
    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for number in range(5):
            await clock.sleep(1)
            yield f"{goal} {number}"

    return GraphOrchestrator(Conductor([talk], clock=clock)).run_stream("goal")


async def test_the_second_of_two_consumers_at_once_is_told_and_the_first_gets_every_event(
    clock: VirtualClock, stream: RunStream[Any]
) -> None:
    refused: list[str] = []
    taken: list[list[str]] = []

    async def consume() -> None:
        seen: list[str] = []
        try:
            seen.extend([event["type"] async for event in stream])
        except RuntimeError as error:
            refused.append(str(error))
        else:
            taken.append(seen)

    with anyio.fail_after(5):
        async with clock.autojump(), stream, anyio.create_task_group() as group:
            group.start_soon(consume)
            group.start_soon(consume)

    assert ["one consumer" in text for text in refused] == [True]
    assert taken == [STORY]


async def test_a_refused_consumer_takes_nothing_from_who_waits(
    clock: VirtualClock, stream: RunStream[Any]
) -> None:
    seen: list[str] = []

    async def consume() -> None:
        seen.extend([event["type"] async for event in stream])

    with anyio.fail_after(5):
        async with clock.autojump(), stream, anyio.create_task_group() as group:
            group.start_soon(consume)
            for _ in range(4):
                await clock.sleep(1.1)
                with pytest.raises(RuntimeError, match="one consumer"):
                    await anext(stream)

    assert seen == STORY


async def test_a_consumer_may_hand_the_stream_on_to_the_next(
    clock: VirtualClock, stream: RunStream[Any]
) -> None:
    seen: list[str] = []

    async def take_two() -> None:
        for _ in range(2):
            seen.append((await anext(stream))["type"])  # noqa: PERF401 - one after the other is the point

    async with clock.autojump(), stream:
        for _ in range(4):
            async with anyio.create_task_group() as group:
                group.start_soon(take_two)
        seen.extend([event["type"] async for event in stream])

    assert seen == STORY


async def test_who_gave_up_waiting_may_wait_again(clock: VirtualClock, stream: RunStream[Any]) -> None:
    seen: list[str] = []
    gave_up = 0

    with anyio.fail_after(5):
        async with clock.autojump(), stream:
            while "workflow_complete" not in seen:
                with clock.timeout(0.4) as scope:
                    seen.append((await anext(stream))["type"])
                gave_up += scope.cancelled_caught

    assert seen == STORY
    assert gave_up >= 5


async def test_after_its_end_a_stream_ends_for_everybody(clock: VirtualClock, stream: RunStream[Any]) -> None:
    async with clock.autojump(), stream:
        assert [event["type"] async for event in stream] == STORY
        for _ in range(2):
            assert [event async for event in stream] == []
