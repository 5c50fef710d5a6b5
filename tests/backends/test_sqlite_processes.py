"""The SQLite backend among processes that are killed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from jotty.testing import PointRules, ProcessRules, SystemCallRules
from jotty.testing.conformance import go_on
from jotty_backends.sqlite import POINTS

if TYPE_CHECKING:
    from pathlib import Path

    from jotty.testing.processes import Harness

MIGRATING = ("sqlite.migrate.before", "sqlite.migrate.after")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


class OnSQLite:
    @pytest.fixture
    def store_url(self, path: Path) -> str:
        return f"sqlite:///{path}"


class TestSQLiteAmongProcesses(OnSQLite, ProcessRules):
    pass


class TestSQLiteKilledAtAPoint(OnSQLite, PointRules):
    points = tuple(point for point in POINTS if point not in MIGRATING)

    @pytest.mark.parametrize("where", MIGRATING)
    def test_killed_in_a_migration_a_store_is_of_one_version_or_the_other(
        self, harness: Harness, path: Path, where: str
    ) -> None:
        harness.finish(harness.start("caller", calls=["enqueue_many", "claim", "complete"]))
        with closing(sqlite3.connect(path)) as older:
            older.executescript("DROP TABLE workers; PRAGMA user_version = 1")
        was_killed = harness.outlive(harness.start("caller", calls=["migrate"], kill_at=where))
        harness.finish(harness.start("caller", calls=["migrate"]))

        assert was_killed
        go_on(harness)


class TestSQLiteKilledAtASystemCall(OnSQLite, SystemCallRules):
    pass


@pytest.mark.chaos
class TestSQLiteKilledAtEverySystemCall(OnSQLite, SystemCallRules):
    samples = None


@pytest.mark.chaos
class TestSQLiteKilledAtManyVisitsOfAPoint(OnSQLite, PointRules):
    points = ("sqlite.begin.before", "sqlite.begin.after", "sqlite.commit.before", "sqlite.commit.after")
    visits = range(1, 40, 4)
