"""The file backend among processes that are killed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from jotty.testing import PointRules, ProcessRules, SystemCallRules
from jotty_backends.file import POINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.testing.processes import Harness


class OnFiles:
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return f"file:///{tmp_path}/tasks"


class TestFileAmongProcesses(OnFiles, ProcessRules):
    pass


# A short log is followed by a snapshot at once, and few tasks share a directory.
SMALL = {"jotty_backends.file.log._SMALL": 5_000, "jotty_backends.file.contents._SHARD": 2}


class TestFileKilledAtAPoint(OnFiles, PointRules):
    points = POINTS
    visits: ClassVar[Sequence[int]] = (1, 25)
    tuning = SMALL

    def prepare(self, point: str, harness: Harness) -> dict[str, Any]:
        if "sync" in point:
            return {"url": f"{harness.url}?durability=power"}
        if "cut" in point:  # what a process left behind that was killed as it wrote
            harness.finish(harness.start("caller", calls=["enqueue_many", "claim"]))
            with Path(harness.url.removeprefix("file:///"), "tasks.log").open("ab") as log:
                log.write(b'{"crc":"12345678","hea')
        return {}


class TestFileKilledAtASystemCall(OnFiles, SystemCallRules):
    pass


@pytest.mark.chaos
class TestFileKilledAtEverySystemCall(OnFiles, SystemCallRules):
    samples = None


@pytest.mark.chaos
class TestFileKilledAtManyVisitsOfAPoint(TestFileKilledAtAPoint):
    visits = range(1, 40, 4)
