"""Actors and handlers that fork: the child ends where it would come back to jotty, the parent is unharmed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

if not hasattr(os, "fork"):
    pytest.skip("left out: no fork here", allow_module_level=True)

SCRIPT = """
import os
import sys

import anyio

from jotty.core.orchestration import Conductor, WorkflowMode
from jotty.core.queue import MemoryTaskQueue, QueueManager

pids = []


def fork():
    pid = os.fork()
    if pid:
        pids.append(pid)
        return "parent"
    print("a child prints")
    {child}
    return "child"


async def awaits(goal):
    await anyio.sleep(0)
    return fork()


def in_a_thread(goal):
    return fork()


async def streams(goal):
    yield "streamed by the "
    yield fork()


async def handles(task):
    return fork()


async def main():
    queue = MemoryTaskQueue()
    if {actor} is handles:
        tasks = [await queue.enqueue(number) for number in range(2)]
        await QueueManager(queue, handles).run(drain=True)
        results = [await queue.result(task.id) for task in tasks]
    else:
        workflow = WorkflowMode(Conductor([{actor}]), execution="async", queue=queue)
        tasks = [await workflow.enqueue_task("goal") for _ in range(2)]
        await workflow.process_queue(drain=True)
        results = [(await workflow.result(task))["final_output"] for task in tasks]
    print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids], flush=True)
    print([result.split()[-1] for result in results])


anyio.run(main, backend={backend!r})
"""


def run(actor: str, child: str, backend: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end, and to that of everyone who could still write to its output."""
    script = SCRIPT.format(actor=actor, child=child, backend=backend)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False, env=buffered
    )


@pytest.mark.parametrize("actor", ["awaits", "in_a_thread", "streams", "handles"])
@pytest.mark.parametrize(
    ("child", "code", "last_line"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no more')", 1, "no more"),
        ("raise ValueError('in vain')", 1, "ValueError: in vain"),
        ("os._exit(7)", 7, ""),
    ],
)
def test_a_forked_child_ends_where_its_actor_does(
    anyio_backend: str, actor: str, child: str, code: int, last_line: str
) -> None:
    ran = run(actor, child, anyio_backend)

    assert f"[{code}, {code}]" in ran.stdout
    assert ["['parent', 'parent']"] == ran.stdout.splitlines()[-1:]
    assert [last_line] * 2 == ran.stderr.splitlines() if last_line else not ran.stderr
    assert (0 if child.startswith("os._exit") else 2) == ran.stdout.count("a child prints")
    assert 0 == ran.returncode
