from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from threading import Timer
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class OnTerminal(Protocol):
    """Runs a command on a pseudo-terminal, and gives the exit code and what it showed, without escapes.

    It is interrupted once it has shown the given words.
    """

    def __call__(
        self, *arguments: str, encoding: str = "utf-8", columns: int = 120, interrupt_at: str = ""
    ) -> tuple[int, str]: ...


@pytest.fixture
def on_terminal(command: str, tmp_path: Path) -> OnTerminal:
    def run(
        *arguments: str, encoding: str = "utf-8", columns: int = 120, interrupt_at: str = ""
    ) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        environment = {
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": str(columns),
            "LINES": "40",
            "PYTHONIOENCODING": encoding,
        }
        process = subprocess.Popen(
            [command, *arguments], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        watchdog = Timer(30, process.kill)
        watchdog.start()
        shown = read(ours, interrupt_at)
        if interrupt_at:
            process.send_signal(signal.SIGINT)
            shown += read(ours)
        os.close(ours)
        watchdog.cancel()
        return process.wait(timeout=20), ESCAPES.sub("", shown).replace("\r\n", "\n")

    return run


def read(descriptor: int, until: str = "") -> str:
    """Read until the words have come, or to the end."""
    shown = b""
    while not (until and until.encode() in shown):
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # so Linux tells that the other end is closed
            part = b""
        if not part:
            break
        shown += part
    return shown.decode()


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
    jotty("enqueue", str(app_file), "A long\ngoal " * 50, "-q", queue_url, "-p", "1")
    _, both = on_terminal("list", "-q", queue_url)
    _, worked = on_terminal("worker", str(app_file), "--drain", "-q", queue_url)

    task_id = enqueued.split()[0]
    assert f"jotty tail {task_id}" in enqueued
    assert ["id", "status", "enqueued", "goal"] == listed.splitlines()[0].split()
    assert [task_id, "pending"] == listed.splitlines()[1].split()[:2]
    assert ["ago", "Greet"] == listed.splitlines()[1].split()[-2:]
    assert ["id", "status", "prio", "enqueued", "goal"] == both.splitlines()[0].split()
    assert 3 == len(both.splitlines())
    assert both.splitlines()[2].endswith("…")
    assert f"Task {task_id} is completed." in worked


def test_a_followed_run_looks_like_one_of_this_process(
    on_terminal: OnTerminal, jotty: Jotty, app_file: Path, queue_url: str
) -> None:
    app_file.write_text(app_file.read_text().replace("The sum", "# The **sum**"))
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url).stdout.strip()
    jotty("worker", str(app_file), "-q", queue_url, "--drain")

    code, shown = on_terminal("tail", task_id, "-q", queue_url)

    lines = [line.split() for line in shown.splitlines()]
    assert 0 == code
    assert {"greet", "count", "reply"} <= {line[1] for line in lines if line[2:3] == ["done"]}
    assert "The sum is 0." in shown
    assert "**" not in shown


def test_on_a_narrow_terminal_an_id_is_still_whole(
    on_terminal: OnTerminal, jotty: Jotty, app_file: Path, queue_url: str
) -> None:
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url).stdout.strip()

    _, listed = on_terminal("list", "-q", queue_url, columns=40)

    assert task_id in listed


def test_an_actor_that_ran_when_the_run_was_cancelled_is_marked(
    on_terminal: OnTerminal, app_file: Path
) -> None:
    app_file.write_text(
        "import anyio\nfrom jotty import Conductor\n"
        "async def wait(goal): await anyio.sleep(60)\nconductor = Conductor([wait])\n"
    )

    code, shown = on_terminal("run", str(app_file), "Wait", interrupt_at="running")

    assert 130 == code
    assert ["✗", "wait", "cancelled"] in [line.split()[:3] for line in shown.splitlines()]
    assert shown.endswith("Interrupted: the run was cancelled.\n")


def test_a_follower_waits_visibly_and_leaves_no_trace_of_it(
    on_terminal: OnTerminal, jotty: Jotty, app_file: Path, queue_url: str
) -> None:
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url).stdout.strip()

    code, shown = on_terminal("tail", task_id, "-q", queue_url, interrupt_at="Waiting for a worker.")

    assert 130 == code
    assert "Traceback" not in shown
    assert "pending" in jotty("show", task_id, "-q", queue_url).stdout
