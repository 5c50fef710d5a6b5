"""The graph of a run: which actor follows which, and where each gets its inputs from. No I/O."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from jotty.errors import GraphError

from .binding import RESERVED, Names, among, guess, listed
from .digests import fingerprint
from .drawing import draw_dot, draw_mermaid
from .signature import ActorKind
from .wiring import check_known, sources_of, wire

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .actor import AnyActor
    from .binding import Plan
    from .outcome import Goto
    from .timeline import Timeline
    from .wiring import Wiring

__all__ = ["Graph", "GraphMode", "Node", "check_actors"]


class GraphMode(StrEnum):
    """How the actors of a conductor follow each other.

    Attributes:
        STATIC: One after the other, in a given order.
        DYNAMIC: Each as soon as the actors that it binds are settled.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"


@attrs.define(eq=False, weakref_slot=False)
class Node:
    """An actor at its place in a graph; not to be changed, though for the sake of speed nothing prevents it.

    Attributes:
        name: The actor's name; where it stands in a static order again, `name#2` and so on.
        actor: The actor.
        parents: The nodes that must be settled before it, in the order of the graph.
        children: The nodes that wait for it, likewise.
        plan: How its parameters are bound.
        when: How the parameters of its `when` are bound, if it has one.
        is_plain: Whether nothing is to be done but to await its actor (derived).
        is_bare: Whether besides nothing of it runs before it is awaited, and it binds only what is given and
            outputs (derived).
    """

    name: str
    actor: AnyActor
    parents: tuple[str, ...]
    children: tuple[str, ...]
    plan: Plan
    when: Plan | None
    is_plain: bool = attrs.field(init=False)
    is_bare: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Derive what holds of the actor together with its plan."""
        actor, plan = self.actor, self.plan
        self.is_plain = actor.is_awaited and plan.is_named
        self.is_bare = self.is_plain and actor.is_direct and plan.is_simple and self.when is None


@attrs.frozen(slots=False, eq=False)
class Graph:
    """Actors and what connects them; valid once it is made.

    Attributes:
        nodes: Every node by name, in the order in which the actors were given.
        mode: How they follow each other.
    """

    nodes: Mapping[str, Node]
    mode: GraphMode

    @classmethod
    def build(
        cls,
        actors: Sequence[AnyActor],
        *,
        mode: GraphMode = GraphMode.DYNAMIC,
        order: Sequence[str] | None = None,
        resources: Collection[str] = (),
        context: Collection[str] | None = None,
        supplied: Collection[str] = (),
    ) -> Graph:
        """Connect actors by the names of their parameters.

        Args:
            actors: The actors.
            mode: How they follow each other.
            order: In static mode, their order; None for the one they are given in.
            resources: The names of the resources there will be.
            context: The keys of the context there will be; None if they are not known yet, and
                any parameter that nothing else provides is taken for one.
            supplied: Nodes whose output is supplied, so that they need not be bound.

        Raises:
            GraphError: Two actors or two sources have one name, a parameter can't be bound, an
                unknown actor is named, or the actors wait for each other in a circle.
        """
        check_actors(actors)
        known = {each.name: each for each in actors}
        names = Names(frozenset(known), frozenset(resources), None if context is None else frozenset(context))
        names.check()
        if mode is GraphMode.STATIC:
            nodes = _in_order(_ordered(known, order), names, supplied)
        else:
            nodes = _by_dataflow(known, names, supplied)
        graph = cls(nodes, mode)
        _check_acyclic(graph)
        check_known("outputs=", supplied, nodes)
        return graph

    @cached_property
    def topological(self) -> tuple[str, ...]:
        """The nodes, each after its parents; otherwise in the order in which they were given."""
        return tuple(_sorted(self.nodes))

    @cached_property
    def fingerprint(self) -> str:
        """What tells it from a graph of other actors; see `digests.fingerprint`."""
        return fingerprint(self)

    @cached_property
    def sinks(self) -> tuple[str, ...]:
        """The nodes that nothing follows."""
        return tuple(name for name, node in self.nodes.items() if not node.children)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many parents each node has."""
        return {name: len(node.parents) for name, node in self.nodes.items()}

    @cached_property
    def on_demand(self) -> frozenset[str]:
        """The nodes that only run on demand."""
        return frozenset(name for name, node in self.nodes.items() if node.actor.on_demand)

    def closure(self, name: str) -> frozenset[str]:
        """Return the node and all that descends from it."""
        found = self._closures.get(name)
        if found is None:
            found = self._closures[name] = frozenset(self._reach(name))
        return found

    def reset_by(self, name: str) -> tuple[str, ...]:
        """Return what a Goto to this node resets: its closure, in the order of the graph."""
        found = self._resets.get(name)
        if found is None:
            closure = self.closure(name)
            found = self._resets[name] = tuple(each for each in self.nodes if each in closure)
        return found

    @cached_property
    def _resets(self) -> dict[str, tuple[str, ...]]:
        return {}

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all that the node descends from."""
        reached: set[str] = set()
        todo = list(self.nodes[name].parents)
        while todo:
            parent = todo.pop()
            if parent not in reached:
                reached.add(parent)
                todo.extend(self.nodes[parent].parents)
        return frozenset(reached)

    @cached_property
    def _closures(self) -> dict[str, frozenset[str]]:
        return {}

    def _reach(self, name: str) -> set[str]:
        reached, todo = {name}, [name]
        while todo:
            new = set(self.nodes[todo.pop()].children) - reached
            reached |= new
            todo.extend(new)
        return reached

    def check_goto(self, goto: Goto) -> None:
        """Refuse a Goto that this graph can't follow.

        Raises:
            GraphError: The target is unknown, or does not take these inputs.
        """
        node = self.nodes.get(goto.target)
        if node is None:
            raise GraphError(f"Goto({goto.target!r}) leads nowhere. {among(goto.target, self.nodes)}")
        accepts = node.plan.accepts
        unknown = [] if accepts is None else [name for name in goto.inputs if name not in accepts]
        if unknown:
            raise GraphError(
                f"Goto({goto.target!r}) gives {unknown[0]!r}, which {goto.target!r} does not take. "
                f"It takes: {listed(sorted(accepts or ()))}.{guess(unknown[0], accepts or ())}"
            )
        missing = [name for name in node.plan.open if name not in goto.inputs]
        if missing:
            raise GraphError(
                f"Goto({goto.target!r}) does not give {missing[0]!r}, which nothing else provides.",
                f"Write Goto({goto.target!r}, {missing[0]}=...).",
            )

    def output_nodes(self, wanted: str | tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the nodes whose output is the final one.

        Args:
            wanted: The conductor's `output`; None stands for the sinks.
        """
        if wanted is None:
            return self.sinks
        names = (wanted,) if isinstance(wanted, str) else wanted
        last = {node.actor.name: name for name, node in self.nodes.items()}
        return tuple(last[name] for name in names if name in last)

    def check_entry(self, name: str) -> None:
        """Refuse a node that can't be the only one to start from.

        Raises:
            GraphError: It is unknown, or needs the output of another one.
        """
        node = self.nodes.get(name)
        if node is None:
            raise GraphError(f"The entry {name!r} is no actor here.", among(name, self.nodes))
        needed = [*(source for _, source, required in node.plan.outputs if required), *node.plan.open]
        if needed:
            raise GraphError(
                f"Actor {name!r} can't be the only entry: it needs {needed[0]!r}.",
                "Give that parameter a default.",
            )

    def to_mermaid(self, timeline: Timeline | None = None) -> str:
        """Draw the graph as a Mermaid flowchart; actors that only run on demand have rounded ends.

        A conductor that is an actor is drawn with its own actors in it.

        Args:
            timeline: A run through this graph: nodes then say what they came to, in which time and how often,
                and what they have spawned is drawn beside them.
        """
        return draw_mermaid(self, timeline)

    def to_dot(self, timeline: Timeline | None = None) -> str:
        """Draw the graph for Graphviz; actors that only run on demand are dashed. See `to_mermaid`."""
        return draw_dot(self, timeline)


