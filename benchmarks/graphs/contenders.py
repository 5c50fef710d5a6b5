"""Everyone who runs a shape, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.graphs import (
    on_asyncio,
    on_burr,
    on_hamilton,
    on_jotty,
    on_langgraph,
    on_pydantic_graph,
)
from benchmarks.graphs.shapes import Trial
from benchmarks.measuring import Contender

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from benchmarks.graphs.shapes import Shape

__all__ = [
    "ALONE",
    "CONTENDERS",
    "GROUP",
    "LANGGRAPH",
    "LANGGRAPH_COMMAND",
    "PEERS",
    "TASKS",
    "TURNS",
    "WATCHED",
    "contender",
    "missing",
    "trials",
]

Build: TypeAlias = Callable[["Shape"], Awaitable[Trial | None]]

TURNS: Final = "plain awaits"
TASKS: Final = "one asyncio task a node"
GROUP: Final = "asyncio.TaskGroup"
ALONE: Final = "jotty, nobody listens"
WATCHED: Final = "jotty, with events"
LANGGRAPH: Final = "LangGraph"
LANGGRAPH_COMMAND: Final = "LangGraph (Command)"

PEERS: Final[Mapping[str, tuple[str, Build]]] = {
    LANGGRAPH: ("langgraph", on_langgraph.trial),
    LANGGRAPH_COMMAND: ("langgraph", on_langgraph.by_command),
    "pydantic-graph": ("pydantic_graph", on_pydantic_graph.trial),
    "burr": ("burr", on_burr.trial),
    "hamilton": ("hamilton", on_hamilton.trial),
}

CONTENDERS: Final[Mapping[str, Build]] = {
    TURNS: on_asyncio.by_turns,
    TASKS: on_asyncio.by_task,
    GROUP: on_asyncio.by_group,
    ALONE: on_jotty.alone,
    WATCHED: on_jotty.watched,
    **{name: build for name, (package, build) in PEERS.items() if find_spec(package)},
}


def missing() -> list[str]:
    """Return the peers that are not installed."""
    return [name for name in PEERS if name not in CONTENDERS]


def contender(trial: Trial, nodes: int) -> Contender:
    """Return what measures a trial, by the node."""
    prepare = trial.prepare

    async def run(_: int) -> None:
        await trial.run()

    async def before(_: int) -> None:
        if prepare is not None:
            await prepare()

    return Contender(run, nodes, before)


async def trials(shape: Shape, names: Collection[str] = CONTENDERS.keys()) -> dict[str, Trial]:
    """Build a shape with everyone who can express it, and see that each returns what it must.

    Raises:
        RuntimeError: One returns something else.
    """
    built = {name: await build(shape) for name, build in CONTENDERS.items() if name in names}
    able = {name: trial for name, trial in built.items() if trial is not None}
    for name, trial in able.items():
        if trial.prepare:
            await trial.prepare()
        found = await trial.run()
        if found != shape.expected:
            raise RuntimeError(f"{name}, {shape.name}: {found!r:.200}, not {shape.expected!r:.200}")
    return able
