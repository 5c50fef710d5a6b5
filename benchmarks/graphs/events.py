"""How many events a second can be taken from a run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.graphs import on_jotty, shapes
from benchmarks.measuring import MICROSECONDS, Contender
from benchmarks.reporting import Answer, Group, Target, compare
from jotty import ActorContext, Conductor, actor
from jotty.core.orchestration import GraphOrchestrator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.graphs.setting import Setting

__all__ = ["ask"]

LEAST: Final = 100_000
WORDS: Final = 10  # chunks of text, for each node of the other shapes


async def ask(setting: Setting) -> Answer:
    """Take every event of runs that do nothing else, from their streams and by a listener."""
    nodes = setting.size.nodes
    contenders: dict[str, Contender] = {}
    for shape in (
        shapes.chain(nodes),
        shapes.layers(nodes, setting.size.width),
        shapes.fan_out(nodes),
        shapes.Loop(nodes),
    ):
        orchestrator = on_jotty.orchestrator_of(shape)
        contenders[f"{shape.name}, streamed"] = await _counted(_streamed, orchestrator)
        contenders[f"{shape.name}, to a listener"] = await _counted(_listened, orchestrator)
    for name, speaker in (("yielded", _yielding(nodes)), ("told", _telling(nodes))):
        orchestrator = GraphOrchestrator(Conductor([speaker]))
        contenders[f"chunks that an actor has {name}, streamed"] = await _counted(_streamed, orchestrator)
    (table,) = await compare([Group("Events of a run", contenders)], setting.size.rounds, setting.say)
    targets = [
        Target(f"Events: {name}", LEAST, MICROSECONDS / figures.median, unit=" a second")
        for name, figures in table.rows.items()
    ]
    return Answer([attrs.evolve(table, unit="µs an event")], targets)


async def _counted(
    take: Callable[[GraphOrchestrator], Awaitable[int]], orchestrator: GraphOrchestrator
) -> Contender:
    """Return a contender whose samples are divided by the number of events that there are."""
    number = await take(orchestrator)
    return Contender(lambda _: take(orchestrator), number)


async def _streamed(orchestrator: GraphOrchestrator) -> int:
    count = 0
    async with orchestrator.run_stream(on_jotty.GOAL, max_iterations=MICROSECONDS) as stream:
        async for _ in stream:
            count += 1
        await stream.result()
    return count


async def _listened(orchestrator: GraphOrchestrator) -> int:
    count = 0

    def listen(_: Any) -> None:
        nonlocal count
        count += 1

    await orchestrator.prepare(on_jotty.GOAL, max_iterations=MICROSECONDS).execute(listen)
    return count


def _yielding(nodes: int) -> Any:
    @actor
    async def speak() -> AsyncIterator[str]:
        for _ in range(WORDS * nodes):
            yield "word "

    return speak


def _telling(nodes: int) -> Any:
    @actor
    async def speak(ctx: ActorContext) -> None:
        for _ in range(WORDS * nodes):
            ctx.text("word ")

    return speak
