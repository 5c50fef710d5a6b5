"""What does a node cost: in a chain, in layers, in a fan-out, in a loop?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.graphs import shapes
from benchmarks.graphs.contenders import (
    ALONE,
    GROUP,
    LANGGRAPH,
    LANGGRAPH_COMMAND,
    TASKS,
    WATCHED,
    contender,
    trials,
)
from benchmarks.graphs.shapes import Dag, suspending
from benchmarks.reporting import Answer, Group, Target, compare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.graphs.setting import Setting
    from benchmarks.graphs.shapes import Shape, Trial
    from benchmarks.reporting import Table

__all__ = ["ask_chain", "ask_fan_out", "ask_layers", "ask_loop"]

SUSPENDED: Final = (TASKS, GROUP, ALONE, WATCHED)


async def ask_chain(setting: Setting) -> Answer:
    """Run nodes one after the other."""
    nodes = setting.size.nodes
    tables = await _measured(setting, shapes.chain(nodes), f"Chain of {nodes}")
    targets = [_at_most(0.5, table, TASKS) for table in tables]
    return Answer(tables, [*targets, _faster(100, tables[0], LANGGRAPH)])


async def ask_layers(setting: Setting) -> Answer:
    """Run layers of nodes, each of which joins three."""
    nodes, width = setting.size.nodes, setting.size.width
    title = f"{nodes // width} layers of {width}, three parents each"
    tables = await _measured(setting, shapes.layers(nodes, width), title)
    return Answer(tables, [_at_most(0.8, table, TASKS) for table in tables])


async def ask_fan_out(setting: Setting) -> Answer:
    """Run many nodes beside each other, and join them."""
    nodes = setting.size.nodes
    tables = await _measured(setting, shapes.fan_out(nodes), f"Fan-out of {nodes}, and a join")
    return Answer(tables, [_at_most(1.5, table, GROUP) for table in tables])


async def ask_loop(setting: Setting) -> Answer:
    """Run one node again and again."""
    turns = setting.size.nodes
    (table,) = await _measured(setting, shapes.Loop(turns), f"Loop of {turns}")
    return Answer([table], [_faster(150, table, LANGGRAPH), _faster(150, table, LANGGRAPH_COMMAND)])


async def _measured(setting: Setting, shape: Shape, title: str) -> list[Table]:
    """Measure a shape; one without a circle also with nodes that suspend, as real ones do, of fewer peers."""
    groups = [_group(shape, await trials(shape), title)]
    if isinstance(shape, Dag):
        slow = suspending(shape)
        groups.append(_group(slow, await trials(slow, SUSPENDED), f"{title}, each suspends once"))
    tables = await compare(groups, setting.size.rounds, setting.say)
    return [attrs.evolve(table, unit="µs a node") for table in tables]


def _group(shape: Shape, found: Mapping[str, Trial], title: str) -> Group:
    contenders = {name: contender(trial, len(shape)) for name, trial in found.items()}
    return Group(title, contenders, {"x task": TASKS, "x jotty": WATCHED}, "time")


def _at_most(bound: float, table: Table, peer: str) -> Target:
    text = f"{table.title}: {WATCHED}: time beside {peer}"
    return Target(text, bound, table.ratio(WATCHED, peer), is_least=False)


def _faster(bound: float, table: Table, peer: str) -> Target:
    """Aim at so many times the speed of a peer, whose time beside jotty's that is."""
    return Target(f"{table.title}: {WATCHED}: speed beside {peer}", bound, table.ratio(peer, WATCHED))