def check_actors(actors: Collection[AnyActor]) -> None:
    """Refuse names that can't be told apart.

    Raises:
        GraphError: Two actors have one name, or one has a reserved name.
    """
    names = {each.name for each in actors}
    if len(names) == len(actors) and names.isdisjoint(RESERVED):
        return
    seen: set[str] = set()
    for each in actors:
        if each.name in RESERVED:
            raise GraphError(
                f"An actor can't be named {each.name!r}; reserved are {listed(RESERVED)}.", "Rename it."
            )
        if each.name in seen:
            remedy = "attrs.evolve(actor, name=...)"
            if each.kind is ActorKind.GRAPH:
                remedy = "Conductor(..., name='another')"
            raise GraphError(f"Two actors are named {each.name!r}.", f"Rename one, say by {remedy}.")
        seen.add(each.name)


def _ordered(known: Mapping[str, AnyActor], order: Sequence[str] | None) -> list[AnyActor]:
    names = list(known) if order is None else order
    check_known("agent_order", names, known)
    return [known[name] for name in names]


def _in_order(actors: Sequence[AnyActor], names: Names, supplied: Collection[str]) -> dict[str, Node]:
    counts: dict[str, int] = {}
    earlier: dict[str, str] = {}
    later = {actor.name for actor in actors}
    nodes: dict[str, Node] = {}
    last: Node | None = None
    for actor in actors:
        counts[actor.name] = counts.get(actor.name, 0) + 1
        name = actor.name if counts[actor.name] == 1 else f"{actor.name}#{counts[actor.name]}"
        _check_not_later(actor, later)
        wiring = wire(actor, names, earlier, may_be_open=actor.on_demand or name in supplied)
        node = Node(name, actor, (last.name,) if last else (), (), wiring.plan, wiring.when)
        if last is not None:
            last.children = (name,)
        nodes[name] = last = node
        earlier[actor.name] = name
        later.discard(actor.name)
    return nodes


