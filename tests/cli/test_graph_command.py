from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Jotty


@pytest.fixture
def done(jotty: Jotty, app_file: Path, queue_url: str) -> Callable[..., str]:
    """Enqueue a goal, have it run, and return its task."""

    def run(*options: str) -> str:
        task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url, *options).stdout.strip()
        jotty("worker", str(app_file), "--drain", "-q", queue_url)
        return task_id

    return run


def test_a_run_is_drawn_with_its_states_and_times(
    jotty: Jotty, app_file: Path, queue_url: str, done: Callable[..., str]
) -> None:
    task_id = done("-c", "fail=true", "--max-attempts", "1")

    mermaid = jotty("graph", str(app_file), "--task", task_id, "-q", queue_url)
    dot = jotty("graph", str(app_file), "--task", task_id, "-q", queue_url, "--format", "dot")
    document = json.loads(jotty("graph", str(app_file), "--task", task_id, "-q", queue_url, "--json").stdout)

    assert (0, "") == (mermaid.exit_code, mermaid.stderr)
    assert '    n0["greet<br>' in mermaid.stdout
    assert '    n2["reply<br>failed, ' in mermaid.stdout
    assert '    n2 [label="reply\\nfailed, ' in dot.stdout
    assert ["done", "done", "failed"] == [row["status"] for row in document["run"]["rows"]]


def test_a_run_is_drawn_in_the_mode_and_order_it_was_enqueued_with(
    jotty: Jotty, app_file: Path, queue_url: str, done: Callable[..., str]
) -> None:
    task_id = done("--order", "count,greet,reply")

    ran = jotty("graph", str(app_file), "--task", task_id, "-q", queue_url)

    assert ['n0["count', 'n1["greet', 'n2["reply'] == [
        line.split("<br>")[0].strip() for line in ran.stdout.splitlines() if "<br>" in line
    ]
    assert "    n0 --> n1\n    n1 --> n2\n" in ran.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--format", "svg"), 2, "svg"),
        (("--task", "nobody"), 2, "Which queue?"),
        (("--task", "nobody", "-q", "{queue}"), 3, "nobody"),
        (("--task", "nobody", "--mode", "static", "-q", "{queue}"), 2, "A task has its own mode and order."),
    ],
)
def test_what_cannot_be_drawn_is_said(
    jotty: Jotty, app_file: Path, queue_url: str, options: tuple[str, ...], code: int, words: str
) -> None:
    jotty("enqueue", str(app_file), "Greet", "-q", queue_url)

    ran = jotty("graph", str(app_file), *(each.format(queue=queue_url) for each in options))

    assert (code, "") == (ran.exit_code, ran.stdout)
    assert words in ran.stderr


def test_a_task_of_another_app_is_refused(
    jotty: Jotty, app_file: Path, queue_url: str, done: Callable[..., str]
) -> None:
    task_id = done()
    other = app_file.with_name("other.py")
    other.write_text("from jotty import Conductor\n\n\nasync def own(goal): ...\n\n\nc = Conductor([own])\n")

    ran = jotty("graph", str(other), "--task", task_id, "-q", queue_url)

    assert 2 == ran.exit_code
    assert f"Task {task_id} is none of this app's" in ran.stderr
