"""What happened in a task's run, and when: the journal as a table with bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import attrs
import typer
from rich.table import Table
from rich.text import Text

from jotty.core.orchestration import Timeline, TimelineRow
from jotty.core.orchestration.labels import readable

from .documents import took
from .printing import console, is_terminal, print_table, say, visible
from .store import answering

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jotty.core.queue import TaskQueue

__all__ = ["Axis", "bar", "print_steps", "steps_document", "timeline_of"]

_STYLES: Final = {
    "running": "cyan",
    "waits": "yellow",
    "done": "green",
    "goto": "magenta",
    "end": "magenta",
    "failed": "red",
    "skipped": "dim",
    "cancelled": "yellow",
}
_WORK, _WAIT = "█", "░"
_WIDE: Final = 100  # columns of a terminal that has room for long bars
_LONG, _SHORT = 32, 16

Span = tuple[float, float]


async def timeline_of(queue: TaskQueue, task_id: str) -> Timeline:
    """Return what the journal of a task tells so far.

    Raises:
        TaskNotFound: There is no such task.
    """
    timeline = Timeline()
    with answering(queue.url):
        async for entry in queue.events(task_id, follow=False):
            timeline.add_entry(entry)
    return timeline


def steps_document(timeline: Timeline) -> dict[str, Any]:
    """Return a timeline, to be printed as JSON."""
    return {
        "began": timeline.began,
        "ended": timeline.ended,
        "finished": timeline.finished,
        "known": timeline.known,
        "rows": [_row_document(row) for row in timeline.rows],
    }


def _row_document(row: TimelineRow) -> dict[str, Any]:
    names = ("label", "step", "depth", "round", "status", "attempts", "began", "ended", "seconds", "note")
    return {**{name: getattr(row, name) for name in names}, "questions": row.questions}


def print_steps(timeline: Timeline, now: float) -> None:
    """Print a timeline: with bars on a terminal, with tabs between the cells in a pipe.

    Args:
        timeline: The timeline.
        now: The time, in seconds: so long goes on what is not over.
    """
    typer.echo()
    if timeline.began is None:
        say("Nothing of it has run yet.")
    elif is_terminal(sys.stdout):
        _print_bars(timeline, now)
    else:
        columns = ["step", "round", "state", "attempts", "began", "took", "note"]
        print_table(columns, [_cells(row, timeline.began) for row in timeline.rows])
    if timeline.known and timeline.ended is None:
        say(f"{timeline.finished} of {timeline.known} known nodes are settled.")


def _cells(row: TimelineRow, start: float) -> list[str]:
    name = readable(row.label)
    label = visible(name if row.step is None else f"{name}: {row.step}")
    seconds = "" if row.seconds is None else f"{row.seconds:.3f}"
    began = f"{row.began - start:.3f}"
    note = visible(_note(row))
    return [label, str(row.round + 1), row.status, str(row.attempts), began, seconds, note]


def _note(row: TimelineRow) -> str:
    """Return what there is to add to a row, with what it was answered."""
    asked = []
    for each in row.questions:
        if each.is_open:
            asked.append(f"asks {each.key}: {each.question}")
        elif each.answered is not None:
            asked.append(f"{each.key}: {each.answer!r}{' by default' if each.is_default else ''}")
    return "; ".join(filter(None, [row.note, *asked]))


# On a terminal


def _print_bars(timeline: Timeline, now: float) -> None:
    screen = console(sys.stdout)
    rows = timeline.rows
    axis = Axis.of(rows, now, _LONG if screen.width >= _WIDE else _SHORT)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("took", no_wrap=True, justify="right")
    table.add_column(took(axis.total), no_wrap=True, min_width=axis.width)
    table.add_column("")
    for row in rows:
        style = _STYLES[row.status]
        cells = [_indented(row), _state(row), _took(row, now), bar(row, axis, now), _note(row)]
        table.add_row(*(_cell(cell, style) for cell in cells))
    screen.print(table)


def _cell(text: str, style: str) -> Text:
    return Text(" ".join(text.splitlines()), style, no_wrap=True, overflow="ellipsis")


def _indented(row: TimelineRow) -> str:
    name = visible(row.name if row.step is not None else readable(row.name))
    again = f", round {row.round + 1}" if row.round and row.step is None else ""
    return f"{'  ' * row.depth}{name}{again}"


def _state(row: TimelineRow) -> str:
    return f"{row.status}, {row.attempts} attempts" if row.attempts > 1 else row.status


def _took(row: TimelineRow, now: float) -> str:
    if row.status == "skipped":
        return ""
    return took(max(now - row.began, 0.0) if row.seconds is None else row.seconds)


@attrs.frozen
class Axis:
    """Time from left to right; while nothing was at work, but all waited for an answer, it stands still.

    Attributes:
        spans: When something was at work, in order, none touching another.
        width: How many columns there are.
    """

    spans: tuple[Span, ...]
    width: int

    @classmethod
    def of(cls, rows: Iterable[TimelineRow], now: float, width: int) -> Axis:
        """Return the axis for these rows."""
        merged: list[Span] = []
        for start, end in sorted(span for row in rows for span in _at_work(row, now)):
            if merged and start <= merged[-1][1]:
                start, end = merged[-1][0], max(end, merged[-1][1])  # noqa: PLW2901 - the two are one
                merged.pop()
            merged.append((start, end))
        return cls(tuple(merged), width)

    @property
    def total(self) -> float:
        """For how many seconds something was at work."""
        return sum(end - start for start, end in self.spans)

    def edge(self, instant: float) -> int:
        """Return how many columns are before an instant."""
        before = sum(min(instant, end) - start for start, end in self.spans if start < instant)
        return round(before / self.total * self.width) if self.total else 0


def bar(row: TimelineRow, axis: Axis, now: float) -> str:
    """Draw when a row was at work, and when it waited for an answer, however short that was."""
    columns = [" "] * axis.width
    for sign, spans in ((_WORK, _at_work(row, now)), (_WAIT, _waits(row, now))):
        for start, end in spans:
            first = min(axis.edge(start), axis.width - 1)
            for at in range(first, max(axis.edge(end), first + 1)):
                columns[at] = sign
    return "".join(columns).rstrip()


def _at_work(row: TimelineRow, now: float) -> Sequence[Span]:
    """Return when a row ran, without the times when it waited for an answer."""
    if row.status == "skipped":
        return ()
    spans, start = [], row.began
    for asked, answered in sorted(_waits(row, now)):
        if asked > start:
            spans.append((start, asked))
        start = max(start, answered)
    end = now if row.ended is None else row.ended
    return [*spans, (start, end)] if end > start or not spans else spans


def _waits(row: TimelineRow, now: float) -> list[Span]:
    """Return when a row waited for answers: its own, or of what it spawned."""
    until = now if row.ended is None else row.ended
    asked = [each for one in row.rows for each in one.questions]
    return [(each.asked, until if each.answered is None else each.answered) for each in asked]
