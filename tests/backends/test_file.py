from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.testing import PointRules, SystemCallRules, TaskQueueConformance, task_queue_machine
from jotty_backends.file import POINTS, FileBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock
    from jotty.testing.processes import Harness


class OnFiles:
    # A short log is followed by a snapshot at once, and few tasks share a directory.
    tuning: ClassVar[Mapping[str, Any]] = {
        "jotty_backends.file.log._SMALL": 5_000,
        "jotty_backends.file.contents._SHARD": 2,
    }

    @pytest.fixture
    def open_backend(self, clock: VirtualClock, store_directory: Path) -> Callable[[], QueueBackend]:
        return lambda: FileBackend(store_directory / "tasks", clock=clock)

    def prepare(self, point: str, harness: Harness) -> dict[str, Any]:
        if "sync" in point:
            return {"url": f"{harness.url}?durability=power"}
        if "cut" in point:  # what a process left behind that was killed as it wrote
            harness.finish(harness.start("caller", calls=["enqueue_many", "claim"]))
            with Path(harness.url.removeprefix("file:///"), "tasks.log").open("ab") as log:
                log.write(b'{"crc":"12345678","hea')
        return {}


class TestFile(OnFiles, TaskQueueConformance):
    points = POINTS
    visits: ClassVar[Sequence[int]] = (1, 25)
    is_checked = True


@pytest.mark.chaos
class TestFileKilledAtEverySystemCall(OnFiles, SystemCallRules):
    samples = None


@pytest.mark.chaos
class TestFileKilledAtManyVisitsOfAPoint(OnFiles, PointRules):
    points = POINTS
    visits = range(1, 40, 4)


EXAMPLES = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_file_behaves_as_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
        path = tmp_path_factory.mktemp("store") / "tasks"
        return lambda: FileBackend(path, clock=clock)

    run_state_machine_as_test(task_queue_machine(new_store), settings=EXAMPLES)
