"""A run as it goes: one line an actor on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .printing import console, is_terminal, say

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from rich.console import Console, RenderableType

__all__ = ["Board", "Row", "Watcher", "described", "watching"]

TAIL: Final = 8  # lines of streamed text that are shown below the actors
_LOOKS: Final = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "done": ("✓", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✗", "red"),
    "cancelled": ("✗", "yellow"),
}


@attrs.define
class Row:
    """Where one actor stands.

    Attributes:
        state: "waiting", "running", "retrying", "done", "skipped", "failed" or "cancelled".
        since: When it was started, in seconds of the board's clock, while it runs.
        seconds: How long it took, once it is over.
        note: What there is to add.
    """

    state: str = "waiting"
    since: float | None = None
    seconds: float | None = None
    note: str = ""


class Board:
    """What the events so far say of each actor, and the text that is being written.

    Args:
        now: A clock that only goes forward, in seconds.
        speakers: The actors whose text is shown; None for all.
    """

    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, speakers: Collection[str] | None = None
    ) -> None:
        self.rows: dict[str, Row] = {}
        self.text = ""
        self._now = now
        self._speakers = speakers

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one more event into account."""
        kind = event["type"]
        if kind == "workflow_start":
            self.rows = {name: Row() for name in event["agents"]}
            self.text = ""
        elif kind == "text_chunk":
            if self._speakers is None or event["agent"] in self._speakers:
                self.text += event["text"]
        elif "agent" in event:
            self._move(self.rows.setdefault(event["agent"], Row()), kind, event)

    def elapsed(self, row: Row) -> float | None:
        """Return how long an actor has run or took, in seconds; None if it did not run."""
        return row.seconds if row.since is None else self._now() - row.since

    def stop(self) -> None:
        """Take note that nothing runs any more, and that the text is over."""
        self.text = ""
        for row in self.rows.values():
            if row.since is not None:
                row.state, row.seconds, row.since = "cancelled", self.elapsed(row), None

    def _move(self, row: Row, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "agent_start":
            again = f"round {event['round'] + 1}" if event.get("round") else ""
            row.state, row.since, row.seconds, row.note = "running", self._now(), None, again
        elif kind == "agent_retry":
            row.state, row.note, self.text = "retrying", described(event), ""
        elif kind in _ENDS:
            row.state, row.note = _ENDS[kind], described(event)
            row.seconds = event.get("seconds", self.elapsed(row))
            row.since = None


_ENDS: Final = {
    "agent_complete": "done",
    "agent_error": "failed",
    "agent_skipped": "skipped",
    "agent_cancelled": "cancelled",
}


def described(event: Mapping[str, Any]) -> str:
    """Return what an event of an actor adds to its state, for a person."""
    kind = event["type"]
    if kind == "agent_complete":
        return {"goto": f"goes to {event.get('target')}", "end": "ends the run"}.get(event["kind"], "")
    if kind == "agent_skipped":
        return str(event["reason"])
    if kind == "agent_error":
        return _error(event)
    if kind == "agent_retry":
        return f"attempt {event['attempt']} failed ({_error(event)}), again in {event['delay']:.1f} s"
    return ""


def _error(event: Mapping[str, Any]) -> str:
    return f"{event['error']['type']}: {event['error']['message']}"


# On a terminal


def drawn(board: Board, screen: Console) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for name, row in list(board.rows.items()):
        sign, style = _LOOKS[row.state]
        seconds = board.elapsed(row)
        time_taken = "" if seconds is None else f"{seconds:.1f} s"
        cells = (sign, name, row.state, time_taken.rjust(7), row.note)
        table.add_row(*(Text(cell, style, no_wrap=True, overflow="ellipsis") for cell in cells))
    room = max(min(TAIL, screen.height - len(board.rows) - 3), 0)
    lines = [line[: screen.width - 2] for line in board.text.splitlines()][-room:] if room else []
    return Group(table, *(Text(f"  {line}", "dim") for line in lines))


# In a pipe


def _line(event: Mapping[str, Any]) -> str | None:
    """Return the line that tells an event, or None if it is not told."""
    kind, note = event["type"], ""
    if kind == "agent_start":
        return f"{event['agent']}: started"
    if kind == "agent_retry":
        return f"{event['agent']}: {described(event)}"
    if kind not in _ENDS:
        return None
    note = described(event)
    seconds = f" in {event['seconds']:.2f} s" if "seconds" in event else ""
    return f"{event['agent']}: {_ENDS[kind]}{seconds}{f' ({note})' if note else ''}"


def tell_line(event: Mapping[str, Any]) -> None:
    """Tell an event on stderr, in a line of its own, if it is worth one."""
    line = _line(event)
    if line is not None:
        say(line)


# Either


@attrs.frozen
class Watcher:
    """Shows a run.

    Attributes:
        take: Called with each event.
        screen: The console that is drawn on; None in a pipe.
    """

    take: Callable[[Mapping[str, Any]], None]
    screen: Console | None


@contextmanager
def watching(speakers: Collection[str] | None) -> Iterator[Watcher]:
    """Show a run on stderr while the block lasts; what it leaves on a terminal is one line an actor.

    Args:
        speakers: The actors whose streamed text is shown as it comes, on a terminal; None for all.
    """
    if not is_terminal(sys.stderr):
        yield Watcher(tell_line, None)
        return
    screen = console(sys.stderr)
    board = Board(speakers=speakers)
    with Live(console=screen, get_renderable=lambda: drawn(board, screen), refresh_per_second=10):
        try:
            yield Watcher(board.take, screen)
        finally:
            board.stop()
