"""How far running tasks have come: found at the end of their journals, without reading these."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue import MICROSECONDS, Query, TaskStatus
from jotty.errors import TaskNotFound

from .documents import age
from .printing import print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import Head, QueueBackend

__all__ = ["Running", "asking", "print_running", "progress_of", "running_of"]

MOST: Final = 20  # tasks into whose journals is looked
PAGE: Final = 64
PAGES: Final = 8  # so many are looked through for the last node that was settled
_MARK: Final = b'"of"'


@attrs.frozen
class Running:
    """A task that a worker runs.

    Attributes:
        id: The task.
        lane: Its lane.
        worker: Who runs it.
        started_at: Since when, in microseconds.
        finished: How many nodes of its run are settled; None if nothing was told lately.
        known: How many are known, likewise.
    """

    id: str
    lane: str
    worker: str
    started_at: int
    finished: int | None = None
    known: int | None = None


async def running_of(backend: QueueBackend, heads: Sequence[Head]) -> list[Running]:
    """Return how far tasks have come that are in progress; of many, only the first twenty."""
    found = []
    for head in heads[:MOST]:
        finished, known = await progress_of(backend, head.id) or (None, None)
        found.append(Running(head.id, head.lane, head.worker or "", head.started_at, finished, known))
    return found


async def progress_of(backend: QueueBackend, task_id: str) -> tuple[int, int] | None:
    """Return how many nodes of a run are settled, and how many are known; None if that was not told lately.

    Takes some thirty reads at most, however long the journal is.
    """
    try:
        last = await _last_number(backend, task_id)
        for page in range(PAGES):
            upto = last - page * PAGE
            if upto <= 0:
                break
            entries = await backend.read(task_id, max(upto - PAGE, 0), min(PAGE, upto))
            for _, data in reversed(entries):
                if (told := _told(data)) is not None:
                    return told
    except TaskNotFound:  # it was deleted meanwhile
        return None
    return None


async def _last_number(backend: QueueBackend, task_id: str) -> int:
    """Return the number of a journal's last entry: there are no holes, so it is found by halving."""

    async def is_there(number: int) -> bool:
        return bool(await backend.read(task_id, number - 1, 1))

    beyond = 1
    while await is_there(beyond):
        beyond *= 2
    last = beyond // 2
    while beyond - last > 1:
        middle = (last + beyond) // 2
        last, beyond = (middle, beyond) if await is_there(middle) else (last, middle)
    return last


def _told(data: bytes) -> tuple[int, int] | None:
    if _MARK not in data:
        return None
    told: Any = json.loads(data).get("of")
    return (told[0], told[1]) if isinstance(told, list) else None


async def asking(backend: QueueBackend, most: int) -> list[Head]:
    """Return the tasks that wait for nothing but an answer, not more than so many."""
    blocked = Query(statuses=(TaskStatus.BLOCKED,), limit=most)
    return [record.head for record in await backend.find(blocked) if record.head.awaiting]


def print_running(running: Sequence[Running], more: int, now: int) -> None:
    """Print how far tasks have come.

    Args:
        running: The tasks.
        more: How many more there are.
        now: The time, in microseconds.
    """
    rows = [
        [
            each.id,
            each.lane,
            "" if each.known is None else f"{each.finished} of {each.known}",
            age(max(now - each.started_at, 0) / MICROSECONDS),
            each.worker,
        ]
        for each in running
    ]
    print_table(["running task", "lane", "nodes settled", "since", "worker"], rows)
    if more > 0:
        say(f"{more} more are running.")
