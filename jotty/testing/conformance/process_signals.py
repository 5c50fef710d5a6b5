"""C49: what SIGTERM and SIGINT do to a worker, by `jotty worker` itself."""

from __future__ import annotations

import signal
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from jotty.core.queue import TaskStatus

from .process_rules import RealRules
from .terms import leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.processes import Harness, Process

__all__ = ["ProcessSignalRules"]

SLACK: Final = 1.0  # seconds, for a machine that has much else to do
APP: Final = """
from pathlib import Path

import anyio

from jotty.core.orchestration import Conductor


async def work(goal, seconds):
    Path(goal).touch()
    await anyio.sleep(seconds)
    return "done"


conductor = Conductor([work])
"""


@attrs.frozen
class _CommandLine:
    """Runs `jotty` under the harness, on an app with one actor that touches the goal, a path, and sleeps."""

    harness: Harness
    directory: Path

    def run(self, command: str, *arguments: str) -> Process:
        app = self.directory / "app.py"
        app.write_text(APP)
        tuning = f"from jotty.testing.processes.child import tune; tune({self.harness.tuning!r})"
        code = f"{tuning}; from jotty.cli import main; main()"
        options = [str(app), *arguments, "--queue", self.harness.url]
        number = len(self.harness.processes)
        return self.harness.run(f"{command}-{number}", [sys.executable, "-c", code, command, *options])

    def enqueue(self, goal: Path, *, seconds: float) -> None:
        self.harness.finish(self.run("enqueue", str(goal), "--context", f"seconds={seconds}"))

    def begun_worker(self, goal: Path, *arguments: str) -> Process:
        """Return a worker that runs the goal."""
        worker = self.run("worker", "--max-concurrent", "1", *arguments)
        self.harness.wait_for(goal.exists, f"{goal} was begun")
        return worker


class ProcessSignalRules(RealRules):
    """How a worker ends."""

    @pytest.fixture
    def command_line(self, request: pytest.FixtureRequest, harness: Harness, tmp_path: Path) -> _CommandLine:
        """The command line on the store."""
        if find_spec("typer") is None:
            leave_out(request, "the extra 'cli' is not installed")
        return _CommandLine(harness, tmp_path)

    def test_c49_what_runs_may_finish_and_nothing_new_is_begun(
        self, command_line: _CommandLine, tmp_path: Path
    ) -> None:
        """C49: SIGTERM: no new claim; running tasks finish within the grace time; exit 0."""
        for goal in ("one", "two"):
            command_line.enqueue(tmp_path / goal, seconds=0.5)
        worker = command_line.begun_worker(tmp_path / "one")
        worker.popen.send_signal(signal.SIGTERM)
        code = worker.popen.wait(10)

        assert 0 == code
        assert [(TaskStatus.COMPLETED, 1), (TaskStatus.PENDING, 0)] == command_line.harness.ask(_states)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_c49_what_does_not_finish_is_released_and_the_log_says_so(
        self, command_line: _CommandLine, tmp_path: Path, number: signal.Signals
    ) -> None:
        """C49: or are released (a log line says so); exit 0 within grace + 1 s."""
        command_line.enqueue(tmp_path / "one", seconds=60)
        worker = command_line.begun_worker(tmp_path / "one", "--grace", "0.5")
        began = time.monotonic()
        worker.popen.send_signal(number)
        code = worker.popen.wait(10)
        took = time.monotonic() - began
        (task,) = command_line.harness.ask(_all_tasks)

        assert 0 == code
        assert 0.5 <= took <= 1.5 + SLACK
        assert (TaskStatus.PENDING, 1, 0) == (task.status, task.lease, task.attempt)
        assert f"Task {task.id} is released" in worker.errors.read_text()

    @pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_c49_a_second_signal_releases_at_once(
        self, command_line: _CommandLine, tmp_path: Path, number: signal.Signals, expected: int
    ) -> None:
        """C49: a second signal releases at once, exit 130 or 143."""
        command_line.enqueue(tmp_path / "one", seconds=60)
        worker = command_line.begun_worker(tmp_path / "one", "--grace", "60")
        worker.popen.send_signal(number)
        command_line.harness.wait_for(lambda: "60 s to finish" in worker.errors.read_text(), "it was heard")
        began = time.monotonic()
        worker.popen.send_signal(number)
        code = worker.popen.wait(10)
        took = time.monotonic() - began
        (task,) = command_line.harness.ask(_all_tasks)

        assert expected == code
        assert took <= 1.0 + SLACK
        assert (TaskStatus.PENDING, 1, 0) == (task.status, task.lease, task.attempt)


async def _all_tasks(queue: TaskQueue) -> list[Task]:
    return [task async for task in queue.tasks()]


async def _states(queue: TaskQueue) -> list[tuple[TaskStatus, int]]:
    return [(task.status, task.lease) async for task in queue.tasks()]
