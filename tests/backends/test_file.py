from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.testing import TaskQueueConformance, task_queue_machine
from jotty_backends.file import FileBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock


class TestFile(TaskQueueConformance):
    @pytest.fixture
    def open_backend(self, clock: VirtualClock, tmp_path: Path) -> Callable[[], QueueBackend]:
        return lambda: FileBackend(tmp_path / "tasks", clock=clock)


EXAMPLES = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_file_behaves_as_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
        path = tmp_path_factory.mktemp("store") / "tasks"
        return lambda: FileBackend(path, clock=clock)

    run_state_machine_as_test(task_queue_machine(new_store), settings=EXAMPLES)
