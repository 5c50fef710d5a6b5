from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.cli.conftest import Jotty, Start

SLOW = """
import anyio

from jotty.core.orchestration import Conductor


async def work(goal, ctx, seconds=60):
    ctx.text("first words\\n")
    print("working", flush=True)
    await anyio.sleep(seconds)
    return "done"


conductor = Conductor([work])
"""


@pytest.fixture
def worker(app_file: Path, queue_url: str, jotty: Jotty, start: Start) -> subprocess.Popen[str]:
    """Start a worker that has begun with a goal."""
    app_file.write_text(SLOW)
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    process = start("worker", str(app_file), "-q", queue_url, "--grace", "0.3")
    assert process.stdout is not None
    assert "working\n" == process.stdout.readline()
    return process


def states(jotty: Jotty, queue_url: str) -> dict[str, int]:
    document = json.loads(jotty("status", "-q", queue_url, "--json").stdout)
    return {state: count for state, count in document["total"].items() if count}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_gives_running_goals_the_grace_time_and_exits_with_0(
    worker: subprocess.Popen[str], jotty: Jotty, queue_url: str, number: signal.Signals
) -> None:
    worker.send_signal(number)
    _, log = worker.communicate(timeout=20)

    assert 0 == worker.returncode
    assert "what runs has 0.3 s to finish" in log
    assert "is released" in log
    assert {"pending": 1} == states(jotty, queue_url)


def test_the_second_signal_releases_at_once_and_exits_with_its_code(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    app_file.write_text(SLOW)
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    worker = start("worker", str(app_file), "-q", queue_url, "--grace", "60")
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdout.readline()
    worker.send_signal(signal.SIGTERM)
    while "has 60 s to finish" not in worker.stderr.readline():
        pass

    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)

    assert 143 == worker.returncode
    assert {"pending": 1} == states(jotty, queue_url)


def test_a_goal_that_ends_within_the_grace_time_is_completed(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    app_file.write_text(SLOW)
    jotty("enqueue", str(app_file), "Work", "-q", queue_url, "-c", "seconds=0.5")
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    worker = start("worker", str(app_file), "-q", queue_url, "--max-concurrent", "1")
    assert worker.stdout is not None
    worker.stdout.readline()

    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)

    assert 0 == worker.returncode
    assert {"completed": 1, "pending": 1} == states(jotty, queue_url)


def test_a_task_is_followed_while_another_process_runs_it(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url, "-c", "name=Ada").stdout.strip()
    follower = start("tail", task_id, "-q", queue_url)
    start("worker", str(app_file), "-q", queue_url, "--drain").communicate(timeout=20)

    out, _ = follower.communicate(timeout=20)

    assert 0 == follower.returncode
    assert "Hello Ada, welcome.\n" in out


def test_leaving_a_follower_by_ctrl_c_cancels_nothing(
    worker: subprocess.Popen[str], jotty: Jotty, queue_url: str, start: Start
) -> None:
    task_id = json.loads(jotty("list", "-q", queue_url, "--json").stdout)[0]["id"]
    follower = start("tail", task_id, "-q", queue_url)
    assert follower.stderr is not None
    first = follower.stderr.readline()

    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=20)

    assert ": started" in first
    assert "" == out
    assert 130 == follower.returncode
    assert "Traceback" not in err
    assert worker.poll() is None
    assert {"in_progress": 1} == states(jotty, queue_url)
