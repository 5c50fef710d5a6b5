"""Which tasks a command is about, if it is not told their ids."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from jotty.core.queue import Query, Task, TaskStatus, microseconds
from jotty.errors import StoreCorrupt

from .durations import parse_duration
from .failing import called_rightly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from jotty.core.queue import Head, TaskQueue

__all__ = [
    "ByKey",
    "ByLane",
    "ByStatus",
    "ByTag",
    "NewerThan",
    "OlderThan",
    "Selection",
    "Since",
    "first",
    "heads",
    "newest",
]

ByStatus = Annotated[
    list[TaskStatus] | None,
    typer.Option("--status", "-s", metavar="STATE", help="Only those in this state. Repeat it for more."),
]
ByLane = Annotated[str | None, typer.Option("--lane", help="Only those of this lane.")]
ByTag = Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")]
ByKey = Annotated[str | None, typer.Option("--key", help="Only those with this key.")]
OlderThan = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", metavar="AGE", parser=parse_duration, help="Only those enqueued before, like 7d."
    ),
]
NewerThan = Annotated[
    timedelta | None,
    typer.Option(
        "--newer-than", metavar="AGE", parser=parse_duration, help="Only those enqueued since, like 12h."
    ),
]
Since = Annotated[
    timedelta | None,
    typer.Option(
        "--since", metavar="AGE", parser=parse_duration, help="Only those that ended since, like 2h."
    ),
]


@attrs.frozen(kw_only=True)
class Selection:
    """What a task must be like to be meant; every condition that is given must hold.

    Attributes:
        statuses: In one of these states; none for any.
        lane: In this lane.
        tag: With this tag.
        key: With this key.
        older_than: Enqueued longer ago than this.
        newer_than: Enqueued not longer ago than this.
        since: Over for not longer than this.
    """

    statuses: Collection[TaskStatus] | None = None
    lane: str | None = None
    tag: str | None = None
    key: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    since: timedelta | None = None

    def spans(self, head: Head, now: int) -> bool:
        """Whether the times of a task are among those meant, at this instant of its store."""
        return (
            (self.older_than is None or head.created_at < _before(now, self.older_than))
            and (self.newer_than is None or head.created_at >= _before(now, self.newer_than))
            and (self.since is None or head.finished_at >= _before(now, self.since))
        )


def _before(now: int, age: timedelta) -> int:
    return now - microseconds(age.total_seconds())


async def first(queue: TaskQueue, chosen: Selection, limit: int) -> list[Task]:
    """Return the tasks that are meant, no more than so many, in the order in which they were enqueued.

    Raises:
        UsageError: A condition is no name.
    """
    found: dict[str, Task] = {}
    now = queue.backend.now()
    for status in chosen.statuses or (None,):
        taken = 0
        with called_rightly():
            tasks = queue.tasks(status=status, lane=chosen.lane, tag=chosen.tag, key=chosen.key)
        async for task in tasks:
            if chosen.spans(task.head, now):
                found[task.id] = task
                taken += 1
            if taken == limit:
                break
    return sorted(found.values(), key=lambda task: task.seq)[:limit]


async def newest(queue: TaskQueue, chosen: Selection, limit: int) -> list[Task]:
    """Return the tasks that are meant and were enqueued last, no more than so many, the newest first.

    Raises:
        UsageError: A condition is no name.
    """
    last: deque[Head] = deque(maxlen=limit)
    async for page in _pages_of_heads(queue, chosen):
        last += page
    found = [await _whole(queue, head) for head in reversed(last)]
    return [task for task in found if task is not None]


async def _whole(queue: TaskQueue, head: Head) -> Task | None:
    try:
        return await queue.get(head.id)
    except StoreCorrupt as damage:
        return Task(head=head, error={"type": "StoreCorrupt", "message": str(damage), "traceback": ""})


async def heads(queue: TaskQueue, chosen: Selection) -> list[Head]:
    """Return the heads of all tasks that are meant, in the order in which they were enqueued.

    Raises:
        UsageError: A condition is no name.
    """
    return [head async for page in _pages_of_heads(queue, chosen) for head in page]


async def _pages_of_heads(queue: TaskQueue, chosen: Selection) -> AsyncIterator[list[Head]]:
    with called_rightly():
        queue.tasks(lane=chosen.lane, tag=chosen.tag, key=chosen.key)  # which checks the names
    query = Query(statuses=chosen.statuses or None, lane=chosen.lane, tag=chosen.tag, key=chosen.key)
    while page := await queue.backend.find(query):
        now = queue.backend.now()
        yield [record.head for record in page if chosen.spans(record.head, now)]
        query = attrs.evolve(query, after_seq=page[-1].head.seq)
