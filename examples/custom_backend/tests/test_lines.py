import pytest

from jotty.testing import TaskQueueConformance
from jotty_plain.lines import LinesBackend


class TestLines(TaskQueueConformance):
    @pytest.fixture
    def open_backend(self, clock, store_directory):
        return lambda: LinesBackend(store_directory / "tasks.log", clock=clock)
