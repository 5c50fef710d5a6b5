import pytest

from jotty.testing import TaskQueueConformance
from jotty_plain.document import DocumentBackend


class TestDocument(TaskQueueConformance):
    @pytest.fixture
    def open_backend(self, clock, store_directory):
        return lambda: DocumentBackend(store_directory / "tasks.json", clock=clock)
