"""Heads as rows of typed columns, and back."""

from __future__ import annotations

import json
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import Head, RetryPolicy, TaskStatus, head_from
from jotty.core.queue.retry import DEFAULT_RETRY

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COLUMNS", "TAILS", "Row", "claimed_tail", "head_of", "new_tail", "row_of"]

Row = tuple[Any, ...]

# What a claim writes stands last, before it what an ending writes as well, then what other moves do, then
# what hardly ever changes: an UPDATE takes the tail of a row, and leaves the indexes of other columns alone.
_WRITTEN_ONCE: Final = ("seq", "id", "tags", "created_at")
_SETTINGS: Final = (
    "priority",
    "lane",
    "key",
    "depends_on",
    "on_dependency",
    "max_attempts",
    "retry",
    "timeout",
)
_MOVED: Final = ("awaiting", "answered", "run_at", "cancel_requested", "postponed", "isolated", "progress")
_ENDED: Final = ("finished_at",)
_CLAIMED: Final = (
    "status",
    "due",
    "lease",
    "lease_until",
    "worker",
    "attempt",
    "started_at",
    "version",
)
COLUMNS: Final = _WRITTEN_ONCE + _SETTINGS + _MOVED + _ENDED + _CLAIMED
# where the tails begin, the shortest first
TAILS: Final = tuple(COLUMNS.index(part[0]) for part in (_CLAIMED, _ENDED, _MOVED, _SETTINGS))

_STATUS: Final = {status.value: status for status in TaskStatus}
_TEXT: Final = {status: status.value for status in TaskStatus}
_settings_of: Final = attrgetter(*_SETTINGS)
_moved_of: Final = attrgetter(*_MOVED)


def row_of(head: Head) -> Row:
    """Return a head as a row, in the order of COLUMNS."""
    return (
        head.seq,
        head.id,
        _text_of(head.tags) if head.tags else None,
        head.created_at,
        head.priority,
        head.lane,
        head.key,
        _text_of(head.depends_on) if head.depends_on else None,
        head.on_dependency,
        head.max_attempts,
        None if head.retry is DEFAULT_RETRY else _retry_text(head.retry),
        head.timeout,
        _text_of(head.awaiting) if head.awaiting else None,
        _text_of(head.answered) if head.answered else None,
        head.run_at,
        int(head.cancel_requested),
        head.postponed,
        int(head.isolated),
        _text_of(head.progress) if head.progress else None,
        head.finished_at,
        *claimed_tail(head),
    )


def claimed_tail(head: Head) -> Row:
    """Return the end of a head's row: what a claim writes."""
    return (
        _TEXT[head.status],
        head.due,
        head.lease,
        head.lease_until,
        head.worker,
        head.attempt,
        head.started_at,
        head.version,
    )


def new_tail(head: Head, old: Head) -> Row:
    """Return the end of a head's row with all that differs from the old one; as long as one of TAILS."""
    if _settings_of(head) != _settings_of(old):
        return row_of(head)[TAILS[3] :]
    if _moved_of(head) != _moved_of(old):
        return row_of(head)[TAILS[2] :]
    if head.finished_at != old.finished_at:
        return head.finished_at, *claimed_tail(head)
    return claimed_tail(head)


def head_of(row: Row) -> Head:
    """Return the head that stands in the first columns of a row."""
    (
        seq,
        task_id,
        tags,
        created_at,
        priority,
        lane,
        key,
        depends_on,
        on_dependency,
        max_attempts,
        retry,
        timeout,
        awaiting,
        answered,
        run_at,
        cancel_requested,
        postponed,
        isolated,
        progress,
        finished_at,
        status,
        due,
        lease,
        lease_until,
        worker,
        attempt,
        started_at,
        version,
        *_,
    ) = row
    return head_from(
        (
            task_id,
            seq,
            priority,
            lane,
            _STATUS[status],
            key,
            _tuple_of(tags) if tags else (),
            _tuple_of(depends_on) if depends_on else (),
            on_dependency,
            _tuple_of(awaiting) if awaiting else (),
            _tuple_of(answered) if answered else (),
            run_at,
            due,
            lease,
            lease_until,
            worker,
            attempt,
            max_attempts,
            _retry_of(retry) if retry else DEFAULT_RETRY,
            timeout,
            bool(cancel_requested),
            postponed,
            bool(isolated),
            _tuple_of(progress) if progress else None,
            created_at,
            started_at,
            finished_at,
            version,
        )
    )


def _tuple_of(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text))


def _text_of(values: Sequence[Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _retry_text(policy: RetryPolicy) -> str | None:
    if policy == DEFAULT_RETRY:
        return None
    return json.dumps(policy.to_json())


@lru_cache(maxsize=256)
def _retry_of(text: str) -> RetryPolicy:
    return RetryPolicy(**json.loads(text))
