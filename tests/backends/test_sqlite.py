from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.testing import PointRules, SystemCallRules, TaskQueueConformance, task_queue_machine
from jotty.testing.conformance import go_on
from jotty_backends.sqlite import POINTS, SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock
    from jotty.testing.processes import Harness

MIGRATING = ("sqlite.migrate.before", "sqlite.migrate.after")
COMMITTING = ("sqlite.begin.before", "sqlite.begin.after", "sqlite.commit.before", "sqlite.commit.after")


class OnSQLite:
    @pytest.fixture
    def open_backend(self, clock: VirtualClock, store_directory: Path) -> Callable[[], QueueBackend]:
        return lambda: SQLiteBackend(store_directory / "tasks.db", clock=clock)


class TestSQLite(OnSQLite, TaskQueueConformance):
    points = tuple(point for point in POINTS if point not in MIGRATING)

    @pytest.mark.parametrize("where", MIGRATING)
    def test_killed_in_a_migration_a_store_is_of_one_version_or_the_other(
        self, harness: Harness, store_directory: Path, where: str
    ) -> None:
        harness.finish(harness.start("caller", calls=["enqueue_many", "claim", "complete"]))
        with closing(sqlite3.connect(store_directory / "tasks.db")) as older:
            older.executescript("DROP TABLE workers; PRAGMA user_version = 1")
        was_killed = harness.outlive(harness.start("caller", calls=["migrate"], kill_at=where))
        harness.finish(harness.start("caller", calls=["migrate"]))

        assert was_killed
        go_on(harness)


@pytest.mark.chaos
class TestSQLiteKilledAtEverySystemCall(OnSQLite, SystemCallRules):
    samples = None


@pytest.mark.chaos
class TestSQLiteKilledAtManyVisitsOfAPoint(OnSQLite, PointRules):
    points = COMMITTING
    visits = range(1, 40, 4)


EXAMPLES = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_sqlite_behaves_as_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
        path = tmp_path_factory.mktemp("store") / "tasks.db"
        return lambda: SQLiteBackend(path, clock=clock)

    run_state_machine_as_test(task_queue_machine(new_store), settings=EXAMPLES)
