"""What a benchmark says in the end: tables, targets, and the same as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from benchmarks.measuring import Figures, take_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measuring import Contender, Say

__all__ = ["Answer", "Group", "Table", "Target", "compare"]

Comparison = Literal["speed", "time"]


@attrs.frozen
class Table:
    """The figures of several contenders, side by side.

    Attributes:
        title: What was done, and under which conditions.
        rows: The figures by contender.
        peers: Headings of the columns with ratios, each with the row that counts as 1.
        compares: "speed": how many times as fast as the peer; "time": how many times as long it took.
        unit: Of the figures.
        has_tail: Whether to show the 95th percentile.
    """

    title: str
    rows: Mapping[str, Figures]
    peers: Mapping[str, str] = attrs.field(factory=dict)
    compares: Comparison = "speed"
    unit: str = "µs a task"
    has_tail: bool = False

    def ratio(self, name: str, peer: str) -> float | None:
        """Return how one row compares to another; None if one was not measured."""
        if not {name, peer} <= self.rows.keys():
            return None
        own, others = self.rows[name], self.rows[peer]
        return others.over(own) if self.compares == "speed" else own.over(others)

    def markdown(self) -> str:
        """Return the table as Markdown, aligned, so that it reads well as plain text too."""
        peers = {heading: peer for heading, peer in self.peers.items() if peer in self.rows}
        head = ["", "median", "min", "max", *(["p95"] if self.has_tail else []), *peers]
        body = [
            [name, *self._figures(figures), *self._ratios(name, peers)] for name, figures in self.rows.items()
        ]
        legend = "".join(f"; {heading}: {self.compares}, {peer} = 1" for heading, peer in peers.items())
        return f"**{self.title}** ({self.unit}{legend})\n\n{_aligned([head, *body])}"

    def _figures(self, figures: Figures) -> list[str]:
        shown = [figures.median, min(figures.samples), max(figures.samples)]
        return [_number(value) for value in [*shown, *([figures.quantile(0.95)] if self.has_tail else [])]]

    def _ratios(self, name: str, peers: Mapping[str, str]) -> list[str]:
        return [f"{self.ratio(name, peer):.2f}" for peer in peers.values()]

    def json(self) -> dict[str, Any]:
        """Return the table as a JSON object."""
        return {
            "title": self.title,
            "unit": self.unit,
            "compares": self.compares,
            "rows": [self._row(name, figures) for name, figures in self.rows.items()],
        }

    def _row(self, name: str, figures: Figures) -> dict[str, Any]:
        return {
            "name": name,
            "median": figures.median,
            "min": min(figures.samples),
            "max": max(figures.samples),
            "p95": figures.quantile(0.95),
            "samples": list(figures.samples),
            "ratios": {peer: self.ratio(name, peer) for peer in self.peers.values() if peer in self.rows},
        }


@attrs.frozen
class Target:
    """What is to be reached.

    Attributes:
        text: What is compared with what.
        bound: The figure that counts.
        measured: What was found; None where a peer is missing.
        is_least: Whether the bound is the least that will do; else it is the most.
        unit: Of both.
    """

    text: str
    bound: float
    measured: float | None
    is_least: bool = True
    unit: str = " times"

    @property
    def is_met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound

    def row(self) -> list[str]:
        """Return the cells of its line in the table of targets."""
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[self.is_met]
        measured = "" if self.measured is None else f"{_number(self.measured)}{self.unit}"
        return [self.text, f"{'≥' if self.is_least else '≤'} {self.bound:g}{self.unit}", measured, verdict]

    def json(self) -> dict[str, Any]:
        """Return the target as a JSON object."""
        return {**attrs.asdict(self), "is_met": self.is_met}


@attrs.frozen
class Answer:
    """What one question came to."""

    tables: Sequence[Table]
    targets: Sequence[Target] = ()

    def markdown(self) -> str:
        """Return tables and targets as Markdown."""
        parts = [table.markdown() for table in self.tables]
        if self.targets:
            lines = [target.row() for target in self.targets]
            parts.append(_aligned([["target", "wanted", "measured", ""], *lines]))
        return "\n\n".join(parts)

    def json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return {
            "tables": [table.json() for table in self.tables],
            "targets": [target.json() for target in self.targets],
        }


@attrs.frozen
class Group:
    """A table before it is measured.

    Attributes:
        title: See `Table`.
        contenders: By name.
        peers: See `Table`.
        compares: See `Table`.
    """

    title: str
    contenders: Mapping[str, Contender]
    peers: Mapping[str, str] = attrs.field(factory=dict)
    compares: Comparison = "speed"


async def compare(groups: Sequence[Group], rounds: int, say: Say) -> list[Table]:
    """Measure several tables in the same rounds, so that figures of one may be compared with another's."""
    contenders = [contender for group in groups for contender in group.contenders.values()]
    figures = iter(await take_turns(contenders, rounds, say))
    return [
        Table(group.title, {name: next(figures) for name in group.contenders}, group.peers, group.compares)
        for group in groups
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]

    def cells(line: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        return f"| {' | '.join([line[0].ljust(widths[0]), *rest])} |"

    return "\n".join(cells(line) for line in [lines[0], rule, *lines[1:]])
