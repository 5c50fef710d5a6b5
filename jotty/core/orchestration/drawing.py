"""Graphs as text for Mermaid and Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Graph, Node

__all__ = ["draw_dot", "draw_mermaid"]


def _edges(graph: Graph) -> Iterator[tuple[int, int, bool]]:
    """Yield (parent, child, only asked for by `when`), by their places among the nodes."""
    places = {name: at for at, name in enumerate(graph.nodes)}
    for name, node in graph.nodes.items():
        for parent in node.parents:
            yield places[parent], places[name], _asked_only(node, parent)


def _asked_only(node: Node, parent: str) -> bool:
    asked = node.when is not None and parent in node.when.sources
    return asked and parent not in node.plan.sources


def draw_mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for at, (name, node) in enumerate(graph.nodes.items()):
        label = name.replace("&", "&amp;").replace('"', "&quot;")
        opening, closing = ("([", "])") if node.actor.on_demand else ("[", "]")
        lines.append(f'    n{at}{opening}"{label}"{closing}')
    for parent, child, asked in _edges(graph):
        lines.append(f"    n{parent} {'-. when .->' if asked else '-->'} n{child}")
    return "\n".join(lines) + "\n"


def draw_dot(graph: Graph) -> str:
    """Return a digraph in Graphviz' language."""
    lines = ["digraph {", "    node [shape=box]"]
    for at, (name, node) in enumerate(graph.nodes.items()):
        label = name.replace("\\", "\\\\").replace('"', '\\"')
        style = ", style=dashed" if node.actor.on_demand else ""
        lines.append(f'    n{at} [label="{label}"{style}]')
    for parent, child, asked in _edges(graph):
        style = ' [style=dashed, label="when"]' if asked else ""
        lines.append(f"    n{parent} -> n{child}{style}")
    return "\n".join([*lines, "}"]) + "\n"
