"""Whoever takes the events of a stream, and however, gets each of them once, in order, and its end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Conductor, GraphOrchestrator, RunStream
from jotty.testing import VirtualClock

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
ENOUGH = 10_000
MOVES = ["take", "take", "give up soon", "give up late", "sleep", "turn"]


def chain(clock: VirtualClock, waits: list[int]) -> RunStream[Any]:
    """Return the stream of a chain, of which each node waits: not at all, for a turn, or for seconds."""
    actors = []
    for at, seconds in enumerate(waits):

        async def wait(seconds: int = seconds) -> None:
            if seconds:
                await (checkpoint() if seconds == 1 else clock.sleep(seconds - 1))

        space: dict[str, Any] = {"wait": wait}
        source = f"async def call({f'n{at - 1}' if at else ''}):\n    await wait()\n    return {at}"
        exec(source, space)  # noqa: S102 - its parameter's name is given
        actors.append(Actor(name=f"n{at}", call=space["call"]))
    return GraphOrchestrator(Conductor(actors, clock=clock)).run_stream("goal", max_iterations=ENOUGH)


@BACKENDS
@settings(max_examples=60, deadline=None)
@given(
    waits=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    moves=st.lists(
        st.sampled_from(["take", "take", "give up soon", "give up late", "sleep", "turn"]), max_size=40
    ),
)
def test_each_event_comes_once_and_in_order_however_it_is_taken(
    waits: list[int], moves: list[str], backend: str
) -> None:
    async def main() -> None:
        clock = VirtualClock()
        seen: list[int] = []
        ends = 0

        async def take(stream: RunStream[Any]) -> None:
            nonlocal ends
            try:
                event = await anext(stream)
            except StopAsyncIteration:
                ends += 1
            else:
                assert not ends
                seen.append(event["seq"])

        async with clock.autojump(), chain(clock, waits) as stream:
            for move in moves:
                if move == "take":
                    await take(stream)
                elif move == "turn":
                    await checkpoint()
                elif move == "sleep":
                    await clock.sleep(1)
                else:
                    with clock.timeout(0.5 if move == "give up soon" else 2):
                        await take(stream)
            while not ends:
                await take(stream)
            await take(stream)
            assert len(waits) - 1 == (await stream.result())["final_output"]
        assert list(range(1, 2 * len(waits) + 3)) == seen

    anyio.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("turns", range(12))
def test_who_is_cancelled_as_an_event_comes_loses_none(turns: int, backend: str) -> None:
    """The consumer is cancelled at any turn around the one in which the event is put."""

    async def main() -> None:
        clock = VirtualClock()
        stream = chain(clock, [1] * 5)
        seen: list[int] = []

        async def consume() -> None:
            async for event in stream:
                seen.append(event["seq"])  # noqa: PERF401 - as it comes

        async with stream:
            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                for _ in range(turns):
                    await checkpoint()
                group.cancel_scope.cancel()
            await consume()
        assert list(range(1, 13)) == seen

    anyio.run(main, backend=backend)


@BACKENDS
def test_what_nobody_takes_is_kept_and_taken_at_once(backend: str) -> None:
    async def main() -> None:
        stream = chain(VirtualClock(), [0] * 500)
        async with stream:
            first = await anext(stream)
            result = await stream.result()
            seqs = [first["seq"], *[event["seq"] async for event in stream]]
            assert list(range(1, 2 * 500 + 3)) == seqs
            assert 499 == result["final_output"]
            assert [] == [event async for event in stream]

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_consumer_that_waits_sees_an_event_before_the_next_wait_of_the_run(backend: str) -> None:
    """It is woken for each, not only by the end."""

    async def main() -> None:
        clock = VirtualClock()
        seen: list[tuple[str, float]] = []
        start = clock.now()
        async with clock.autojump(), chain(clock, [3] * 4) as stream:
            async for event in stream:
                seen.append((event["type"], (clock.now() - start) / 10**6))  # noqa: PERF401 - as it comes
        assert [0, 2, 4, 6] == [at for kind, at in seen if kind == "agent_start"]
        assert [2, 4, 6, 8] == [at for kind, at in seen if kind == "agent_complete"]

    anyio.run(main, backend=backend)


@BACKENDS
def test_who_waits_ends_when_somebody_else_closes(backend: str) -> None:
    async def main() -> None:
        clock = VirtualClock()
        stream = chain(clock, [2])
        seen: list[str] = []

        async def consume() -> None:
            async for event in stream:
                seen.append(event["type"])  # noqa: PERF401 - as it comes

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                for _ in range(20):
                    await checkpoint()
                await stream.aclose()
        assert ["workflow_start", "agent_start"] == seen[:2]
        assert not {"workflow_complete", "workflow_error"} & set(seen)

    anyio.run(main, backend=backend)
