from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jotty.cli.failing import UsageError
from jotty.cli.options import parse_retention

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty, Start


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("1.5d", timedelta(hours=36)),
        ("never", None),
    ],
)
def test_a_retention_is_a_duration_or_never(text: str, kept: timedelta | None) -> None:
    assert kept == parse_retention(text)


@pytest.mark.parametrize("text", ["", "7", "-7d", "0d", "d", "for ever", "nan d"])
def test_what_is_no_retention_is_refused_and_never_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="never"):
        parse_retention(text)


def test_settings_that_contradict_each_other_are_refused_before_anything_is_done(
    app_file: Path, queue_url: str, tmp_path: Path, jotty: Jotty
) -> None:
    ran = jotty("worker", str(app_file), "-q", queue_url, "--lease-timeout", "20", "--heartbeat", "7")

    assert 2 == ran.exit_code
    assert "lease_timeout=20 s is under three heartbeats of 7 s" in ran.stderr
    assert not (tmp_path / "tasks.db").exists()


def test_a_heartbeat_of_a_third_of_the_lease_is_fine(app_file: Path, queue_url: str, jotty: Jotty) -> None:
    options = ("--lease-timeout", "10", "--heartbeat", "3.3", "--retention", "never", "--drain")
    ran = jotty("worker", str(app_file), "-q", queue_url, *options)

    assert 0 == ran.exit_code


def test_a_goal_of_other_actors_is_left_and_draining_ends(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url).stdout.strip()
    other = app_file.with_name("other.py")
    other.write_text(
        "from jotty import Conductor\n\n\nasync def sing(goal): ...\n\n\napp = Conductor([sing])\n"
    )

    process = start("worker", str(other), "-q", queue_url, "--drain")
    _, log = process.communicate(timeout=20)

    assert 0 == process.returncode
    assert f"Task {task_id} is left to other workers: it is meant for the actors greet, count, reply" in log
    assert 1 == len(re.findall(" WARNING .*is left", log))
    (task,) = json.loads(jotty("list", "-q", queue_url, "--json").stdout)
    assert ("pending", 0) == (task["status"], task["attempt"])


QUITTER = """
from jotty.core.orchestration import Conductor


async def quit(goal):
    raise {raised}


conductor = Conductor([quit])
"""


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("KeyboardInterrupt", "Actor 'quit' raised KeyboardInterrupt"),
        (
            "BaseExceptionGroup('g', [KeyboardInterrupt()])",
            "Something in this worker raised KeyboardInterrupt",
        ),
    ],
)
def test_c25_a_goal_that_interrupts_its_workers_has_failed_when_its_attempts_are_used_up(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start, raised: str, told: str
) -> None:
    app_file.write_text(QUITTER.format(raised=raised))
    task_id = jotty("enqueue", str(app_file), "Quit", "-q", queue_url, "--max-attempts", "1").stdout.strip()

    process = start("worker", str(app_file), "-q", queue_url)
    _, log = process.communicate(timeout=20)

    assert 130 == process.returncode
    assert log.endswith(f"\nError: {told}, which ended the worker. Raise an ordinary exception to fail.\n")
    assert "Traceback" not in log
    assert 1 == jotty("tail", task_id, "-q", queue_url).exit_code


def test_whatever_else_a_goal_raises_the_worker_goes_on(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    app_file.write_text(QUITTER.format(raised="BaseException(goal)"))
    for goal in ("one", "two"):
        jotty("enqueue", str(app_file), goal, "-q", queue_url, "--max-attempts", "1")

    process = start("worker", str(app_file), "-q", queue_url, "--drain")
    _, log = process.communicate(timeout=20)

    assert 0 == process.returncode
    assert ["one", "two"] == re.findall("is failed: BaseException: (.*)", log)
    assert "Traceback" not in log
