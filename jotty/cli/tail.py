"""`jotty tail`: a background run, followed from another process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from jotty.core.orchestration import stream_run
from jotty.core.queue import EventLoop, TaskStatus

from .answers import answer_command, may_ask, open_questions
from .documents import local
from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl, TaskId  # noqa: TC001 - typer reads them from the signatures
from .printing import is_terminal, print_json_line, print_output, say, say_failures
from .progress import watching
from .signals import heard
from .steps import timeline_of
from .store import answering, opened, tells_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jotty.core.queue import TaskQueue

__all__ = ["tail"]


def tail(
    task_id: TaskId,
    *,
    queue: QueueUrl = None,
    after: Annotated[
        int, typer.Option("--after", metavar="N", min=0, help="Only what came after event N (its seq).")
    ] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Follow a task until it is over, showing how it goes, and print what it comes to.

    Exits with 0 if it was completed, with 1 if it failed or was cancelled.
    """
    perform(lambda: _tail(task_id, queue, after, as_json=as_json), debug=debug)


async def _tail(task_id: str, url: str | None, after: int, *, as_json: bool) -> ExitCode:
    loop, scope = EventLoop(), anyio.CancelScope()
    follow = _print_events if as_json else _show
    with heard(lambda _: loop.call_soon(scope.cancel), enough=2) as signals, scope:
        async with opened(url) as queue:
            await follow(queue, task_id, after)
            with answering(queue.url):
                task = await queue.get(task_id)
        is_completed = task is not None and task.status is TaskStatus.COMPLETED
        return ExitCode.OK if is_completed else ExitCode.FAILED
    return signals.code


async def _print_events(queue: TaskQueue, task_id: str, after: int) -> None:
    await _say_why_it_waits(queue, task_id)
    async for event in stream_run(queue, task_id, after):
        print_json_line(event)


async def _show(queue: TaskQueue, task_id: str, after: int) -> None:
    """Show the events as they come, and at the end what they came to.

    The output is written when it is whole, since the text of an attempt may turn out to be void.
    """
    last: Mapping[str, Any] | None = None
    if not is_terminal(sys.stderr):
        await _say_why_it_waits(queue, task_id)
    with watching(follows=True) as watcher:
        async for event in stream_run(queue, task_id):
            is_new = event["seq"] > after
            if event["type"] == "workflow_start" and last is not None and is_new:
                watcher.say("Starting again: what came before counts no more.")
            if is_new or watcher.screen is not None:
                watcher.take(event)
            if is_new and event["type"] == "input_required":
                await _say_how_to_answer(queue, task_id, event["key"], watcher.say)
            last = event
    if last is not None and last["seq"] > after:
        _conclude(last)


async def _say_why_it_waits(queue: TaskQueue, task_id: str) -> None:
    """Tell who follows a task that nobody runs what it is there for."""
    with answering(queue.url):
        task = await queue.get(task_id)
        workers = await queue.workers()
        now = queue.backend.now()
    if task is None or task.status is TaskStatus.IN_PROGRESS or task.status.is_terminal:
        return
    if task.awaiting:
        say("Waiting for an answer.")
    elif task.status is not TaskStatus.PENDING:
        say(f"Waiting: the task is {task.status}.")
    elif task.head.run_at > now:
        say(f"Waiting: it is not to run before {local(task.run_at)}.")
    elif not any(task.lane in worker.lanes for worker in workers) and tells_workers(queue):
        say(f"Waiting for a worker: there is none for lane {task.lane}.")


async def _say_how_to_answer(queue: TaskQueue, task_id: str, key: str, tell: Callable[[str], None]) -> None:
    """Tell who follows a task how to answer its question, unless that has its answer by now."""
    with answering(queue.url):
        task = await queue.get(task_id)
    if task is None or not may_ask(task):
        return
    timeline = await timeline_of(queue, task_id)
    if key in {each.key for each in open_questions(task, timeline)}:
        tell(f"Answer it with: {answer_command(task_id, key, queue.url)}")


def _conclude(event: Mapping[str, Any]) -> None:
    if is_terminal(sys.stderr):
        say("")  # apart from the progress above
    if event["type"] == "workflow_error":
        say(f"Error: {event['error']['type']}: {event['error']['message']}")
        return
    result = event["result"]
    is_run = isinstance(result, dict) and "final_output" in result
    print_output(result["final_output"] if is_run else result)
    say_failures(result["errors"] if is_run else ())
