"""What does it cost to build a graph and to see that it has no circle?"""

from __future__ import annotations

from functools import partial
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.graphs import on_jotty, shapes
from benchmarks.graphs.contenders import CONTENDERS, PEERS
from benchmarks.measuring import Contender
from benchmarks.reporting import Answer, Group, Target, compare
from jotty import Conductor
from jotty.core.orchestration import GraphOrchestrator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.graphs.setting import Setting
    from benchmarks.graphs.shapes import Dag
    from benchmarks.reporting import Table
    from jotty.core.orchestration import AnyActor

__all__ = ["ask"]

GRAPHLIB: Final = "graphlib: add and prepare"
GRAPH: Final = "jotty: conductor and graph"
ACTORS: Final = "jotty: actors, conductor and graph"
BOUND: Final = 1.5


async def ask(setting: Setting) -> Answer:
    """Build the same graphs, from functions that are there."""
    size = setting.size
    dags = (shapes.chain(size.nodes), shapes.layers(size.nodes, size.width), shapes.fan_out(size.nodes))
    groups = [await _group(dag) for dag in dags]
    tables = [
        attrs.evolve(table, unit="µs a node") for table in await compare(groups, size.rounds, setting.say)
    ]
    return Answer(tables, [_target(table) for table in tables])


async def _group(dag: Dag) -> Group:
    contenders = {
        GRAPHLIB: Contender(partial(_sort, dag), len(dag)),
        GRAPH: Contender(partial(_connect, on_jotty.actors_of(dag)), len(dag)),
        ACTORS: Contender(partial(_make, dag), len(dag)),
    }
    for name in PEERS:
        if name in CONTENDERS and await CONTENDERS[name](dag) is not None:
            contenders[name] = Contender(partial(_build, name, dag), len(dag))
    return Group(f"Building: {dag.name}, {len(dag)} nodes", contenders, {"x graphlib": GRAPHLIB}, "time")


async def _sort(dag: Dag, _: int) -> None:
    TopologicalSorter(dag.parents).prepare()


async def _connect(actors: Sequence[AnyActor], _: int) -> None:
    GraphOrchestrator(Conductor(actors)).graph(context={})


async def _make(dag: Dag, _: int) -> None:
    on_jotty.orchestrator_of(dag)


async def _build(name: str, dag: Dag, _: int) -> Any:
    trial = await CONTENDERS[name](dag)
    if trial is not None and trial.prepare:
        await trial.prepare()


def _target(table: Table) -> Target:
    text = f"{table.title}: {GRAPH}: time beside {GRAPHLIB}"
    return Target(text, BOUND, table.ratio(GRAPH, GRAPHLIB), is_least=False)
