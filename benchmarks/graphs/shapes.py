"""The graphs that all have to run, and what must come out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "JOIN",
    "SOURCE",
    "Dag",
    "Loop",
    "Shape",
    "Trial",
    "Work",
    "add",
    "added",
    "chain",
    "fan_out",
    "layers",
    "skewed",
    "suspending",
]

PARENTS: Final = 3
SOURCE: Final = "source"
JOIN: Final = "join"
MODULUS: Final = 1_000_003  # or the numbers would grow with the graph

Work: TypeAlias = Callable[..., Coroutine[Any, Any, int]]


def added(*values: int) -> int:
    """Return what a node makes of its parents' values."""
    return (1 + sum(values)) % MODULUS


async def add(*values: int) -> int:
    """Do what a node does: next to nothing, so that what is measured is everything else."""
    return added(*values)


@attrs.frozen
class Dag:
    """A graph without a circle.

    Attributes:
        name: What it is called.
        parents: The parents by node, each of which stands before its children.
        pauses: The seconds that a node waits before it does anything; 0 where it is not named.
    """

    name: str
    parents: Mapping[str, tuple[str, ...]]
    pauses: Mapping[str, float] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def sinks(self) -> list[str]:
        """The nodes that nothing follows, whose values a run returns."""
        followed = {parent for parents in self.parents.values() for parent in parents}
        return [name for name in self.parents if name not in followed]

    @property
    def expected(self) -> dict[str, int]:
        """What a run must return."""
        values: dict[str, int] = {}
        for name, parents in self.parents.items():
            values[name] = added(*[values[parent] for parent in parents])
        return {name: values[name] for name in self.sinks}

    def work(self, name: str) -> Work:
        """Return what a node does with the values of its parents."""
        pause = self.pauses.get(name)
        if pause is None:
            return add

        async def pause_and_add(*values: int) -> int:
            await asyncio.sleep(pause)
            return await add(*values)

        return pause_and_add


@attrs.frozen
class Loop:
    """One node that counts, again and again.

    Attributes:
        turns: How often it runs.
        name: What it is called.
    """

    turns: int
    name: str = "loop"

    def __len__(self) -> int:
        return self.turns

    @property
    def expected(self) -> int:
        """What a run must return."""
        return self.turns


Shape: TypeAlias = Dag | Loop


@attrs.frozen
class Trial:
    """A graph that was built, ready to be run as often as wanted.

    Attributes:
        run: Runs it, and returns what the shape expects.
        prepare: Called before each run, unmeasured.
    """

    run: Callable[[], Awaitable[Any]]
    prepare: Callable[[], Awaitable[Any]] | None = None


def chain(nodes: int) -> Dag:
    """Return a graph in which each node follows one other."""
    return Dag("chain", {f"n{at}": (f"n{at - 1}",) if at else () for at in range(nodes)})


def layers(nodes: int, width: int) -> Dag:
    """Return a graph of layers; each node joins three of the layer before."""
    parents: dict[str, tuple[str, ...]] = {}
    for layer in range(nodes // width):
        for at in range(width):
            above = {f"n{layer - 1}_{(at + step) % width}" for step in range(PARENTS)} if layer else ()
            parents[f"n{layer}_{at}"] = tuple(sorted(above))
    return Dag("layers", parents)


def fan_out(nodes: int) -> Dag:
    """Return a graph in which so many nodes follow one, and one joins them all."""
    leaves = [f"leaf{at}" for at in range(nodes)]
    return Dag("fan-out", {SOURCE: (), **dict.fromkeys(leaves, (SOURCE,)), JOIN: tuple(leaves)})


def skewed(pauses: int, pause: float) -> Dag:
    """Return two branches and their join: many short pauses, and one of nine tenths their length in all."""
    parents: dict[str, tuple[str, ...]] = {"lone": ()}
    parents |= {f"n{at}": (f"n{at - 1}",) if at else () for at in range(pauses)}
    waits = dict.fromkeys(parents, pause) | {"lone": 0.9 * pauses * pause}
    return Dag("skew", {**parents, JOIN: ("lone", f"n{pauses - 1}")}, waits)


def suspending(dag: Dag) -> Dag:
    """Return the same graph, of nodes that suspend once, for no time."""
    return attrs.evolve(dag, pauses=dict.fromkeys(dag.parents, 0.0))
