"""Policy's regular look at what is due: expired leases, met dependencies, questions whose time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import lifecycle
from .backend import Outcome, Query
from .record import change, error_outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backend import Change, QueueBackend
    from .task import Head

__all__ = ["examine_all", "reap"]

PAGE: Final = 100


async def reap(backend: QueueBackend) -> int:
    """Make every move that is due now, and return how many were made.

    Any number of callers may do so at once: each move is made by one of them.
    """
    moved = 0
    while due := await backend.find(Query(due_before=backend.now(), limit=PAGE)):
        made = await examine_all(backend, [record.head for record in due])
        moved += made
        if not made:
            break  # others are at it, or the estimate of the store's time was early
    return moved


async def examine_all(backend: QueueBackend, heads: Sequence[Head]) -> int:
    """Examine these and, to a fixpoint, whatever their moves fire; return how many moves were made."""
    moved = 0
    while heads:
        changes = [made for head in heads if (made := await _examine(backend, head))]
        swapped = await backend.swap(changes) if changes else []
        moved += sum(one.outcome is Outcome.OK for one in swapped)
        fired = dict.fromkeys(task_id for one in swapped for task_id in one.fired)
        records = await backend.get(list(fired), payload=False) if fired else []
        heads = [record.head for record in records if record]
    return moved


async def _examine(backend: QueueBackend, head: Head) -> Change | None:
    parents = await backend.get(head.depends_on, payload=False) if lifecycle.needs_edges(head) else []
    verdict = lifecycle.examine(head, [parent.head if parent else None for parent in parents], backend.now())
    if verdict is None:
        return None
    return change(head, verdict.head, outcome=error_outcome(verdict.error) if verdict.error else None)
