from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from jotty.cli import progress
from jotty.cli.progress import Board, watching
from jotty.cli.telling import described, tell_line
from jotty.errors import InputRequired

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


def retried(agent: str = "write", delay: float = 0.5) -> dict[str, Any]:
    return {"type": "agent_retry", "agent": agent, "attempt": 1, "error": ERROR, "delay": delay}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    board = Board(now=clock)
    board.take({"type": "workflow_start", "agents": ["research", "write"], "output": ["write"]})
    return board


def test_every_actor_waits_at_first(board: Board) -> None:
    assert {"research": "waiting", "write": "waiting"} == {
        name: row.state for name, row in board.rows.items()
    }
    assert ("waiting", None, "") == board.look(board.rows["write"])


def test_the_time_of_a_running_actor_goes_on_and_that_of_a_finished_one_stands(
    board: Board, clock: Clock
) -> None:
    board.take(started())
    clock.now = 3.0
    running = board.look(board.rows["write"])
    board.take(completed())
    clock.now = 9.0

    assert ("running", 3.0, "") == running
    assert ("done", 1.5, "") == board.look(board.rows["write"])


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
            retried(),
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
    board.take(retried("research"))
    before = board.text
    board.take(retried("write"))

    assert "hello" == before
    assert "" == board.text


def test_what_still_runs_when_the_display_ends_was_cancelled(board: Board, clock: Clock) -> None:
    board.take(started())
    clock.now = 2.0
    board.stop()

    clock.now = 9.0

    assert ("cancelled", 2.0, "") == board.look(board.rows["write"])


def test_leaving_a_display_stops_the_time_but_says_of_nothing_that_it_was_cancelled(
    board: Board, clock: Clock
) -> None:
    board.take(started())
    clock.now = 2.0
    board.leave()
    clock.now = 9.0

    assert ("running", 2.0, "") == board.look(board.rows["write"])


@pytest.mark.parametrize("kind", ["workflow_complete", "workflow_error"])
def test_nothing_runs_when_the_run_is_over(board: Board, kind: str) -> None:
    board.take(started())
    board.take({"type": kind})

    assert "cancelled" == board.rows["write"].state


def test_a_retried_actor_runs_again_once_its_delay_is_over(board: Board, clock: Clock) -> None:
    board.take(started())
    board.take(retried(delay=0.5))
    clock.now = 0.4
    before = board.look(board.rows["write"])
    clock.now = 0.6

    assert "retrying" == before[0]
    assert ("running", 0.6, "attempt 2") == board.look(board.rows["write"])


def test_a_run_that_is_looked_at_late_has_run_since_its_start(clock: Clock) -> None:
    board = Board(now=clock, lag=lambda event: 10.0 - event["time"])
    clock.now = 100.0
    board.take({"type": "workflow_start", "agents": ["write"]})
    board.take({**started(), "time": 7.0})

    assert ("running", 3.0, "") == board.look(board.rows["write"])


def test_another_start_forgets_what_came_before(board: Board) -> None:
    board.take(started("research"))
    board.take({"type": "text_chunk", "agent": "write", "text": "hello"})
    board.take({"type": "workflow_start", "agents": ["research", "write"], "output": ["write"]})

    assert {"waiting"} == {row.state for row in board.rows.values()}
    assert "" == board.text


def test_an_actor_that_the_start_did_not_name_gets_a_line_too(board: Board) -> None:
    board.take(started("helper"))

    assert "running" == board.rows["helper"].state


def test_in_a_pipe_each_event_worth_it_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching() as watcher:
        watcher.take({"type": "workflow_start", "agents": ["write"], "output": ["write"]})
        watcher.take(started())
        watcher.take({"type": "text_chunk", "agent": "write", "text": "hello"})
        watcher.take(completed())
    tell_line({"type": "agent_skipped", "agent": "edit", "reason": "not wanted"})
    tell_line(started("plan/read[docs%2Fapi.md\n5%25]"))

    out, err = capsys.readouterr()
    assert "" == out
    assert [
        "write: started",
        "write: done in 1.50 s",
        "edit: skipped (not wanted)",
        "plan/read[docs/api.md 5%]: started",
    ] == err.splitlines()


def asked(agent: str) -> dict[str, Any]:
    told = {"type": "input_required", "agent": agent, "attempt": 1}
    return {**told, "key": "k", "question": "Go on?", "options": None}


def cancelled(agent: str) -> dict[str, Any]:
    return {"type": "agent_cancelled", "agent": agent, "attempt": 1}


