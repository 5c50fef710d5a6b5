"""Streams: the run has a task of its own, and nothing is left running."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from jotty.core.orchestration import Conductor, Goto, GraphOrchestrator, RunStream, actor, result_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio


@actor
async def first(goal: str) -> str:
    return goal


@actor
async def second(first: str) -> str:
    return first + "!"


class Probe:
    """An actor that waits for ever, and says whether it has ended."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def actor(self) -> Any:
        @actor
        async def waits(goal: str) -> None:
            self.log.append("begun")
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
                self.log.append("ended")

        return waits


def stream_of(*actors: Any, **more: Any) -> RunStream[Any]:
    return GraphOrchestrator(Conductor(actors)).run_stream("goal", **more)


def tasks_now() -> int:
    """Count the tasks of this event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


async def test_a_stream_gives_all_events_and_then_the_result() -> None:
    async with stream_of(first, second) as stream:
        types = [event["type"] async for event in stream]
        result = await stream.result()

    assert [
        "workflow_start",
        *["agent_start", "agent_complete"] * 2,
        "workflow_complete",
    ] == types
    assert "goal!" == result["final_output"]
    assert result == await stream.result()


async def test_the_result_can_be_had_without_the_events_and_these_later() -> None:
    async with stream_of(first) as stream:
        assert "goal" == (await stream.result())["final_output"]
        assert 4 == len([event async for event in stream])


async def test_iteration_ends_without_raising_what_the_run_raises() -> None:
    @actor
    async def broken() -> None:
        raise ValueError("no")

    async with stream_of(broken) as stream:
        events = [event async for event in stream]
        with pytest.raises(ValueError, match="no") as caught:
            await stream.result()

    assert "workflow_error" == events[-1]["type"]
    assert result_of(caught.value) == events[-1]["result"]


async def test_the_context_manager_leaves_nothing_running_after_a_break() -> None:
    probe, before = Probe(), tasks_now()
    async with stream_of(probe.actor()) as stream:
        async for event in stream:
            if event["type"] == "agent_start":
                await anyio.wait_all_tasks_blocked()
                break

    assert ["begun", "ended"] == probe.log
    assert before == tasks_now()


async def test_the_context_manager_leaves_nothing_running_after_an_error() -> None:
    probe = Probe()

    async def break_off() -> None:
        async with stream_of(probe.actor()) as stream:
            await anext(stream)
            await anyio.wait_all_tasks_blocked()
            raise KeyError

    with pytest.raises(KeyError):
        await break_off()

    assert ["begun", "ended"] == probe.log


async def test_the_context_manager_leaves_nothing_running_when_its_caller_is_cancelled() -> None:
    probe = Probe()
    with anyio.CancelScope() as scope:
        async with stream_of(probe.actor()) as stream:
            async for event in stream:
                if event["type"] == "agent_start":
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()

    assert scope.cancelled_caught
    assert ["begun", "ended"] == probe.log


async def test_closing_ends_iteration_and_leaves_no_result() -> None:
    stream = stream_of(Probe().actor())
    assert "workflow_start" == (await anext(stream))["type"]
    await stream.aclose()
    await stream.aclose()

    assert [] == [event async for event in stream]
    with pytest.raises(RuntimeError, match="Take the result before closing it"):
        await stream.result()


async def test_closing_a_stream_that_has_not_begun_runs_nothing() -> None:
    probe = Probe()
    stream = stream_of(probe.actor())
    await stream.aclose()

    assert [] == [event async for event in stream]
    assert [] == probe.log
    with pytest.raises(RuntimeError):
        await stream.result()


async def test_the_result_stays_after_closing_a_run_that_is_over() -> None:
    stream = stream_of(first)
    await stream.result()
    await stream.aclose()

    assert "goal" == (await stream.result())["final_output"]


async def test_a_stream_that_is_dropped_cancels_its_run() -> None:
    probe, before = Probe(), tasks_now()
    stream = stream_of(probe.actor())
    while (await anext(stream))["type"] != "agent_start":
        pass
    await anyio.wait_all_tasks_blocked()
    del stream
    gc.collect()
    for _ in range(20):
        await checkpoint()

    assert ["begun", "ended"] == probe.log
    assert before == tasks_now()


async def test_whoever_waits_for_the_result_can_be_cancelled_without_the_run() -> None:
    go_on = anyio.Event()

    @actor
    async def waits() -> str:
        await go_on.wait()
        return "done"

    async with stream_of(waits) as stream:
        with anyio.move_on_after(0.001) as scope:
            await stream.result()
        go_on.set()
        result = await stream.result()

    assert scope.cancelled_caught
    assert "done" == result["final_output"]


async def test_the_run_sees_the_variables_of_whoever_asked_for_the_stream() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("ada")

    @actor
    async def who() -> str:
        return user.get()

    stream = stream_of(who)
    user.set("bob")

    async with stream:
        assert "ada" == (await stream.result())["final_output"]


async def test_no_cancel_scope_is_open_between_two_events() -> None:
    async def events_of(stream: RunStream[Any]) -> AsyncGenerator[Any, None]:
        async with stream:
            async for event in stream:
                yield event

    generator = events_of(stream_of(first, second))
    with anyio.move_on_after(10) as outer:
        await anext(generator)
    with anyio.CancelScope() as scope:
        await anext(generator)
        scope.cancel()
    await checkpoint()
    await generator.aclose()

    assert not outer.cancelled_caught
    assert not scope.cancelled_caught


async def test_a_wrong_graph_is_refused_when_the_stream_is_asked_for() -> None:
    from jotty.errors import GraphError

    with pytest.raises(GraphError):
        stream_of(second)


async def test_streams_of_one_conductor_do_not_mix() -> None:
    @actor
    async def echo(goal: str, ctx: Any) -> str:
        for _ in range(5):
            await checkpoint()
            ctx.text(goal)
        return goal

    orchestrator, heard = GraphOrchestrator(Conductor([echo])), dict[str, set[str]]()

    async def listen(goal: str) -> None:
        async with orchestrator.run_stream(goal) as stream:
            heard[goal] = {event["text"] async for event in stream if event["type"] == "text_chunk"}

    async with anyio.create_task_group() as group:
        for goal in "abc":
            group.start_soon(listen, goal)

    assert {"a": {"a"}, "b": {"b"}, "c": {"c"}} == heard


async def test_a_stream_may_loop_for_long_while_somebody_reads() -> None:
    @actor
    async def count(n: int = 0) -> Any:
        return Goto("count", n=n + 1) if n < 300 else n

    async with stream_of(count, max_iterations=1000) as stream:
        seqs = [event["seq"] async for event in stream]

    assert list(range(1, 301 * 2 + 3)) == seqs


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_host_task_that_is_cancelled_from_outside_ends_the_iteration(anyio_backend: str) -> None:
    probe = Probe()
    before = asyncio.all_tasks()
    stream = stream_of(probe.actor())
    await anext(stream)
    await anyio.wait_all_tasks_blocked()
    for task in asyncio.all_tasks() - before:
        task.cancel()

    assert "agent_cancelled" == [event["type"] async for event in stream][-1]
    assert ["begun", "ended"] == probe.log
    with pytest.raises(RuntimeError):
        await stream.result()
