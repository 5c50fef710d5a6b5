"""The pytest plugin, as a project sees it that has jotty installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jotty import Conductor, actor
from jotty.core.queue import MICROSECONDS, TaskQueue
from jotty.testing import StandIn, VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {
    "anyio._backends._asyncio",
    "hypothesis",
    "jotty.core",
    "jotty.testing.clock",
    "jotty_backends",
    "sqlite3",
}


@actor
async def greet(goal: str) -> str:
    return f"Hello, {goal}"


conductor = Conductor([greet])


def run_pytest(path: Path, code: str, *options: str) -> str:
    """Run pytest over one test file, and return all that it says."""
    (path / "test_it.py").write_text(code)
    (path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=False, timeout=60).stdout


def test_nothing_is_loaded_until_a_fixture_is_used() -> None:
    code = f"import jotty.testing.plugin, sys; print(sorted({HEAVY!r} & set(sys.modules)))"

    ran = subprocess.run(
        [sys.executable, "-c", f"import pytest; {code}"], capture_output=True, text=True, check=True
    )

    assert "[]" == ran.stdout.strip()


def test_a_workflow_runs_in_a_plain_test(run_workflow: Any) -> None:
    assert "Hello, Ada" == run_workflow(conductor, "Ada").final_output


@pytest.mark.anyio
@pytest.mark.parametrize("execution", ["sync", "async"])
async def test_a_workflow_runs_in_an_async_test(run_workflow: Any, execution: str) -> None:
    run = await run_workflow(conductor, "Ada", execution=execution)

    assert "Hello, Ada" == run.final_output


@pytest.fixture
async def opened(task_queue: TaskQueue) -> str:
    return (await task_queue.enqueue("goal", lane="other")).id


@pytest.mark.anyio
async def test_a_goal_goes_through_the_queue_of_the_test(
    opened: str, run_workflow: Any, task_queue: TaskQueue, virtual_clock: VirtualClock
) -> None:
    run = await run_workflow(conductor, "Ada", execution="async", delay=3600)
    counts = await task_queue.backend.count()

    assert {("default", "completed"): 1, ("other", "pending"): 1} == counts
    assert run.task == await task_queue.get(run.task.id)
    assert 3600 * MICROSECONDS <= virtual_clock.now() - VirtualClock().now()
    assert virtual_clock.now() == task_queue.backend.now()


def test_a_plain_test_may_stand_beside_an_async_fixture(
    opened: str, run_workflow: Any, anyio_backend: str
) -> None:
    assert "Hello, Ada" == run_workflow(conductor, "Ada", execution="async").final_output
    assert opened


@pytest.mark.anyio
async def test_an_actor_is_replaced_until_the_end_of_the_test(replace_actor: Any) -> None:
    stand_in = replace_actor(conductor, "greet", "scripted")

    assert "scripted" == (await conductor.run("Ada"))["final_output"]
    assert [{"goal": "Ada"}] == stand_in.calls
    assert isinstance(stand_in, StandIn)


@pytest.mark.anyio
async def test_and_is_back_in_the_next() -> None:
    assert (greet,) == conductor.actors


STORES = """
import pytest

@pytest.mark.anyio
@pytest.mark.parametrize("number", [1, 2])
async def test_stored(task_queue, number, run_workflow):
    await task_queue.enqueue("goal")
    stats = await task_queue.backend.count()
    print(task_queue.url.partition(":")[0], stats)
    assert stats == {("default", "pending"): 1}

def test_run(run_workflow):
    assert run_workflow([lambda_actor], execution="async", delay=86400).final_output == "test"

async def lambda_actor(goal):
    return goal
"""


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{tmp_path}/tasks.db", "file:///{tmp_path}/a store"])
def test_the_queue_may_be_any_and_is_new_for_each_test(tmp_path: Path, url: str) -> None:
    odd = tmp_path / "a %41 b?"

    said = run_pytest(tmp_path, STORES, "-s", "--jotty-queue", url, "--basetemp", str(odd))

    assert f"{url.partition(':')[0]} " in said
    assert "5 passed" in said


def test_the_url_may_stand_in_the_settings_or_be_overridden(tmp_path: Path) -> None:
    by_setting = run_pytest(tmp_path, STORES, "-s", "-o", "jotty_queue_url=sqlite:///{tmp_path}/tasks.db")
    override = "@pytest.fixture\ndef jotty_queue_url(tmp_path):\n    return f'file:///{tmp_path}/tasks'\n"
    by_fixture = run_pytest(tmp_path, STORES + override, "-s")

    assert "5 passed" in by_setting
    assert "sqlite " in by_setting
    assert "5 passed" in by_fixture
    assert "file " in by_fixture


def test_ids_are_the_same_in_each_run_of_a_test(tmp_path: Path) -> None:
    code = (
        "import pytest\n@pytest.mark.anyio\nasync def test_ids(task_queue):\n"
        "    print('id', (await task_queue.enqueue('goal')).id)\n"
    )
    first, second = (
        [line for line in run_pytest(tmp_path, code, "-s").splitlines() if "id" in line] for _ in range(2)
    )

    assert first == second
    assert first


def test_a_fixture_of_the_project_that_hides_one_of_these_is_told_of(tmp_path: Path) -> None:
    code = (
        "import pytest\n@pytest.fixture\ndef task_queue():\n    return ['mine']\n"
        "def test_mine(task_queue):\n    assert task_queue == ['mine']\n"
        "def test_theirs(run_workflow):\n    pass\n"
    )

    said = run_pytest(tmp_path, code)

    assert (
        "A fixture 'task_queue' of this project hides that of jotty, and gives no TaskQueue but ['mine']"
        in said
    )
    assert "1 passed, 1 error" in said


def test_the_fixtures_say_what_they_are(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "", "--fixtures")

    for name in ("virtual_clock", "task_queue", "run_workflow", "replace_actor", "jotty_queue_url"):
        assert f"\n{name} -- " in said
    assert "\n    no docstring" not in said.partition("run_workflow --")[2].partition("---")[0]


def test_it_can_be_left_out(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "def test_it(run_workflow):\n    pass\n", "-p", "no:jotty")

    assert "fixture 'run_workflow' not found" in said