PARKED = [
    *(started("section"), started("section/ask"), started("sect"), asked("section/ask")),
    *(cancelled("section/ask"), cancelled("section"), cancelled("sect")),
]


def test_a_follower_is_not_told_that_who_asks_or_waits_for_that_makes_room(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with watching(follows=True) as watcher:
        for event in [*PARKED, started("section"), cancelled("section")]:
            watcher.take(event)
        watcher.take(completed("section/ask"))
        watcher.take(cancelled("section"))

    assert [
        *("section: started", "section/ask: started", "sect: started", "section/ask: asks k: Go on?"),
        *("sect: cancelled", "section: started", "section/ask: done in 1.50 s", "section: cancelled"),
    ] == capsys.readouterr().err.splitlines()


def test_who_makes_room_for_a_question_below_is_asking_too(clock: Clock) -> None:
    board = Board(now=clock, parks=True)
    for event in PARKED:
        board.take(event)
        clock.now += 1.0
    parked = {name: board.look(row) for name, row in board.rows.items()}
    board.take(started("section"))

    assert {
        "section": ("asking", 5.0, ""),
        "section/ask": ("asking", 3.0, "Go on?"),
        "sect": ("cancelled", 4.0, ""),
    } == parked
    assert "running" == board.look(board.rows["section"])[0]


def test_what_python_can_do_for_a_question_is_not_told_on_the_command_line() -> None:
    error = {"type": "jotty.errors.InputRequired", "message": str(InputRequired("k", "Go on?"))}
    event = {"type": "agent_error", "agent": "a", "error": {**ERROR, **error}, "seconds": 1.0}

    assert "InputRequired: An actor asks 'Go on?' (key 'k') and nobody can answer." == described(event)


@pytest.mark.parametrize(
    ("message", "note"),
    [
        ("two\nlines", "ValueError: two lines"),
        ("\x1b[2J escapes", "ValueError: [2J escapes"),
        ("", "ValueError"),
        ("x" * 1000, f"ValueError: {'x' * 287}…"),
    ],
)
def test_an_error_is_told_in_one_short_line_that_controls_nothing(message: str, note: str) -> None:
    event = {"type": "agent_error", "agent": "write", "error": {**ERROR, "message": message}, "seconds": 1.0}

    assert note == described(event)


def shown(board: Board, width: int = 40, height: int = 20) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, height=height)
    screen.print(progress.drawn(board, screen))
    return screen.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]  # the StringIO from above


def test_on_a_terminal_there_is_one_line_an_actor_and_the_end_of_the_text(board: Board) -> None:
    board.take(started("research"))
    board.take({"type": "text_chunk", "agent": "write", "text": "\n".join(map(str, range(100)))})

    lines = shown(board)

    assert ["research", "running"] == lines[0].split()[1:3]
    assert ["write", "waiting"] == lines[1].split()[1:3]
    assert [str(number) for number in range(92, 100)] == [line.strip() for line in lines[2:]]


def test_what_was_spawned_has_its_key_as_it_was_given(board: Board) -> None:
    board.take(started("write/read[docs%2Fapi.md]"))

    assert ["write/read[docs/api.md]", "running"] == shown(board, width=60)[2].split()[1:3]


def test_a_long_note_is_cut_off_and_leaves_name_and_state_whole(board: Board) -> None:
    board.take(started("research"))
    board.take(retried("research"))

    lines = shown(board, width=50)

    assert 2 == len(lines)
    assert ["research", "retrying"] == lines[0].split()[1:3]
    assert lines[0].endswith("…")


def test_the_columns_stay_where_they_are_whatever_the_state(board: Board, clock: Clock) -> None:
    board.take(started("research"))
    before = shown(board)
    board.stop()

    assert {before[0].index("0.0 s")} == {shown(board)[0].index("0.0 s")}


def test_where_there_are_more_actors_than_lines_those_that_run_are_shown_and_at_the_end_all() -> None:
    board = Board()
    names = [f"actor{number:02}" for number in range(30)]
    board.take({"type": "workflow_start", "agents": names, "output": []})
    board.take(started("actor29"))
    during = shown(board, height=10)
    board.stop()

    assert "and 22 more" == during[-1].strip()
    assert "actor29" in during[-2]
    assert 10 > len(during)
    assert 30 == len(shown(board, height=10))


def test_before_the_first_event_there_is_a_hint_if_one_is_given(board: Board) -> None:
    assert ["Waiting for a worker."] == shown(Board(hint="Waiting for a worker."))
    assert [] == shown(Board())
