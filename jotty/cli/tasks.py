"""`jotty status`, `list`, `show`, `cancel` and `retry`: the tasks of a queue, looked at and set right."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jotty.core.queue import TaskStatus
from jotty.errors import TaskNotFound

from .documents import age, as_document, as_lines, local
from .failing import CommandError, ExitCode, called_rightly, perform
from .options import AsJson, Debug, QueueUrl, TaskId  # noqa: TC001 - typer reads them from the signatures
from .printing import is_terminal, print_json, print_output, print_table, say, visible
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import QueueStats, Task

__all__ = ["cancel", "list_tasks", "retry", "show", "status"]


def status(*, queue: QueueUrl = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Count the tasks of a queue by lane and state."""
    perform(lambda: _status(queue, as_json=as_json), debug=debug)


async def _status(url: str | None, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            stats = await queue.stats()
        if as_json:
            about = {"queue": queue.url, "durability": queue.durability}
            print_json({**about, "lanes": stats.lanes, "oldest": stats.oldest, "total": stats.total})
        else:
            _print_stats(stats)
    return ExitCode.OK


def _print_stats(stats: QueueStats) -> None:
    if not stats.lanes:
        say("The queue is empty.")
        return
    states = [state for state in TaskStatus if stats.total[state]]
    rows = [
        [lane, *(str(counts.get(state, 0)) for state in states), age(stats.oldest.get(lane))]
        for lane, counts in stats.lanes.items()
    ]
    print_table(["lane", *states, "oldest pending"], rows)


def list_tasks(
    *,
    queue: QueueUrl = None,
    state: Annotated[
        TaskStatus | None, typer.Option("--status", "-s", help="Only those in this state.")
    ] = None,
    lane: Annotated[str | None, typer.Option("--lane", help="Only those of this lane.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only those with this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List tasks, in the order in which they were enqueued."""
    filters = {"status": state, "lane": lane, "tag": tag, "key": key}
    perform(lambda: _list(queue, filters, limit, as_json=as_json), debug=debug)


async def _list(url: str | None, filters: dict[str, Any], limit: int, *, as_json: bool) -> ExitCode:
    found: list[Task] = []
    async with opened(url) as queue:
        with answering(queue.url), called_rightly():
            async for task in queue.tasks(**filters):
                found.append(task)
                if len(found) > limit:
                    break
    shown = found[:limit]
    if as_json:
        print_json([as_document(task) for task in shown])
    elif shown:
        _print_tasks(shown)
    else:
        say("No task is like that.")
    if len(found) > limit:
        say(f"There are more. Show them with --limit {limit * 10}.")
    return ExitCode.OK


def _print_tasks(tasks: Sequence[Task]) -> None:
    """Print a line a task; on a terminal, where room is scarce, without what all have by default."""
    columns = {
        "id": [task.id for task in tasks],
        "status": [str(task.status) for task in tasks],
        "lane": [task.lane for task in tasks],
        "prio": [str(task.priority) for task in tasks],
        "enqueued": [local(task.created_at) for task in tasks],
        "goal": [str(task.goal) for task in tasks],
    }
    if is_terminal(sys.stdout):
        columns["enqueued"] = [_ago(task.created_at) for task in tasks]
        for name, usual in (("lane", "default"), ("prio", "3")):
            if set(columns[name]) == {usual}:
                del columns[name]
    print_table(list(columns), list(zip(*columns.values(), strict=True)), cuts=True)


def _ago(instant: datetime | None) -> str:
    if instant is None:
        return ""
    return f"{age(max((datetime.now(UTC) - instant).total_seconds(), 0.0))} ago"


def show(task_id: TaskId, *, queue: QueueUrl = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show one task: its times, attempts, error and result."""
    perform(lambda: _show(task_id, queue, as_json=as_json, debug=debug), debug=debug)


async def _show(task_id: str, url: str | None, *, as_json: bool, debug: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            task = await queue.get(task_id)
    if task is None:
        raise TaskNotFound(task_id)
    if as_json:
        print_json(as_document(task))
        return ExitCode.OK
    lines = list(as_lines(task))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        _print_line(name, value, width)
    if task.error is not None:
        _print_error(task.error, width, debug=debug)
    if task.result is not None:
        typer.echo()
        print_output(_output_of(task.result))
    return ExitCode.OK


def _print_line(name: str, value: str, width: int) -> None:
    """Print a value beside its name; further lines of it stand below its first."""
    first, *more = visible(value).splitlines() or [""]
    typer.echo("\n".join([f"{name:{width}}  {first}", *(f"{'':{width}}  {line}" for line in more)]))


def _print_error(error: dict[str, str], width: int, *, debug: bool) -> None:
    _print_line("error", f"{error['type']}: {error['message']}".removesuffix(": "), width)
    if debug:
        typer.echo(error["traceback"])
    elif error["traceback"]:
        say("Show its traceback with --debug.")


def _output_of(result: Any) -> Any:
    """Return what a person wants to see of a result: a workflow's final output, else all of it."""
    return result["final_output"] if isinstance(result, dict) and "final_output" in result else result


def cancel(task_id: TaskId, *, queue: QueueUrl = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Cancel a task, also one that a worker is running."""
    perform(lambda: _cancel(task_id, queue, as_json=as_json), debug=debug)


async def _cancel(task_id: str, url: str | None, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            was_live = await queue.cancel(task_id)
            task = await queue.get(task_id)
    if task is None:
        raise TaskNotFound(task_id)
    if not was_live:
        raise CommandError(f"Task {task_id} is {task.status} already.")
    _print_moved(
        task, "asked to stop" if task.status is TaskStatus.IN_PROGRESS else task.status, as_json=as_json
    )
    return ExitCode.OK


def retry(task_id: TaskId, *, queue: QueueUrl = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Start a failed or cancelled task afresh."""
    perform(lambda: _retry(task_id, queue, as_json=as_json), debug=debug)


async def _retry(task_id: str, url: str | None, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            task = await queue.retry(task_id)
    _print_moved(task, task.status, as_json=as_json)
    return ExitCode.OK


def _print_moved(task: Task, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": task.id, "status": task.status, "cancel_requested": task.cancel_requested})
    else:
        typer.echo(f"{task.id} {what}")