def _check_not_later(actor: AnyActor, later: set[str]) -> None:
    for source in (*sources_of(actor), *actor.depends_on):
        if source in later and source != actor.name:
            raise GraphError(
                f"Actor {actor.name!r} needs {source!r}, which comes later in the order.",
                f"Put {source!r} before it, or have {source!r} return Goto({actor.name!r}, ...) instead.",
            )


def _by_dataflow(known: Mapping[str, AnyActor], names: Names, supplied: Collection[str]) -> dict[str, Node]:
    themselves = dict(zip(known, known, strict=True))
    children: dict[str, list[str]] = {name: [] for name in known}
    parents: dict[str, list[str]] = {name: [] for name in known}
    wirings: list[Wiring] = []
    for name, actor in known.items():
        wiring = actor.wiring
        if wiring is None or not wiring.needs <= names.actors or (names.context and wiring.takes_more):
            wiring = wire(actor, names, themselves, may_be_open=actor.on_demand or name in supplied)
        wirings.append(wiring)
        for needed in wiring.needs:
            children[needed].append(name)
    for name, followers in children.items():  # so that parents come in the order of the graph, too
        for follower in followers:
            parents[follower].append(name)
    return {
        name: Node(name, actor, tuple(parents[name]), tuple(children[name]), wiring.plan, wiring.when)
        for (name, actor), wiring in zip(known.items(), wirings, strict=True)
    }


def _sorted(nodes: Mapping[str, Node]) -> list[str]:
    """Sort topologically; what stands in a circle, or behind one, is left out."""
    waits = {name: len(node.parents) for name, node in nodes.items()}
    done = [name for name, count in waits.items() if not count]
    for name in done:  # which grows meanwhile
        for child in nodes[name].children:
            left = waits[child] = waits[child] - 1
            if not left:
                done.append(child)
    return done


def _is_in_order(nodes: Mapping[str, Node]) -> bool:
    """Whether all stand behind their parents, as they mostly do; then there is no circle."""
    seen: set[str] = set()
    for name, node in nodes.items():
        if not seen.issuperset(node.parents):
            return False
        seen.add(name)
    return True


def _check_acyclic(graph: Graph) -> None:
    if _is_in_order(graph.nodes) or len(graph.topological) == len(graph.nodes):
        return
    left = set(graph.nodes) - set(graph.topological)
    circle = _find_circle(graph.nodes, left)
    way = " -> ".join([*circle, circle[0]])
    raise GraphError(
        f"The actors wait for each other in a circle: {way}.",
        f"Take that parameter out of {circle[0]!r}, and have {circle[-1]!r} return "
        f"Goto({circle[0]!r}, ...) to loop.",
    )


def _find_circle(nodes: Mapping[str, Node], left: set[str]) -> list[str]:
    """Walk up through parents that are left over, until one comes again; return it parent first."""
    name = min(left, key=list(nodes).index)
    walked: list[str] = []
    while name not in walked:
        walked.append(name)
        name = next(parent for parent in nodes[name].parents if parent in left)
    circle = walked[walked.index(name) :][::-1]
    first = min(range(len(circle)), key=lambda at: list(nodes).index(circle[at]))
    return circle[first:] + circle[:first]
