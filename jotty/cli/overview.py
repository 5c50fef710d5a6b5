"""`jotty status`: how a queue stands, and who works on it."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import attrs
import typer

from jotty.core.queue import (
    MICROSECONDS,
    EventLoop,
    Head,
    Query,
    QueueStats,
    TaskStatus,
    WorkerInfo,
    microseconds,
)

from .advance import Running, asking, print_running, running_of
from .answers import say_asking
from .documents import age
from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl  # noqa: TC001 - typer reads them from the signatures
from .printing import console, is_terminal, print_json, print_json_line, print_table, say
from .signals import heard
from .store import answering, opened, tells_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import TaskQueue

__all__ = ["status"]

_MOST_RUNNING = 10_000
_MOST_NAMED = 3


@attrs.frozen(kw_only=True)
class _Overview:
    """How a queue stood at one instant.

    Attributes:
        url: Its address.
        durability: What a write to it survives.
        now: The instant, by the store's time.
        stats: Its tasks in figures.
        workers: Who works on it; None if its store cannot tell.
        expired: The tasks in progress whose worker was lost, and which nobody has taken up yet.
        running: How far the others in progress have come; not always all.
        asking: The tasks that wait for an answer.
    """

    url: str
    durability: str
    now: int
    stats: QueueStats
    workers: list[WorkerInfo] | None
    expired: list[Head]
    running: list[Running]
    asking: list[Head]

    @property
    def per_minute(self) -> int | None:
        """How many tasks ended within the last minute."""
        return None if self.workers is None else sum(worker.per_minute for worker in self.workers)

    @property
    def unserved(self) -> list[str]:
        """The lanes in which tasks wait for a worker that is not there."""
        return [lane for lane in self.stats.lanes if self.workers_of(lane) == 0 and self._waits(lane)]

    @property
    def unhandled(self) -> list[str]:
        """Ids of tasks that a worker has met and left, because it cannot run them; not always all."""
        return list(
            dict.fromkeys(task_id for worker in self.workers or () for task_id in worker.unhandled_ids)
        )

    def workers_of(self, lane: str) -> int | None:
        """Return how many workers take from a lane, if that is known."""
        return None if self.workers is None else sum(lane in worker.lanes for worker in self.workers)

    def _waits(self, lane: str) -> bool:
        return lane in self.stats.oldest


def status(
    *,
    queue: QueueUrl = None,
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", min=0.1, help="Look again and again, at this interval."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how a queue stands: tasks by lane and state, and the workers."""
    perform(lambda: _status(queue, watch, as_json=as_json), debug=debug)


