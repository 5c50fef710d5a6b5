"""Heads as rows of typed columns, and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from jotty.core.queue import Head, RetryPolicy, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COLUMNS", "REWRITTEN", "Row", "head_of", "row_of"]

Row = tuple[Any, ...]

# What a swap may write comes last, so that the tail of a row is what an UPDATE takes.
_WRITTEN_ONCE: Final = ("seq", "id", "tags", "created_at")
REWRITTEN: Final = (
    "priority",
    "lane",
    "status",
    "key",
    "depends_on",
    "on_dependency",
    "awaiting",
    "answered",
    "run_at",
    "due",
    "lease",
    "lease_until",
    "worker",
    "attempt",
    "max_attempts",
    "retry",
    "timeout",
    "cancel_requested",
    "postponed",
    "isolated",
    "progress",
    "started_at",
    "finished_at",
    "version",
)
COLUMNS: Final = _WRITTEN_ONCE + REWRITTEN

_STATUS: Final = {status.value: status for status in TaskStatus}
_DEFAULT_RETRY: Final = RetryPolicy()


def row_of(head: Head) -> Row:
    """Return a head as a row, in the order of COLUMNS."""
    return (
        head.seq,
        head.id,
        _text_of(head.tags) if head.tags else None,
        head.created_at,
        head.priority,
        head.lane,
        head.status.value,
        head.key,
        _text_of(head.depends_on) if head.depends_on else None,
        head.on_dependency,
        _text_of(head.awaiting) if head.awaiting else None,
        _text_of(head.answered) if head.answered else None,
        head.run_at,
        head.due,
        head.lease,
        head.lease_until,
        head.worker,
        head.attempt,
        head.max_attempts,
        _retry_text(head.retry),
        head.timeout,
        int(head.cancel_requested),
        head.postponed,
        int(head.isolated),
        _text_of(head.progress) if head.progress else None,
        head.started_at,
        head.finished_at,
        head.version,
    )


def head_of(row: Sequence[Any]) -> Head:
    """Return the head that stands in the first columns of a row."""
    return Head(
        seq=row[0],
        id=row[1],
        tags=tuple(json.loads(row[2])) if row[2] else (),
        created_at=row[3],
        priority=row[4],
        lane=row[5],
        status=_STATUS[row[6]],
        key=row[7],
        depends_on=tuple(json.loads(row[8])) if row[8] else (),
        on_dependency=row[9],
        awaiting=tuple(json.loads(row[10])) if row[10] else (),
        answered=tuple(json.loads(row[11])) if row[11] else (),
        run_at=row[12],
        due=row[13],
        lease=row[14],
        lease_until=row[15],
        worker=row[16],
        attempt=row[17],
        max_attempts=row[18],
        retry=_retry_of(row[19]) if row[19] else _DEFAULT_RETRY,
        timeout=row[20],
        cancel_requested=bool(row[21]),
        postponed=row[22],
        isolated=bool(row[23]),
        progress=cast("tuple[int, int]", tuple(json.loads(row[24]))) if row[24] else None,
        started_at=row[25],
        finished_at=row[26],
        version=row[27],
    )


def _text_of(values: Sequence[Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _retry_text(policy: RetryPolicy) -> str | None:
    if policy is _DEFAULT_RETRY or policy == _DEFAULT_RETRY:
        return None
    return json.dumps(policy.to_json())


@lru_cache(maxsize=256)
def _retry_of(text: str) -> RetryPolicy:
    return RetryPolicy(**json.loads(text))
