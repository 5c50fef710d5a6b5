from __future__ import annotations

import json
import shutil
import signal
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.core.queue import open_queue

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from jotty.core.queue import WorkerInfo
    from tests.cli.conftest import Jotty, Start

ROOM = 1.0  # seconds for a busy machine

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
    _, log = worker.communicate(timeout=60)

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
    worker.communicate(timeout=60)

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
    worker.communicate(timeout=60)

    assert 0 == worker.returncode
    assert {"completed": 1, "pending": 1} == states(jotty, queue_url)


def test_a_task_is_followed_while_another_process_runs_it(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    task_id = jotty("enqueue", str(app_file), "Greet", "-q", queue_url, "-c", "name=Ada").stdout.strip()
    follower = start("tail", task_id, "-q", queue_url)
    start("worker", str(app_file), "-q", queue_url, "--drain").communicate(timeout=60)

    out, _ = follower.communicate(timeout=60)

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
    out, err = follower.communicate(timeout=60)

    assert ": started" in first
    assert "" == out
    assert 130 == follower.returncode
    assert "Traceback" not in err
    assert worker.poll() is None
    assert {"in_progress": 1} == states(jotty, queue_url)


STUCK = """
import time

from jotty.core.orchestration import Conductor


def in_a_thread(goal):
    print("working", flush=True)
    time.sleep(60)


async def on_the_loop(goal):
    print("working", flush=True)
    time.sleep(60)


async def cleans_up_slowly(goal):
    import anyio

    print("working", flush=True)
    try:
        await anyio.sleep(60)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(60)


conductor = Conductor([{actor}])
"""


@pytest.fixture(params=["in_a_thread", "on_the_loop", "cleans_up_slowly"])
def stuck(
    request: pytest.FixtureRequest, app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> subprocess.Popen[str]:
    """Start a worker that has begun with a goal whose actor does not end when it is cancelled."""
    app_file.write_text(STUCK.format(actor=request.param))
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    process = start("worker", str(app_file), "-q", queue_url, "--grace", "0.5")
    assert process.stdout is not None
    assert "working\n" == process.stdout.readline()
    return process


def test_c49_a_worker_exits_in_time_whatever_its_actors_do(
    stuck: subprocess.Popen[str], jotty: Jotty, queue_url: str
) -> None:
    stuck.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, log = stuck.communicate(timeout=60)
    took = time.monotonic() - started

    assert 0 == stuck.returncode
    assert 0.5 <= took < 1.5 + ROOM
    assert "is released" in log
    assert {"pending": 1} == states(jotty, queue_url)
    (task,) = json.loads(jotty("list", "-q", queue_url, "--json").stdout)
    assert 0 == task["attempt"]
    assert [] == anyio.run(workers, queue_url)


async def workers(queue_url: str) -> list[WorkerInfo]:
    async with open_queue(queue_url) as queue:
        return await queue.workers()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_c49_the_second_signal_ends_a_worker_whatever_its_actors_do(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start, number: signal.Signals, code: int
) -> None:
    app_file.write_text(STUCK.format(actor="on_the_loop"))
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    process = start("worker", str(app_file), "-q", queue_url, "--grace", "60")
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # or the two would be one
    process.send_signal(number)
    started = time.monotonic()
    process.communicate(timeout=60)
    took = time.monotonic() - started

    assert code == process.returncode
    assert took < 1 + ROOM
    assert {"pending": 1} == states(jotty, queue_url)


def test_what_an_actor_printed_is_not_lost_where_the_process_has_to_be_ended(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    app_file.write_text(STUCK.format(actor="in_a_thread").replace("time.sleep", 'print("last"); time.sleep'))
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    process = start("worker", str(app_file), "-q", queue_url, "--grace", "0.3")
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)

    assert "last\n" == out


def test_c49_the_second_signal_gives_back_what_does_not_end(
    stuck: subprocess.Popen[str], jotty: Jotty, queue_url: str
) -> None:
    stuck.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    stuck.send_signal(signal.SIGTERM)
    started = time.monotonic()
    stuck.communicate(timeout=60)

    assert 143 == stuck.returncode
    assert time.monotonic() - started < 1 + ROOM
    assert {"pending": 1} == states(jotty, queue_url)


READ_ONLY = """
import resource
import time

import anyio

from jotty.core.orchestration import Conductor


async def ends(goal):
    return "done"


async def waits(goal):
    await anyio.sleep(60)


def in_a_thread(goal):
    time.sleep(60)


async def on_the_loop(goal):
    time.sleep(60)


async def limit(goal):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written from here on
    print("limited", flush=True)


async def then(limit, goal):
    return {call}


conductor = Conductor([limit, then], output="then")
"""
CALLS = {
    "ends": "'done'",
    "waits": "await waits(goal)",
    "in_a_thread": "await anyio.to_thread.run_sync(in_a_thread, goal)",
    "on_the_loop": "await on_the_loop(goal)",
}


@pytest.mark.parametrize("store", ["sqlite", "file"])
@pytest.mark.parametrize("actor", CALLS)
def test_c49_what_cannot_be_given_back_is_named_and_the_exit_code_is_75(
    app_file: Path, tmp_path: Path, jotty: Jotty, start: Start, store: str, actor: str
) -> None:
    url = f"{store}:///{tmp_path / 'tasks'}"
    app_file.write_text(READ_ONLY.format(call=CALLS[actor]))
    task_id = jotty("enqueue", str(app_file), "Work", "-q", url).stdout.strip()
    process = start("worker", str(app_file), "-q", url, "--grace", "0.5")
    assert process.stdout is not None
    assert "limited\n" == process.stdout.readline()
    time.sleep(0.3)

    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, log = process.communicate(timeout=60)
    took = time.monotonic() - started

    named = [line for line in log.splitlines() if task_id in line and "at the cost of an attempt" in line]
    assert 75 == process.returncode, log
    assert 0.5 <= took < 1.5 + ROOM
    assert named, log
    assert log.count("could not be given back, trying again") <= 1
    assert "Stopping" in log
    assert "Stopped." in log
    assert "Traceback" not in log
    assert {"in_progress": 1} == states(jotty, url)


def test_a_worker_that_runs_nothing_ends_at_once_though_its_store_is_gone(
    app_file: Path, tmp_path: Path, start: Start
) -> None:
    app_file.write_text(SLOW)
    process = start("worker", str(app_file), "-q", f"file:///{tmp_path / 'tasks'}", "--grace", "20")
    assert process.stderr is not None
    while "Ctrl-C to stop" not in process.stderr.readline():
        pass
    time.sleep(0.5)
    shutil.rmtree(tmp_path / "tasks")
    while "does not answer" not in process.stderr.readline():
        pass

    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    process.communicate(timeout=30)

    assert 0 == process.returncode
    assert time.monotonic() - started < 1 + ROOM


def test_a_worker_whose_loop_is_blocked_says_that_it_stops_and_has_stopped(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    app_file.write_text(STUCK.format(actor="on_the_loop"))
    jotty("enqueue", str(app_file), "Work", "-q", queue_url)
    process = start("worker", str(app_file), "-q", queue_url, "--grace", "0.5")
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)

    assert "what runs has 0.5 s to finish" in log
    assert "Stopped." in log
    assert log.index("Stopping") < log.index("is released") < log.index("Stopped.")
