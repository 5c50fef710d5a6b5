"""Graphs for LangGraph: nodes that write to a state, and run in supersteps."""

from __future__ import annotations

import operator
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

from benchmarks.graphs.shapes import JOIN, SOURCE, Dag, Trial, add

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.graphs.shapes import Loop, Shape

__all__ = ["by_command", "trial"]

UNBOUNDED: Final = {"recursion_limit": 1_000_000}


def _merged(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {**left, **right}


class _Values(TypedDict):
    values: Annotated[dict[str, int], _merged]


class _Value(TypedDict):
    value: int


class _Leaves(TypedDict):
    value: int
    leaves: Annotated[list[int], operator.add]
    total: int


async def trial(shape: Shape) -> Trial | None:
    """Build a shape in the way that is fastest there, of those that its documentation shows."""
    if not isinstance(shape, Dag):
        return _loop(shape)
    return _fan_out(shape) if shape.name == "fan-out" else _dag(shape)


async def by_command(shape: Shape) -> Trial | None:
    """Build a loop whose node itself says where to go, as an actor's Goto does."""
    return None if isinstance(shape, Dag) else _loop_by_command(shape)


def _dag(shape: Dag) -> Trial:
    library: Any = import_module("langgraph.graph")
    builder = library.StateGraph(_Values)
    for name, parents in shape.parents.items():
        builder.add_node(name, _node(shape, name, parents))
        builder.add_edge(_from(parents, library.START), name)
    graph, sinks = builder.compile(), shape.sinks

    async def run() -> dict[str, int]:
        state = await graph.ainvoke({"values": {}}, UNBOUNDED)
        return {name: state["values"][name] for name in sinks}

    return Trial(run)


def _node(shape: Dag, name: str, parents: Sequence[str]) -> Callable[[_Values], Awaitable[Any]]:
    work = shape.work(name)

    async def node(state: _Values) -> dict[str, dict[str, int]]:
        values = state["values"]
        return {"values": {name: await work(*[values[parent] for parent in parents])}}

    return node


def _from(parents: Sequence[str], start: str) -> str | list[str]:
    """Return where an edge begins; several make a join."""
    return list(parents) if len(parents) > 1 else parents[0] if parents else start


def _fan_out(shape: Dag) -> Trial:
    library: Any = import_module("langgraph.graph")
    send: Any = import_module("langgraph.types").Send
    leaves = len(shape) - 2

    async def source(_: _Leaves) -> dict[str, int]:
        return {"value": await add()}

    async def leaf(state: _Leaves) -> dict[str, list[int]]:
        return {"leaves": [await add(state["value"])]}

    async def join(state: _Leaves) -> dict[str, int]:
        return {"total": await add(*state["leaves"])}

    def spread(state: _Leaves) -> list[Any]:
        return [send("leaf", {"value": state["value"]}) for _ in range(leaves)]

    builder = library.StateGraph(_Leaves)
    for name, call in ((SOURCE, source), ("leaf", leaf), (JOIN, join)):
        builder.add_node(name, call)
    builder.add_edge(library.START, SOURCE)
    builder.add_conditional_edges(SOURCE, spread, ["leaf"])
    builder.add_edge("leaf", JOIN)
    graph = builder.compile()

    async def run() -> dict[str, int]:
        return {JOIN: (await graph.ainvoke({"value": 0}, UNBOUNDED))["total"]}

    return Trial(run)


def _loop(shape: Loop) -> Trial:
    library: Any = import_module("langgraph.graph")

    async def count(state: _Value) -> _Value:
        return {"value": await add(state["value"])}

    def decide(state: _Value) -> Any:
        return "count" if state["value"] < shape.turns else library.END

    builder = library.StateGraph(_Value)
    builder.add_node("count", count)
    builder.add_edge(library.START, "count")
    builder.add_conditional_edges("count", decide, ["count", library.END])
    return _counting(builder.compile())


def _loop_by_command(shape: Loop) -> Trial:
    library: Any = import_module("langgraph.graph")
    command: Any = import_module("langgraph.types").Command

    async def count(state: _Value) -> Any:
        value = await add(state["value"])
        return command(update={"value": value}, goto="count" if value < shape.turns else library.END)

    builder = library.StateGraph(_Value)
    builder.add_node("count", count, destinations=("count", library.END))
    builder.add_edge(library.START, "count")
    return _counting(builder.compile())


def _counting(graph: Any) -> Trial:
    async def run() -> Any:
        return (await graph.ainvoke({"value": 0}, UNBOUNDED))["value"]

    return Trial(run)
