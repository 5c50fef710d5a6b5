"""Graphs as text for Mermaid and Graphviz, as they are or as a run has gone through them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from .labels import readable
from .signature import ActorKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .graph import Graph, Node
    from .timeline import Timeline, TimelineRow

__all__ = ["draw_dot", "draw_mermaid"]

MOST_SPAWNED: Final = 12  # of one actor by one other; of more, only their number is drawn
_LOOKS: Final = {  # how a node is filled and framed
    "done": ("#d9f2df", "#2e7d4f"),
    "goto": ("#e8defc", "#6a3fb5"),
    "end": ("#e8defc", "#6a3fb5"),
    "running": ("#dbeafe", "#1d5fbf"),
    "waits": ("#fff1c9", "#a66f00"),
    "failed": ("#fbdcdc", "#b3261e"),
    "cancelled": ("#e4e4e4", "#5f5f5f"),
    "skipped": ("#f7f7f7", "#9a9a9a"),
}
_WORST: Final = ("failed", "waits", "running", "cancelled", "end", "goto", "done", "skipped")


@attrs.frozen(kw_only=True)
class _Box:
    """A node, or a frame around several.

    Attributes:
        id: What it is called in the text.
        lines: What stands on it.
        state: How it stands, if a run is drawn, and it has come to it.
        on_demand: Whether it only runs on demand.
        frame: "graph": its parts make a graph of their own; "spawned": the first has spawned the others.
        parts: What is drawn in it, if it is a frame.
        edges: What connects them.
    """

    id: str
    lines: tuple[str, ...] = ()
    state: str = ""
    on_demand: bool = False
    frame: Literal["", "graph", "spawned"] = ""
    parts: tuple[_Box, ...] = ()
    edges: tuple[_Edge, ...] = ()

    @property
    def first(self) -> _Box:
        """The node in it that nothing within it leads to."""
        led_to = {edge.child.id for edge in self.edges if edge.kind != "goto"}
        return next((part.first for part in self.parts if part.id not in led_to), self)

    @property
    def last(self) -> _Box:
        """The node in it that leads to nothing within it, or has spawned the others."""
        if self.frame == "spawned":
            return self.parts[0].last
        leading = {edge.parent.id for edge in self.edges if edge.kind != "goto"}
        return next((part.last for part in self.parts[::-1] if part.id not in leading), self)


@attrs.frozen
class _Edge:
    parent: _Box
    child: _Box
    kind: Literal["", "when", "spawned", "goto"] = ""


class _Past:
    """What a timeline says of each label."""

    def __init__(self, timeline: Timeline | None) -> None:
        self.rows: dict[str, list[TimelineRow]] = {}
        self.below: dict[str, dict[str, None]] = {}
        for row in timeline.rows if timeline is not None else ():
            if row.step is None:
                self.rows.setdefault(row.label, []).append(row)
                self.below.setdefault(row.label.rpartition("/")[0], {})[row.label] = None

    def gotos(self, label: str, prefix: str) -> Iterator[str]:
        """Yield the nodes beside this one to which it has sent the run back, each once."""
        rows = [row for row in self.rows.get(label, ()) if row.status == "goto"]
        yield from dict.fromkeys(row.note.removeprefix("to ").removeprefix(prefix) for row in rows)


# From a graph to boxes


def _graph_frame(graph: Graph, past: _Past, prefix: str = "", id: str = "n") -> _Box:  # noqa: A002
    """Return the boxes of a graph, and what connects them."""
    boxes: dict[str, _Box] = {}
    ends: dict[str, _Box] = {}  # where edges begin and end
    for at, (name, node) in enumerate(graph.nodes.items()):
        box = boxes[name] = _box_of(node, past, prefix + name, f"{id}{at}")
        ends[name] = box.parts[0] if box.frame == "spawned" else box
    edges = [
        _Edge(ends[parent], ends[name], "when" if _asked_only(node, parent) else "")
        for name, node in graph.nodes.items()
        for parent in node.parents
    ]
    edges += [
        _Edge(ends[name], ends[target], "goto")
        for name in graph.nodes
        for target in past.gotos(prefix + name, prefix)
        if target in ends
    ]
    return _Box(id=id, frame="graph", parts=tuple(boxes.values()), edges=tuple(edges))


def _asked_only(node: Node, parent: str) -> bool:
    asked = node.when is not None and parent in node.when.sources
    return asked and parent not in node.plan.sources


def _box_of(node: Node, past: _Past, label: str, id: str) -> _Box:  # noqa: A002
    inner = None
    if node.actor.kind is ActorKind.GRAPH:
        conductor: Any = node.actor.call
        inner = conductor.graph()
    box = _labelled(past, node.name, label, id, on_demand=node.actor.on_demand)
    if inner is not None:
        held = _graph_frame(inner, past, f"{label}/", f"{id}_")
        return attrs.evolve(box, frame="graph", parts=held.parts, edges=held.edges)
    return _with_spawned(box, past, label)


def _labelled(past: _Past, name: str, label: str, id: str, *, on_demand: bool = False) -> _Box:  # noqa: A002
    rows = past.rows.get(label, ())
    lines = (name, _summary(rows)) if rows else (name,)
    return _Box(id=id, lines=lines, state=rows[-1].status if rows else "", on_demand=on_demand)


def _summary(rows: Sequence[TimelineRow]) -> str:
    """Say in one line what the executions of a node came to."""
    last = rows[-1]
    times = [row.seconds for row in rows if row.seconds is not None and row.status != "skipped"]
    words = {
        "goto": last.note,
        "end": "ended the run",
        "waits": "waits for an answer",
    }.get(last.status, last.status)
    ran = len(times) + sum(row.ended is None for row in rows)
    pieces = [words, _duration(sum(times)) if times else "", f"x{ran}" if ran > 1 else ""]
    return ", ".join(filter(None, pieces))


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    milliseconds = round(seconds * 1000)
    return f"{milliseconds} ms" if milliseconds else "< 1 ms"


def _with_spawned(box: _Box, past: _Past, label: str) -> _Box:
    """Put a frame around a box and what it has spawned, if it has."""
    by_actor: dict[str, list[str]] = {}
    for each in past.below.get(label, ()):
        by_actor.setdefault(_name_of(each).partition("[")[0], []).append(each)
    spawned: list[_Box] = []
    for name, labels in by_actor.items():
        if len(labels) > MOST_SPAWNED:
            spawned.append(_crowd(past, name, labels, f"{box.id}_{len(spawned)}"))
            continue
        for each in labels:
            one = _labelled(past, readable(_name_of(each)), each, f"{box.id}_{len(spawned)}")
            spawned.append(_with_spawned(one, past, each))
    if not spawned:
        return box
    edges = tuple(_Edge(box, one.parts[0] if one.frame == "spawned" else one, "spawned") for one in spawned)
    return _Box(id=f"{box.id}_all", frame="spawned", parts=(box, *spawned), edges=edges)


def _name_of(label: str) -> str:
    return label.rpartition("/")[2]


def _crowd(past: _Past, name: str, labels: Sequence[str], id: str) -> _Box:  # noqa: A002
    rows = [past.rows[label][-1] for label in labels]
    states = Counter(row.status for row in rows)
    told = ", ".join(f"{states[state]} {state}" for state in sorted(states, key=_WORST.index))
    worst = min(states, key=_WORST.index)
    return _Box(id=id, lines=(f"{name} x{len(rows)}", told), state=worst)


def _walk(box: _Box) -> Iterator[_Box]:
    for part in box.parts:
        yield part
        yield from _walk(part)


def _edges(box: _Box) -> Iterator[_Edge]:
    yield from box.edges
    for part in box.parts:
        yield from _edges(part)


# From boxes to text


def draw_mermaid(graph: Graph, timeline: Timeline | None = None) -> str:
    """Return a Mermaid flowchart."""
    whole = _graph_frame(graph, _Past(timeline))
    lines = ["flowchart TD", *_mermaid_parts(whole, "    ")]
    arrows = {"": "-->", "when": "-. when .->", "spawned": "-.->", "goto": "-. again .->"}
    lines += [f"    {edge.parent.id} {arrows[edge.kind]} {edge.child.id}" for edge in _edges(whole)]
    boxes = list(_walk(whole))
    for state, (fill, stroke) in _LOOKS.items():
        ids = [box.id for box in boxes if box.state == state]
        if ids:
            dashed = ",stroke-dasharray:4" if state == "skipped" else ""
            lines.append(f"    classDef {state} fill:{fill},stroke:{stroke},color:#111{dashed}")
            lines.append(f"    class {','.join(ids)} {state}")
    lines += [f"    style {box.id} fill:none,stroke-dasharray:4" for box in boxes if box.frame == "spawned"]
    return "\n".join(lines) + "\n"


def _mermaid_parts(box: _Box, indent: str) -> Iterator[str]:
    for part in box.parts:
        if part.frame:
            yield f'{indent}subgraph {part.id}["{_in_mermaid(part.lines) or " "}"]'
            yield from _mermaid_parts(part, f"{indent}    ")
            yield f"{indent}end"
        else:
            opening, closing = ("([", "])") if part.on_demand else ("[", "]")
            yield f'{indent}{part.id}{opening}"{_in_mermaid(part.lines)}"{closing}'


_ENTITIES: Final = str.maketrans({"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "\n": " "})


def _in_mermaid(lines: Sequence[str]) -> str:
    # what looks like an entity of Mermaid's own is none
    return "<br>".join(re.sub(r"#(?=\w+;)", "#35;", line).translate(_ENTITIES) for line in lines)


def draw_dot(graph: Graph, timeline: Timeline | None = None) -> str:
    """Return a digraph in Graphviz' language."""
    whole = _graph_frame(graph, _Past(timeline))
    lines = ["digraph {", "    node [shape=box]"]
    if any(box.frame for box in _walk(whole)):
        lines.insert(1, "    compound=true")
    lines += _dot_parts(whole, "    ")
    for edge in _edges(whole):
        lines.append(f"    {edge.parent.last.id} -> {edge.child.first.id}{_dot_edge(edge)}")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_parts(box: _Box, indent: str) -> Iterator[str]:
    for part in box.parts:
        if part.frame:
            yield f"{indent}subgraph cluster_{part.id} {{"
            yield f'{indent}    graph [label="{_in_dot(part.lines)}"{_dot_style(part)}]'
            yield from _dot_parts(part, f"{indent}    ")
            yield f"{indent}}}"
        else:
            yield f'{indent}{part.id} [label="{_in_dot(part.lines)}"{_dot_style(part)}]'


def _dot_style(box: _Box) -> str:
    styles = ["dashed"] if box.on_demand or box.frame == "spawned" or box.state == "skipped" else []
    if not box.state:
        # a frame within another would else have its colours
        return f", style={styles[0]}{', color=gray' if box.frame else ''}" if styles else ""
    fill, stroke = _LOOKS[box.state]
    return f', style="{",".join(["filled", *styles])}", fillcolor="{fill}", color="{stroke}"'


def _dot_edge(edge: _Edge) -> str:
    """Return how an edge looks; Graphviz draws one from and to nodes, and cuts it off at their frames."""
    told = {
        "": [],
        "when": ["style=dashed", 'label="when"'],
        "spawned": ["style=dotted"],
        "goto": ["style=dashed", 'label="again"', "constraint=false"],
    }[edge.kind]
    told += [f"ltail=cluster_{edge.parent.id}"] if edge.parent.frame else []
    told += [f"lhead=cluster_{edge.child.id}"] if edge.child.frame else []
    return f" [{', '.join(told)}]" if told else ""


def _in_dot(lines: Sequence[str]) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines)
    return "\\n".join(escaped)
