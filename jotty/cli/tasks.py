"""`jotty list` and `jotty show`: the tasks of a queue, looked at."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jotty.core.orchestration import Timeline
from jotty.core.orchestration.fold import told_result
from jotty.core.queue import MICROSECONDS
from jotty.errors import StoreCorrupt, TaskNotFound

from .answers import may_ask, open_questions, question_lines, say_asking
from .documents import age, as_document, as_lines, local
from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl, TaskId  # noqa: TC001 - typer reads them from the signatures
from .printing import is_terminal, print_json, print_output, print_table, say, visible
from .selection import (
    ByKey,
    ByLane,
    ByStatus,
    ByTag,
    NewerThan,
    OlderThan,
    Selection,
    Since,
    first,
    newest,
)
from .steps import print_steps, steps_document, timeline_of
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jotty.core.queue import Task, TaskQueue

__all__ = ["list_tasks", "show"]


def list_tasks(
    *,
    queue: QueueUrl = None,
    states: ByStatus = None,
    lane: ByLane = None,
    tag: ByTag = None,
    key: ByKey = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    since: Since = None,
    is_newest: Annotated[
        bool, typer.Option("--newest", help="Those enqueued last, the newest first.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List tasks, in the order in which they were enqueued."""
    chosen = Selection(
        statuses=states,
        lane=lane,
        tag=tag,
        key=key,
        older_than=older_than,
        newer_than=newer_than,
        since=since,
    )
    find = newest if is_newest else first
    perform(lambda: _list(queue, chosen, limit, find, as_json=as_json), debug=debug)


async def _list(
    url: str | None,
    chosen: Selection,
    limit: int,
    find: Callable[[TaskQueue, Selection, int], Awaitable[list[Task]]],
    *,
    as_json: bool,
) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            found = await find(queue, chosen, limit + 1)
    shown = found[:limit]
    if as_json:
        print_json([as_document(task) for task in shown])
    elif shown:
        _print_tasks(shown)
    else:
        say("No task is like that.")
    if len(found) > limit:
        say(f"There are more. Show them with --limit {limit * 10}.")
    say_asking([task.id for task in shown if task.awaiting], queue.url)
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


def show(
    task_id: TaskId,
    *,
    queue: QueueUrl = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="What has happened in it, and when, as a timeline.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show one task: its times, attempts, error and result, and what it asks."""
    perform(lambda: _show(task_id, queue, steps=steps, as_json=as_json, debug=debug), debug=debug)


async def _show(task_id: str, url: str | None, *, steps: bool, as_json: bool, debug: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            task = await queue.get(task_id)
            now = queue.backend.now() / MICROSECONDS
        if task is None:
            raise TaskNotFound(task_id)
        timeline = await _timeline(queue, task, steps=steps)
        result = await told_result(queue, task) if as_json else None
    questions = open_questions(task, timeline)
    if as_json:
        asked = {"questions": questions} if questions else {}
        told = {"steps": steps_document(timeline)} if steps else {}
        print_json({**as_document(task), "result": result, **asked, **told})
        return ExitCode.OK
    lines = [*as_lines(task), *question_lines(task, timeline, queue.url)]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        _print_line(name, value, width)
    if task.error is not None:
        _print_error(task.error, width, debug=debug)
    if steps:
        print_steps(timeline, now)
    if task.result is not None:
        typer.echo()
        print_output(_output_of(task.result))
    return ExitCode.OK


async def _timeline(queue: TaskQueue, task: Task, *, steps: bool) -> Timeline:
    """Return what there is to show of a task's run; nothing if that was not asked for, and none is needed."""
    try:
        return await timeline_of(queue, task.id) if steps or may_ask(task) else Timeline()
    except StoreCorrupt as damage:
        if steps:
            raise
        say(f"Warning: {damage}")
        return Timeline()


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
