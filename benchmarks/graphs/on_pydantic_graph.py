"""Graphs for pydantic-graph, which has no node that joins some of its parents: chain, fan-out and loop."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.graphs.shapes import JOIN, SOURCE, Dag, Trial, add

if TYPE_CHECKING:
    from benchmarks.graphs.shapes import Loop, Shape

__all__ = ["trial"]


async def trial(shape: Shape) -> Trial | None:
    """Build a shape, if it can be."""
    if not isinstance(shape, Dag):
        return _loop(shape)
    return {"chain": _chain, "fan-out": _fan_out}.get(shape.name, lambda _: None)(shape)


def _builder() -> tuple[Any, Any]:
    library: Any = import_module("pydantic_graph")
    return library, library.GraphBuilder(input_type=int, output_type=int)


async def _add_one(ctx: Any) -> int:
    return await add(ctx.inputs)


def _chain(shape: Dag) -> Trial:
    _, builder = _builder()
    steps = [builder.step(call=_add_one, node_id=name) for name in shape.parents]
    path = [builder.start_node, *steps, builder.end_node]
    builder.add(*(builder.edge_from(one).to(other) for one, other in pairwise(path)))
    graph, (sink,) = builder.build(), shape.sinks

    async def run() -> dict[str, int]:
        return {sink: await graph.run(inputs=0)}

    return Trial(run)


def _fan_out(shape: Dag) -> Trial:
    leaves = len(shape) - 2

    async def spread(_: Any) -> list[int]:
        return [await add()] * leaves

    async def join(ctx: Any) -> int:
        return await add(*ctx.inputs)

    library, builder = _builder()
    source, total = builder.step(call=spread, node_id=SOURCE), builder.step(call=join, node_id=JOIN)
    leaf = builder.step(call=_add_one, node_id="leaf")
    collect = builder.join(library.reduce_list_append, initial_factory=list)
    builder.add(
        builder.edge_from(builder.start_node).to(source),
        builder.edge_from(source).map().to(leaf),
        builder.edge_from(leaf).to(collect),
        builder.edge_from(collect).to(total),
        builder.edge_from(total).to(builder.end_node),
    )
    graph = builder.build()

    async def run() -> dict[str, int]:
        return {JOIN: await graph.run(inputs=0)}

    return Trial(run)


def _loop(shape: Loop) -> Trial:
    _, builder = _builder()
    count = builder.step(call=_add_one, node_id="count")
    again = builder.match(int, matches=lambda value: value < shape.turns).to(count)
    choice = builder.decision().branch(again).branch(builder.match(int).to(builder.end_node))
    builder.add(builder.edge_from(builder.start_node).to(count), builder.edge_from(count).to(choice))
    graph = builder.build()

    async def run() -> Any:
        return await graph.run(inputs=0)

    return Trial(run)
