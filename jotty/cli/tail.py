"""`jotty tail`: a background run, followed from another process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from jotty.core.orchestration import stream_run
from jotty.core.queue import EventLoop, TaskStatus

from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl, TaskId  # noqa: TC001 - typer reads them from the signatures
from .printing import is_terminal, print_json_line, print_output, say, say_failures
from .progress import watching
from .signals import heard
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    async for event in stream_run(queue, task_id, after):
        print_json_line(event)


async def _show(queue: TaskQueue, task_id: str, after: int) -> None:
    """Show the events as they come, and at the end what they came to.

    All events are read: which text is the output stands in the first. Of a task that is over, no text is
    written as it came: there may have been attempts that count no more.
    """
    with answering(queue.url):
        task = await queue.get(task_id)
    is_over = task is not None and task.status.is_terminal
    is_shown = is_terminal(sys.stdout) and is_terminal(sys.stderr)
    text = OutputText(is_told=not is_shown and (after > 0 or not is_over))
    last: Mapping[str, Any] | None = None
    with watching(follows=True) as watcher:
        async for event in stream_run(queue, task_id):
            is_new = event["seq"] > after
            if event["type"] == "workflow_start" and last is not None and is_new:
                watcher.say("Starting again: what came before counts no more.")
            if is_new or watcher.screen is not None:
                watcher.take(event)
            text.take(event, is_new=is_new)
            last = event
    if last is not None and last["seq"] > after:
        _conclude(last, text)


def _conclude(event: Mapping[str, Any], text: OutputText) -> None:
    if is_terminal(sys.stderr):
        say("")  # apart from the progress above
    if event["type"] == "workflow_error":
        text.end_line()
        say(f"Error: {event['error']['type']}: {event['error']['message']}")
        return
    result = event["result"]
    is_run = isinstance(result, dict) and "final_output" in result
    text.conclude(result["final_output"] if is_run else result)
    say_failures(result["errors"] if is_run else ())


class OutputText:
    """Writes the final output to stdout, as it comes where it is the text of a single actor.

    Args:
        is_told: Whether to write text as it comes; else the output is written when it is complete.
    """

    def __init__(self, *, is_told: bool) -> None:
        self._is_told = is_told
        self._stream = sys.stdout  # which the progress, as long as it is shown, takes the place of
        self._speaker: str | None = None
        self._text = ""
        self._is_in_line = False

    def take(self, event: Mapping[str, Any], *, is_new: bool) -> None:
        """Take one more event into account, and write what is new of its text."""
        kind = event["type"]
        if kind == "workflow_start":
            speakers = list(event.get("output") or ())
            self._speaker = speakers[0] if len(speakers) == 1 else None
            self._begin()
        elif self._speaker is None or event.get("agent") != self._speaker:
            return
        elif kind == "text_chunk":
            self._write(event["text"], is_new=is_new)
        elif kind in {"agent_start", "agent_retry"}:
            self._begin()

    def conclude(self, output: Any) -> None:
        """Write the output, unless it is the very text that was written."""
        self.end_line()
        is_written = self._is_told and self._text != "" and output == self._text
        if not is_written:
            print_output(output)

    def end_line(self) -> None:
        """Go to a new line, unless the last one is complete."""
        if self._is_in_line:
            typer.echo(file=self._stream)
        self._is_in_line = False

    def _begin(self) -> None:
        self.end_line()
        self._text = ""

    def _write(self, text: str, *, is_new: bool) -> None:
        self._text += text
        if self._is_told and is_new and text:
            typer.echo(text, file=self._stream, nl=False)
            self._is_in_line = not text.endswith("\n")
