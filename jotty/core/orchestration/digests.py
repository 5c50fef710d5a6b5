"""What makes a step the same step: digests of what an actor is given, and of the graph it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .identity import digest, digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .binding import Plan
    from .dataflow import Dataflow
    from .graph import Graph, Node

__all__ = ["Digests", "fingerprint"]


def fingerprint(graph: Graph) -> str:
    """Return what changes when the actors of a graph, their versions, inputs or order do."""
    lines = [graph.mode.value]
    for name, node in graph.nodes.items():
        lines.append(f"{name}:{node.actor.name}:{node.actor.version!r}:{','.join(node.parents)}")
        lines.extend(_named(node.plan))
    return digest("\n".join(lines).encode("utf-8", "surrogatepass"))


class Digests:
    """The digests of one run.

    The goal, the context and the resources count by their names, since they are the same for a whole run.

    Args:
        around: That of the inputs of the execution in which it goes on; empty where there is none.
        supplied: The outputs that were supplied.
    """

    def __init__(self, around: str, supplied: Mapping[str, Any]) -> None:
        self._around = around
        self._outputs = dict.fromkeys(supplied, "supplied")
        self._previous: dict[str, str] = {}

    def keep(self, node: Node, output: str) -> None:
        """Take the digest of a node's output."""
        self._outputs[node.name] = self._previous[node.actor.name] = output

    def inputs_of(self, node: Node, flow: Dataflow) -> str:
        """Return what stands for all that a ready node is given."""
        plan, call = node.plan, flow.calls.get(node.name)
        parts = self._bound(node, plan, flow)
        if plan.own is not None:
            parts.append(f"own {self._previous.get(node.actor.name)}")
        if call is not None:
            parts.append(f"call {digest_of(dict(call))}")
        elif node.when is not None:
            parts.append("when")
            parts += self._bound(node, node.when, flow)[2:]
        return _joined(parts)

    def spawned(self, node: Node, inputs: Mapping[str, str | None], flow: Dataflow) -> str:
        """Return what stands for all that something spawned is given, with the digests of its inputs."""
        parts = self._bound(node, node.plan, flow)
        parts.extend(f"{name}: {found}" for name, found in sorted(inputs.items()))
        return _joined(parts)

    def _bound(self, node: Node, plan: Plan, flow: Dataflow) -> list[str]:
        """Return what a plan binds, after what holds for the whole node."""
        version = node.actor.version
        parts = [self._around, "" if version is None else repr(version), *_named(plan)]
        here, digests = flow.outputs, self._outputs
        for parameter, name, _ in plan.outputs:
            parts.append(f"{parameter}<{digests.get(name) if name in here else None}")
        for parameter, name in plan.more_outputs:
            parts.append(f"{parameter}<{digests.get(name) if name in here else None}")
        return parts


def _named(plan: Plan) -> list[str]:
    named = [f"{parameter}={name}" for parameter, name in plan.given]
    named.extend([f"+{name}" for name in plan.more_given])
    return named


def _joined(parts: list[str]) -> str:
    return digest("\n".join(parts).encode("utf-8", "surrogatepass"))
