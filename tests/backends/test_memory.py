from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.testing import TaskQueueConformance, task_queue_machine
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock


class TestMemory(TaskQueueConformance):
    @pytest.fixture
    def open_backend(self, clock: VirtualClock) -> Callable[[], QueueBackend]:
        return MemoryBackend(clock=clock).clone


EXAMPLES = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_memory_behaves_as_the_model() -> None:
    machine = task_queue_machine(lambda clock: MemoryBackend(clock=clock).clone)

    run_state_machine_as_test(machine, settings=EXAMPLES)
