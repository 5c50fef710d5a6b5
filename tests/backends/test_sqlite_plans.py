"""SQLite answers by its indexes: what a call costs does not depend on what it does not touch."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import (
    MICROSECONDS,
    ClaimRequest,
    Head,
    Query,
    Record,
    TaskStatus,
)
from jotty_backends.sqlite.searches import PICK, SOONEST, search
from jotty_backends.sqlite.tables import _DELETE, _JOIN_BOTH, _OWNER, _WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jotty_backends.sqlite import SQLiteBackend

pytestmark = pytest.mark.anyio

S = TaskStatus
SECOND = MICROSECONDS
HOUR = 3600 * SECOND
ONE = ClaimRequest(("default",), 1, "w", 30 * SECOND)


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


def plan(path: Path, statement: str, values: Sequence[object]) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def is_dear(step: str) -> bool:
    """Whether a step reads a whole table, or sorts."""
    return "TEMP B-TREE" in step or (step.startswith("SCAN ") and "(subquery" not in step)


async def test_a_claim_seeks_once_for_each_priority(backend: SQLiteBackend, path: Path) -> None:
    picking, looking_ahead = plan(path, PICK, ("a", 1, 1)), plan(path, SOONEST, ("a",))
    seeks = "SEARCH tasks USING INDEX tasks_ready (lane=? AND priority=?"

    assert 5 == picking.count(f"{seeks} AND run_at<?)")
    assert 5 == looking_ahead.count(f"{seeks})")
    assert 1 == sum("tasks_due" in step for step in looking_ahead)
    assert [] == [step for step in (*picking, *looking_ahead) if is_dear(step)]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (_OWNER, "tasks_live_key (key=?)"),
        ("SELECT 1 FROM edges WHERE child = ?", "edges_child (child=?)"),
        *((statement, "(") for statement in _DELETE),
    ],
)
async def test_a_statement_seeks(backend: SQLiteBackend, path: Path, statement: str, index: str) -> None:
    (step,) = plan(path, statement, (1,))

    assert step.startswith("SEARCH ")
    assert step.endswith(index) or index == "("


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(due_before=5), "tasks_due (due<?)"),
        (Query(key="k", statuses=[S.PENDING]), "tasks_live_key (key=?)"),
        (Query(key="k", after_seq=3), "tasks_key (key=? AND rowid>?)"),
        (Query(finished_before=5, statuses=[S.FAILED, S.COMPLETED]), "tasks_finished (finished_at>? AND"),
        (Query(tag="t", after_seq=3), "PRIMARY KEY (tag=? AND task>?)"),
        (Query(statuses=[S.PENDING], lane="a", after_seq=3), "tasks_status (status=? AND rowid>?)"),
        (Query(statuses=[S.COMPLETED], lane="a", after_seq=3), "PRIMARY KEY (rowid>?)"),
    ],
)
async def test_a_search_seeks(backend: SQLiteBackend, path: Path, query: Query, index: str) -> None:
    source, rest, values = search(query)
    steps = plan(path, f"{_WHOLE} FROM {source} {_JOIN_BOTH} {rest}", values)

    assert index in steps[0]
    assert [] == [step for step in steps if is_dear(step)]