async def _status(url: str | None, watch: float | None, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        if watch is not None:
            return await _watch(queue, watch, as_json=as_json)
        overview = await _look(queue)
        if as_json:
            print_json(_document(overview))
        else:
            _print(overview)
    return ExitCode.OK


async def _watch(queue: TaskQueue, seconds: float, *, as_json: bool) -> ExitCode:
    """Look until a signal comes: redraw a terminal, else print a line each time."""
    show = _print_line
    if as_json:
        show = _print_json_line
    elif is_terminal(sys.stdout):
        show = _redraw
    loop, scope = EventLoop(), anyio.CancelScope()
    with heard(lambda _: loop.call_soon(scope.cancel), enough=2) as signals, scope:
        while True:
            show(await _look(queue))
            await anyio.sleep(seconds)
    return signals.code


async def _look(queue: TaskQueue) -> _Overview:
    backend = queue.backend
    with answering(queue.url):
        stats = await queue.stats()
        workers = await queue.workers() if tells_workers(queue) else None
        in_progress = Query(statuses=(TaskStatus.IN_PROGRESS,), limit=_MOST_RUNNING)
        held = [record.head for record in await backend.find(in_progress)]
        asked = await asking(backend, _MOST_RUNNING)
        now = backend.now()
        running = await running_of(backend, [head for head in held if head.lease_until > now])
    # what workers tell may be ten seconds old
    holds = Counter(head.worker for head in held)
    return _Overview(
        url=queue.url,
        durability=queue.durability,
        now=now,
        stats=stats,
        workers=workers and [attrs.evolve(worker, running=holds[worker.name]) for worker in workers],
        expired=[head for head in held if head.lease_until <= now],
        running=running,
        asking=asked,
    )


def _document(overview: _Overview) -> dict[str, Any]:
    return {
        "queue": overview.url,
        "durability": overview.durability,
        "time": _instant(overview.now),
        "lanes": overview.stats.lanes,
        "oldest": overview.stats.oldest,
        "total": overview.stats.total,
        "workers": overview.workers,
        "per_minute": overview.per_minute,
        "unserved": overview.unserved,
        "unhandled": overview.unhandled,
        "expired": [
            {
                "id": head.id,
                "lane": head.lane,
                "worker": head.worker,
                "seconds": _seconds_since(head.lease_until, overview.now),
            }
            for head in overview.expired
        ],
        "running": [
            {
                "id": each.id,
                "lane": each.lane,
                "worker": each.worker,
                "seconds": _seconds_since(each.started_at, overview.now),
                "finished": each.finished,
                "known": each.known,
            }
            for each in overview.running
        ],
        "asking": [{"id": head.id, "lane": head.lane, "keys": head.awaiting} for head in overview.asking],
    }


def _print_json_line(overview: _Overview) -> None:
    print_json_line(_document(overview))


def _print_line(overview: _Overview) -> None:
    """Print the figures that make a series."""
    figures: dict[str, Any] = {state: count for state, count in overview.stats.total.items() if count}
    if overview.workers is not None:
        figures |= {"workers": len(overview.workers), "per_minute": overview.per_minute}
    if overview.asking:
        figures["asking"] = len(overview.asking)
    figures["expired"] = len(overview.expired)
    told = " ".join(f"{name}={figure}" for name, figure in figures.items())
    typer.echo(f"{_instant(overview.now).isoformat(timespec='seconds')} {told}")


def _redraw(overview: _Overview) -> None:
    screen = console(sys.stdout)
    screen.clear()
    screen.print(f"{overview.url}  {_instant(overview.now).astimezone():%X}", style="dim")
    _print(overview)


def _print(overview: _Overview) -> None:
    if overview.stats.lanes:
        _print_lanes(overview)
    else:
        say("The queue is empty.")
    if overview.workers:
        typer.echo()
        _print_workers(overview.workers, overview.now)
        tasks = "task" if overview.per_minute == 1 else "tasks"
        say(f"{overview.per_minute} {tasks} ended with these workers within the last minute.")
    if overview.running:
        typer.echo()
        more = overview.stats.total[TaskStatus.IN_PROGRESS] - len(overview.running) - len(overview.expired)
        print_running(overview.running, more, overview.now)
    say_asking([head.id for head in overview.asking], overview.url)
    _say_troubles(overview)


def _print_lanes(overview: _Overview) -> None:
    states = [state for state in TaskStatus if overview.stats.total[state]]
    rows = [
        [lane, *(str(counts.get(state, 0)) for state in states), age(overview.stats.oldest.get(lane))]
        for lane, counts in overview.stats.lanes.items()
    ]
    columns = ["lane", *states, "oldest ready"]
    if overview.workers is not None:
        columns.append("workers")
        for row in rows:
            row.append("no worker" if row[0] in overview.unserved else str(overview.workers_of(row[0])))
    print_table(columns, rows)


def _print_workers(workers: Sequence[WorkerInfo], now: int) -> None:
    rows = [
        [
            worker.name,
            ", ".join(worker.lanes),
            f"{worker.running} of {worker.max_concurrent}",
            str(worker.per_minute),
            str(worker.ended),
            age(_seconds_since(microseconds(worker.started_at.timestamp()), now)),
        ]
        for worker in workers
    ]
    print_table(["worker", "lanes", "running", "a minute", "ended", "since"], rows)


def _say_troubles(overview: _Overview) -> None:
    """Say on stderr what a person should look into."""
    for lane in overview.unserved:
        say(f"Warning: tasks wait in lane {lane}, and there is no worker for it.")
    for worker in overview.workers or ():
        if worker.blocked:
            say(f"Warning: worker {worker.name} is blocked by an actor, for {age(worker.blocked)}.")
        if worker.unhandled:
            say(f"Warning: worker {worker.name} cannot run {_some_of(worker)}.")
    for head in overview.expired:
        since = age(_seconds_since(head.lease_until, overview.now))
        say(f"Warning: task {head.id} lost its worker {head.worker} {since} ago; nobody took it up yet.")


def _some_of(worker: WorkerInfo) -> str:
    """Name some of the waiting tasks that a worker cannot run."""
    named = ", ".join(worker.unhandled_ids[:_MOST_NAMED])
    if worker.unhandled == 1:
        return f"waiting task {named}"
    return f"{worker.unhandled} waiting tasks, like {named}"


def _seconds_since(instant: int, now: int) -> float:
    return max(now - instant, 0) / MICROSECONDS


def _instant(now: int) -> datetime:
    return datetime.fromtimestamp(now / MICROSECONDS, UTC)
