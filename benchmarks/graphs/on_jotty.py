"""Graphs of actors, with and without anybody who listens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from benchmarks.graphs.shapes import Dag, Trial, added
from jotty import Actor, Conductor, Goto
from jotty.core.orchestration import GraphOrchestrator

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.graphs.shapes import Shape
    from jotty.core.orchestration import AnyActor

__all__ = ["GOAL", "actors_of", "alone", "orchestrator_of", "watched"]

GOAL: Final = "Generate the quarterly report"
ROOM: Final = 10
PARAMETERS: Final = "abc"


async def _none() -> int:
    return added()


async def _one(a: int) -> int:
    return added(a)


async def _two(a: int, b: int) -> int:
    return added(a, b)


async def _three(a: int, b: int, c: int) -> int:
    return added(a, b, c)


async def _all(**inputs: int) -> int:
    return added(*inputs.values())


async def alone(shape: Shape) -> Trial:
    """Run it with nobody listening."""
    orchestrator = orchestrator_of(shape)

    async def run() -> Any:
        result = await orchestrator.run(GOAL, max_iterations=len(shape) + ROOM)
        return _found(shape, result["final_output"])

    return Trial(run)


async def watched(shape: Shape) -> Trial:
    """Run it as a stream, take every event, and then the result."""
    orchestrator = orchestrator_of(shape)

    async def run() -> Any:
        events = 0
        async with orchestrator.run_stream(GOAL, max_iterations=len(shape) + ROOM) as stream:
            async for _ in stream:
                events += 1
            result = await stream.result()
        if events < 2 * len(shape):
            raise RuntimeError(f"{len(shape)} executions make more than {events} events")
        return _found(shape, result["final_output"])

    return Trial(run)


def orchestrator_of(shape: Shape) -> GraphOrchestrator:
    """Return what runs a shape; its graph is built."""
    orchestrator = GraphOrchestrator(Conductor(actors_of(shape)))
    orchestrator.graph(context={})
    return orchestrator


def actors_of(shape: Shape) -> list[AnyActor]:
    """Return the actors of a shape."""
    if not isinstance(shape, Dag):
        return [_counter(shape.turns)]
    return [_node(shape, name, parents) for name, parents in shape.parents.items()]


def _node(shape: Dag, name: str, parents: tuple[str, ...]) -> AnyActor:
    if name in shape.pauses:
        return Actor(name=name, call=_paused(shape.pauses[name]), depends_on=parents)
    if len(parents) > len(PARAMETERS):
        return Actor(name=name, call=_all, depends_on=parents)
    call: Any = (_none, _one, _two, _three)[len(parents)]
    return Actor(name=name, call=call, bind=dict(zip(PARAMETERS, parents, strict=False)))


def _paused(pause: float) -> Callable[..., Any]:
    async def pause_and_add(**inputs: int) -> int:
        await asyncio.sleep(pause)
        return added(*inputs.values())

    return pause_and_add


def _counter(turns: int) -> AnyActor:
    async def count(value: int = 0) -> Any:
        value = added(value)
        return Goto("count", value=value) if value < turns else value

    return Actor(name="count", call=count)


def _found(shape: Shape, output: Any) -> Any:
    """Return a final output as the shape has it: that of one sink comes without its name."""
    if isinstance(shape, Dag) and len(shape.sinks) == 1:
        return {shape.sinks[0]: output}
    return output
