"""The harness: processes are harmed as asked, told of, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import MemoryTaskQueue, TaskQueue
from jotty.errors import LeaseLost
from jotty.testing import History, check_history, read_history
from jotty.testing.processes import Harness, RecordedBackend
from jotty.testing.processes.tracing import WRITES, is_traceable, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jotty.testing import Event

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no SIGSTOP"),
]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    history = tmp_path / "history"
    history.mkdir()
    with Harness(f"sqlite:///{tmp_path}/tasks.db", history) as harness:
        yield harness


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_processes_do_is_told_and_judged(harness: Harness, loop: str) -> None:
    harness.finish(harness.start("producer", loop=loop, tasks=5, batch=2, keys=3))
    harness.start("worker", loop=loop, records=2)
    harness.start("manager", loop=loop, records=2)
    harness.drain()
    harness.end()
    verdict = harness.verdict()

    assert verdict.ok, verdict
    assert {"completed": verdict.figures.tasks} == verdict.figures.final
    assert {"enqueued", "claimed", "started", "recorded", "effect", "settled"} <= set(kinds(harness.events()))


def test_a_killed_process_is_told_of_once(harness: Harness) -> None:
    worker = harness.start("worker")
    harness.until("claiming", worker)
    harness.kill(worker)
    harness.events()

    assert worker.was_killed
    assert 1 == kinds(harness.events()).count("killed")


def test_a_process_that_kills_itself_at_a_point_is_told_of(harness: Harness) -> None:
    process = harness.start("producer", tasks=5, kill_at="sqlite.commit.after", visit=3)

    assert harness.outlive(process)
    assert ["killed"] == [event.kind for event in harness.events() if event.process == process.name][-1:]


def test_a_stopped_process_does_nothing_until_it_goes_on(harness: Harness) -> None:
    producer = harness.start("producer", tasks=100_000)
    harness.until("enqueued", producer)
    harness.stop(producer)
    time.sleep(0.05)
    before = len(harness.events())
    time.sleep(0.2)
    still = len(harness.events())
    harness.go_on(producer)
    harness.until("enqueued", producer, number=before)

    assert before == still


def test_an_error_in_a_process_is_shown(harness: Harness) -> None:
    process = harness.start("caller", calls=["no such call"])

    with pytest.raises(AssertionError, match=r"(?s)caller-1 ended with 1.*no such call"):
        harness.finish(process)


def test_what_does_not_come_is_not_waited_for_for_ever(harness: Harness) -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.1 s"):
        harness.until("killed", harness.start("worker"), timeout=0.1)


def test_no_process_outlives_the_harness(tmp_path: Path) -> None:
    with Harness(f"sqlite:///{tmp_path}/tasks.db", tmp_path) as harness:
        processes = [harness.start("worker"), harness.start("worker")]
        harness.until("claiming", *processes)
        harness.stop(processes[1])

    assert [-signal.SIGKILL] * 2 == [process.popen.returncode for process in processes]


def test_no_process_outlives_who_has_started_it(tmp_path: Path) -> None:
    script = """
import sys, time
from jotty.testing.processes import Harness
harness = Harness(f"sqlite:///{sys.argv[1]}/tasks.db", sys.argv[1])
worker = harness.start("worker")
harness.until("claiming", worker)
print(worker.popen.pid, flush=True)
time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    was_there = is_there(pid)
    starter.kill()
    starter.communicate()

    assert was_there
    assert wait_until(lambda: not is_there(pid))


def test_a_process_is_killed_at_a_system_call(harness: Harness) -> None:
    if not is_traceable():
        pytest.skip("left out: no strace")
    process = harness.start("caller", before=["stats"], calls=["enqueue"], waits=True)
    harness.until("ready", process)
    with traced(process, WRITES, kill_at=("pwrite64", 2)) as trace:
        process.send("go")
        was_killed = harness.outlive(process)

    assert was_killed
    assert ("pwrite64", 2) == trace.places()[-1]


def test_a_word_to_a_process_that_was_killed_is_not_heard(harness: Harness) -> None:
    process = harness.start("caller", calls=["enqueue"], waits=True)
    harness.until("ready", process)
    harness.kill(process)
    process.send("go")

    assert harness.outlive(process)


def test_a_process_may_be_killed_before_it_goes_on(harness: Harness) -> None:
    if not is_traceable():
        pytest.skip("left out: no strace")
    process = harness.start("worker")  # which calls write by itself
    harness.until("claiming", process)
    with traced(process, WRITES, kill_at=("flock", 1)):
        was_killed = harness.outlive(process)
        process.send("go")

    assert was_killed


def test_constants_are_changed_in_every_process(tmp_path: Path) -> None:
    tuning = {"jotty.core.queue.task.MAX_NAME": 2}
    with Harness(f"sqlite:///{tmp_path}/tasks.db", tmp_path, tuning=tuning) as harness:
        for loop in ("asyncio", "trio"):
            process = harness.start("caller", calls=["enqueue"], loop=loop)
            with pytest.raises(AssertionError, match="must be 1 to 2 printable characters"):
                harness.finish(process)
            harness.outlast(process)


async def test_a_recorded_backend_tells_what_was_acknowledged(tmp_path: Path) -> None:
    queue = TaskQueue(RecordedBackend(MemoryTaskQueue().backend, History(tmp_path, "worker")))
    await queue.enqueue("goal")
    (task,) = await queue.claim(worker="worker")
    await queue.heartbeat([task])
    await queue.record(task, [{"kind": "step"}, {"kind": "step"}])
    await queue.complete(task, {"a": 1})
    with pytest.raises(LeaseLost):
        await queue.record(task, [{"kind": "late"}])
    await queue.heartbeat([task])
    events = read_history(tmp_path)
    told = {event.kind: event for event in events}

    assert ["claiming", "claimed", "answered", "renewed", "recorded"] == kinds(events)[:5]
    # the version is stale after a heartbeat, so that it takes two tries
    assert ["settling", "settling", "settled", "lost"] == kinds(events)[5:]
    assert (1, 2) == (told["recorded"].details["first"], told["recorded"].details["last"])
    assert ("completed", {"a": 1}) == (told["settled"].details["status"], told["settled"].details["result"])
    assert {(task.id, 1)} == {(event.task, event.lease) for event in events if event.task}
    assert check_history(events, is_over=False).ok
