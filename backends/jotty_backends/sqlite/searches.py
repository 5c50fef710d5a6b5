"""The questions that an index must answer: what to claim, what is next, what a `Query` finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import TERMINAL, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jotty.core.queue import Query

__all__ = ["LIVE_SQL", "MOST", "PICK", "SOONEST", "search"]

MOST: Final = 2**63 - 1  # the greatest number that SQLite can hold
_PRIORITIES: Final = range(1, 6)

# SQLite takes a partial index only where the index's own condition stands in the query, word by word
LIVE_SQL: Final = "status NOT IN ('completed', 'failed', 'cancelled')"
_ONE_LINE: Final = (
    "SELECT * FROM (SELECT {} FROM tasks WHERE status = 'pending' AND lane = ?1 AND priority = {}"
)


def _by_priority(columns: str, tail: str) -> str:
    """One seek for each priority, the most urgent first."""
    arms = (f"{_ONE_LINE.format(columns, priority)} {tail})" for priority in _PRIORITIES)
    return " UNION ALL ".join(arms)


# (priority, run_at, seq) of what is ready in a lane
PICK: Final = " ".join(
    [_by_priority("priority, run_at, seq", "AND run_at <= ?2 ORDER BY run_at, seq LIMIT ?3"), "LIMIT ?3"]
)
# for each priority the soonest run_at in a lane, then the soonest due of all
SOONEST: Final = " UNION ALL ".join(
    [
        _by_priority("run_at", "ORDER BY run_at, seq LIMIT 1"),
        "SELECT * FROM (SELECT due FROM tasks WHERE due IS NOT NULL ORDER BY due LIMIT 1)",
    ]
)


def search(query: Query) -> tuple[str, str, list[Any]]:
    """Return the tables, the rest of the statement and the values that find what a query asks for.

    The condition that leaves the fewest tasks leads; a `+` keeps the others from being answered by an index.
    """
    source, lead, values, order = _lead(query)
    conditions = [lead] if lead else []
    for condition, value in _others(query):
        conditions.append(condition)
        values.extend(value)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    return source, f"{where}ORDER BY {order} LIMIT ?", [*values, min(query.limit, MOST)]


def _lead(query: Query) -> tuple[str, str, list[Any], str]:
    after = query.after_seq
    if query.due_before is not None:
        return "tasks t", "t.due <= ?", [query.due_before], "t.due, t.seq"
    if query.key is not None:
        live = f" AND {LIVE_SQL.replace('status', 't.status')}" if _is_live(query.statuses) else ""
        return "tasks t", f"t.key = ?{live}", [query.key], "t.seq"
    if query.finished_before is not None and not after:
        return (
            "tasks t",
            "t.finished_at > 0 AND t.finished_at < ?",
            [query.finished_before],
            "t.finished_at, t.seq",
        )
    if query.tag is not None:
        return "tags g CROSS JOIN tasks t ON t.seq = g.task", "g.tag = ?", [query.tag], "g.task"
    if query.statuses is not None and len(query.statuses) == 1 and TaskStatus.COMPLETED not in query.statuses:
        (status,) = query.statuses
        return "tasks t", "t.status = ? AND t.status <> 'completed'", [status.value], "t.seq"
    return "tasks t", "", [], "t.seq"


def _others(query: Query) -> Iterable[tuple[str, list[Any]]]:
    if query.after_seq:
        yield "t.seq > ?", [min(query.after_seq, MOST)]
    if query.statuses is not None:
        statuses = [status.value for status in query.statuses]
        yield f"+t.status IN ({', '.join('?' * len(statuses))})", statuses
    if query.lane is not None:
        yield "+t.lane = ?", [query.lane]
    if query.finished_before is not None:
        yield "+t.finished_at > 0 AND +t.finished_at < ?", [query.finished_before]
    if query.tag is not None:
        yield "EXISTS (SELECT 1 FROM tags WHERE tag = ? AND task = t.seq)", [query.tag]
    if query.key is not None:
        yield "+t.key = ?", [query.key]


def _is_live(statuses: Iterable[TaskStatus] | None) -> bool:
    return statuses is not None and TERMINAL.isdisjoint(statuses)
