"""A run as it goes: one line an actor on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import attrs
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .printing import console, is_terminal, say, visible
from .telling import ENDS, described, named, tell_line, tell_lines_of_another, waits_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from contextlib import AbstractContextManager

    from rich.console import Console, RenderableType

__all__ = ["Board", "Row", "Watcher", "watching"]

TAIL: Final = 8  # lines of streamed text that are shown below the actors
_LOOKS: Final = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "asking": ("?", "yellow"),
    "done": ("✓", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✗", "red"),
    "cancelled": ("✗", "yellow"),
}


@attrs.define
class Row:
    """Where one actor stands.

    Attributes:
        state: "waiting", "running", "retrying", "asking", "done", "skipped", "failed" or "cancelled".
        since: When it was started, in seconds of the board's clock, while it runs.
        seconds: How long it took, once it is over.
        note: What there is to add.
        attempt: The attempt at which it is.
        again_at: When the next attempt begins, while it is retrying.
    """

    state: str = "waiting"
    since: float | None = None
    seconds: float | None = None
    note: str = ""
    attempt: int = 1
    again_at: float = 0.0


def _at_once(_: Mapping[str, Any]) -> float:
    return 0.0


def _since_told(event: Mapping[str, Any]) -> float:
    return max(time.time() - float(event["time"]), 0.0)


class Board:
    """What the events so far say of each actor, and the text that is being written.

    Args:
        now: A clock that only goes forward, in seconds.
        lag: Tells how many seconds ago an event happened.
        hint: What is shown as long as there is no event.
        parks: Whether who asks makes room until there is an answer, and is told to be cancelled then.

    Attributes:
        rows: The actors, in the order of the graph.
        is_over: Whether nothing will change any more.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        lag: Callable[[Mapping[str, Any]], float] = _at_once,
        hint: str = "",
        parks: bool = False,
    ) -> None:
        self.rows: dict[str, Row] = {}
        self.is_over = False
        self.hint = hint
        self._texts: dict[str, str] = {}
        self._now = now
        self._lag = lag
        self._parks = parks
        self._speakers: Collection[str] | None = None

    @property
    def text(self) -> str:
        """What the actors of the final output have written so far."""
        return "".join(list(self._texts.values()))

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one more event into account."""
        kind = event["type"]
        if kind == "workflow_start":
            self.rows = {name: Row() for name in event["agents"]}
            self._texts, self._speakers = {}, event.get("output")
        elif kind in {"workflow_complete", "workflow_error"}:
            self.stop()
        elif kind == "text_chunk":
            self._write(event["agent"], event["text"])
        elif "agent" in event:
            self._move(self.rows.setdefault(event["agent"], Row()), kind, event)

    def look(self, row: Row) -> tuple[str, float | None, str]:
        """Return what a row says now: state, seconds (None if it did not run) and note."""
        if row.since is None:
            return row.state, row.seconds, row.note
        now = self._now()
        if row.state == "retrying" and now >= row.again_at:
            return "running", now - row.since, f"attempt {row.attempt + 1}"
        return row.state, now - row.since, row.note

    def stop(self) -> None:
        """Take note that the run is over: what still ran was cancelled."""
        for row in self.rows.values():
            if row.since is not None or row.state == "asking":
                row.state, row.note = "cancelled", ""
        self.leave()

    def answered(self, agent: str) -> None:
        """Take note that an actor that asked goes on."""
        row = self.rows.get(agent)
        if row is not None and row.state == "asking":
            row.state, row.note = "running", ""

    def leave(self) -> None:
        """Take note that nobody looks any more: times stand still, and the text is taken away."""
        self._texts, self.hint, self.is_over = {}, "", True
        for row in self.rows.values():
            row.state, row.seconds, row.note = self.look(row)
            row.since = None

    def _write(self, agent: str, text: str) -> None:
        if self._speakers is None or agent in self._speakers:
            self._texts[agent] = self._texts.get(agent, "") + text

    def _move(self, row: Row, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "agent_start":
            again = f"round {event['round'] + 1}" if event.get("round") else ""
            row.state, row.since, row.seconds, row.note = "running", self._began(event), None, again
        elif kind == "agent_retry":
            row.state, row.note, row.attempt = "retrying", described(event), event["attempt"]
            row.again_at = self._began(event) + event["delay"]
        elif kind == "input_required":
            row.state, row.note = "asking", described(event)
        elif kind == "agent_cancelled" and self._parks and waits_for(event["agent"], self._asking()):
            row.state, row.seconds, row.since = "asking", self._seconds(row, event), None
        elif kind in ENDS:
            row.state, row.seconds, row.note = ENDS[kind], self._seconds(row, event), described(event)
            row.since = None
        if kind in _VOIDS:
            self._texts.pop(event["agent"], None)

    def _asking(self) -> list[str]:
        return [name for name, row in self.rows.items() if row.state == "asking"]

    def _began(self, event: Mapping[str, Any]) -> float:
        return self._now() - self._lag(event)

    def _seconds(self, row: Row, event: Mapping[str, Any]) -> float | None:
        if "seconds" in event:
            return float(event["seconds"])
        return row.seconds if row.since is None else self._began(event) - row.since


# After these the text that an actor has written counts no more
_VOIDS: Final = frozenset({"agent_start", "agent_retry", "agent_cancelled"})


# On a terminal


def drawn(board: Board, screen: Console) -> RenderableType:
    """Return the board as it is to be seen now: a line an actor, and below the end of the text."""
    table = Table.grid(padding=(0, 1))
    for least in (1, 1, _STATE_WIDTH, 7):
        table.add_column(no_wrap=True, min_width=least)
    table.add_column()
    rows = list(board.rows.items())
    shown = rows if board.is_over else _most_telling(rows, screen.height - 2)
    for name, row in shown:
        state, seconds, note = board.look(row)
        sign, style = _LOOKS[state]
        time_taken = "" if seconds is None else f"{seconds:.1f} s"
        cells = (sign, named(name), state, time_taken.rjust(7), note)
        table.add_row(*(_cell(cell, style) for cell in cells))
    return Group(table, *(_cell(line, "dim") for line in _below(board, len(shown), screen.height)))


_STATE_WIDTH: Final = max(map(len, _LOOKS))  # nothing jumps when a state changes


def _cell(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _most_telling(rows: list[tuple[str, Row]], room: int) -> list[tuple[str, Row]]:
    """Return as many rows as there is room for, in their order; what waits or is over gives way first."""
    if len(rows) <= room:
        return rows
    first = sorted(rows, key=lambda each: each[1].since is None)[: max(room, 1)]
    names = {name for name, _ in first}
    return [each for each in rows if each[0] in names]


def _below(board: Board, shown: int, height: int) -> list[str]:
    """Return the lines below the actors."""
    if not board.rows and board.hint:
        return [board.hint]
    hidden = len(board.rows) - shown
    more = [f"  and {hidden} more"] if hidden else []
    room = max(min(TAIL, height - shown - 3), 0)
    return more + ([f"  {line}" for line in visible(board.text).splitlines()[-room:]] if room else [])


# Either


@attrs.frozen
class Watcher:
    """Shows a run.

    Attributes:
        take: Called with each event.
        say: Tells a person something beside it.
        screen: The console that is drawn on; None in a pipe.
        aside: Draws nothing while its block lasts, in which the given actor asks.
    """

    take: Callable[[Mapping[str, Any]], None]
    say: Callable[[str], None]
    screen: Console | None
    aside: Callable[[str], AbstractContextManager[object]] = nullcontext


@contextmanager
def watching(*, follows: bool = False) -> Iterator[Watcher]:
    """Show a run on stderr while the block lasts; what it leaves on a terminal is one line an actor.

    Args:
        follows: Whether the run is another process's, which goes on when the block is left, and whose
            events may be old.
    """
    if not is_terminal(sys.stderr):
        yield Watcher(tell_lines_of_another() if follows else tell_line, say, None)
        return
    screen = console(sys.stderr)
    hint = "Waiting for a worker."
    board = Board(lag=_since_told, hint=hint, parks=True) if follows else Board()
    with Live(console=screen, get_renderable=lambda: drawn(board, screen), refresh_per_second=10) as live:
        try:
            yield Watcher(
                board.take,
                lambda text: screen.print(text, markup=False),
                screen,
                lambda agent: _aside(live, board, agent),
            )
        finally:
            board.leave() if follows else board.stop()


@contextmanager
def _aside(live: Live, board: Board, agent: str) -> Iterator[None]:
    live.stop()
    try:
        yield
    finally:
        board.answered(agent)
        live.start()
