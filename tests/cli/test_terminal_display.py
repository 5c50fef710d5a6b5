from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class OnTerminal(Protocol):
    """Runs a command on a pseudo-terminal, and gives the exit code and what it showed, without escapes."""

    def __call__(self, *arguments: str, encoding: str = "utf-8") -> tuple[int, str]: ...


@pytest.fixture
def on_terminal(command: str, tmp_path: Path) -> OnTerminal:
    def run(*arguments: str, encoding: str = "utf-8") -> tuple[int, str]:
        ours, theirs = pty.openpty()
        environment = {
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": "120",
            "LINES": "40",
            "PYTHONIOENCODING": encoding,
        }
        process = subprocess.Popen(
            [command, *arguments], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        shown = read_all(ours)
        return process.wait(timeout=20), ESCAPES.sub("", shown).replace("\r\n", "\n")

    return run


def read_all(descriptor: int) -> str:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # so Linux tells that the other end is closed
            part = b""
        if not part:
            os.close(descriptor)
            return b"".join(parts).decode()
        parts.append(part)


def test_a_run_leaves_a_line_an_actor_and_the_result_as_markdown(
    on_terminal: OnTerminal, app_file: Path
) -> None:
    app_file.write_text(app_file.read_text().replace("The sum", "# The **sum**"))

    code, shown = on_terminal("run", str(app_file), "Greet")

    lines = [line.split() for line in shown.splitlines()]
    assert 0 == code
    assert {"greet", "count", "reply"} <= {line[1] for line in lines if line[2:3] == ["done"]}
    assert "an actor prints" in shown
    assert "The sum is 0." in shown
    assert "**" not in shown


def test_a_terminal_without_the_characters_gets_question_marks(
    on_terminal: OnTerminal, app_file: Path
) -> None:
    app_file.write_text(app_file.read_text().replace("welcome", "w€lcome"))

    code, shown = on_terminal("run", str(app_file), "Greet", encoding="iso8859-1")

    assert 0 == code
    assert "w?lcome" in shown
    assert ["?", "reply", "done"] in [line.split()[:3] for line in shown.splitlines()]


def test_a_failing_actor_is_marked_and_its_error_shown(on_terminal: OnTerminal, app_file: Path) -> None:
    code, shown = on_terminal("run", str(app_file), "Greet", "-c", "fail=true")

    assert 1 == code
    assert ["✗", "reply", "failed"] in [line.split()[:3] for line in shown.splitlines()]
    assert "Error: KeyError: 'boom'" in shown


def test_tasks_are_shown_as_a_table_and_enqueue_says_how_to_follow(
    on_terminal: OnTerminal, jotty: Jotty, app_file: Path, queue_url: str
) -> None:
    _, enqueued = on_terminal("enqueue", str(app_file), "Greet", "-q", queue_url)
    _, listed = on_terminal("list", "-q", queue_url)
    _, worked = on_terminal("worker", str(app_file), "--drain", "-q", queue_url)

    task_id = enqueued.split()[0]
    assert f"jotty tail {task_id}" in enqueued
    assert [task_id, "pending", "default", "3"] == listed.splitlines()[1].split()[:4]
    assert "\t" not in listed
    assert f"Task {task_id} is completed." in worked
