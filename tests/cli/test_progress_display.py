from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from jotty.cli import progress
from jotty.cli.progress import Board, described, tell_line, watching

ERROR = {"agent": "write", "attempt": 1, "type": "ValueError", "message": "too long"}


class Clock:
    """A clock that stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def started(agent: str = "write", number: int = 0) -> dict[str, Any]:
    return {"type": "agent_start", "agent": agent, "attempt": 1, "round": number}


def completed(agent: str = "write", kind: str = "output", **more: Any) -> dict[str, Any]:
    return {"type": "agent_complete", "agent": agent, "attempt": 1, "kind": kind, "seconds": 1.5, **more}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    board = Board(now=clock, speakers={"write"})
    board.take({"type": "workflow_start", "agents": ["research", "write"]})
    return board


def test_every_actor_waits_at_first(board: Board) -> None:
    assert {"research": "waiting", "write": "waiting"} == {
        name: row.state for name, row in board.rows.items()
    }
    assert board.elapsed(board.rows["write"]) is None


def test_the_time_of_a_running_actor_goes_on_and_that_of_a_finished_one_stands(
    board: Board, clock: Clock
) -> None:
    board.take(started())
    clock.now = 3.0
    running = board.elapsed(board.rows["write"])
    board.take(completed())
    clock.now = 9.0

    assert 3.0 == running
    assert "done" == board.rows["write"].state
    assert 1.5 == board.elapsed(board.rows["write"])


@pytest.mark.parametrize(
    ("event", "state", "note"),
    [
        (completed(), "done", ""),
        (completed(kind="goto", target="research"), "done", "goes to research"),
        (completed(kind="end"), "done", "ends the run"),
        (
            {"type": "agent_error", "agent": "write", "error": ERROR, "seconds": 1.0},
            "failed",
            "ValueError: too long",
        ),
        ({"type": "agent_skipped", "agent": "write", "reason": "not wanted"}, "skipped", "not wanted"),
        ({"type": "agent_cancelled", "agent": "write", "attempt": 1}, "cancelled", ""),
        (
            {"type": "agent_retry", "agent": "write", "attempt": 1, "error": ERROR, "delay": 0.5},
            "retrying",
            "attempt 1 failed (ValueError: too long), again in 0.5 s",
        ),
    ],
)
def test_each_event_moves_its_actor(board: Board, event: dict[str, Any], state: str, note: str) -> None:
    board.take(event)

    assert (state, note) == (board.rows["write"].state, board.rows["write"].note)
    assert note == described(event)


def test_a_second_round_is_told(board: Board) -> None:
    board.take(started(number=1))

    assert "round 2" == board.rows["write"].note


def test_only_the_text_of_the_speakers_is_kept_and_that_of_a_failed_attempt_is_dropped(board: Board) -> None:
    board.take({"type": "text_chunk", "agent": "research", "text": "aside "})
    board.take({"type": "text_chunk", "agent": "write", "text": "hello"})
    before = board.text
    board.take({"type": "agent_retry", "agent": "write", "attempt": 1, "error": ERROR, "delay": 0.5})

    assert "hello" == before
    assert "" == board.text


def test_what_still_runs_when_the_display_ends_was_cancelled(board: Board, clock: Clock) -> None:
    board.take(started())
    clock.now = 2.0
    board.stop()

    assert "cancelled" == board.rows["write"].state
    assert 2.0 == board.elapsed(board.rows["write"])


def test_an_actor_that_the_start_did_not_name_gets_a_line_too(board: Board) -> None:
    board.take(started("helper"))

    assert "running" == board.rows["helper"].state


def test_in_a_pipe_each_event_worth_it_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(None) as watcher:
        watcher.take({"type": "workflow_start", "agents": ["write"]})
        watcher.take(started())
        watcher.take({"type": "text_chunk", "agent": "write", "text": "hello"})
        watcher.take(completed())
    tell_line({"type": "agent_skipped", "agent": "edit", "reason": "not wanted"})

    assert ("", "write: started\nwrite: done in 1.50 s\nedit: skipped (not wanted)\n") == capsys.readouterr()


def test_on_a_terminal_there_is_one_line_an_actor_and_the_end_of_the_text(board: Board) -> None:
    screen = Console(file=io.StringIO(), width=40, height=20)
    board.take(started("research"))
    board.take({"type": "text_chunk", "agent": "write", "text": "\n".join(map(str, range(100)))})

    screen.print(progress.drawn(board, screen))

    shown = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO from above
    assert ["research", "running"] == shown[0].split()[1:3]
    assert ["write", "waiting"] == shown[1].split()[1:3]
    assert [str(number) for number in range(92, 100)] == [line.strip() for line in shown[2:]]
