"""`jotty tail`: a background run, followed from another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from jotty.core.orchestration import stream_run

from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl, TaskId  # noqa: TC001 - typer reads them from the signatures
from .printing import print_json_line, print_output, say
from .progress import tell_line
from .store import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Follow a task until it is over, printing text as it comes.

    Exits with 0 if it was completed, with 1 if it failed or was cancelled.
    """
    perform(lambda: _tail(task_id, queue, after, as_json=as_json), debug=debug)


async def _tail(task_id: str, url: str | None, after: int, *, as_json: bool) -> ExitCode:
    teller = _JsonTeller() if as_json else _Teller()
    async with opened(url) as queue:
        async for event in stream_run(queue, task_id, after):
            teller.take(event)
    return ExitCode.OK if teller.is_completed else ExitCode.FAILED


class _JsonTeller:
    """Prints events as they are."""

    is_completed = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        self.is_completed = event["type"] == "workflow_complete"
        print_json_line(event)


@attrs.define
class _Teller:
    """Prints text to stdout, and what happens to stderr."""

    is_completed: bool = False
    texts: dict[str, str] = attrs.field(factory=dict)
    speaker: str = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """Tell one event."""
        kind = event["type"]
        if kind == "text_chunk":
            self._speak(event["agent"], event["text"])
            return
        self._break_line()
        if kind == "workflow_start":
            self.texts.clear()
        elif kind in {"agent_start", "agent_retry"}:
            self.texts.pop(event["agent"], None)
        elif kind == "workflow_complete":
            self._conclude(event)
        elif kind == "workflow_error":
            say(f"Error: {event['error']['type']}: {event['error']['message']}")
        tell_line(event)

    def _speak(self, agent: str, text: str) -> None:
        """Print a piece of text; where the speaker changes, on a new line."""
        if agent != self.speaker:
            self._break_line()
        self.speaker = agent
        self.texts[agent] = self.texts.get(agent, "") + text
        typer.echo(text, nl=False)

    def _break_line(self) -> None:
        if self.speaker and not self.texts.get(self.speaker, "\n").endswith("\n"):
            typer.echo()
        self.speaker = ""

    def _conclude(self, event: Mapping[str, Any]) -> None:
        """Print the outcome, unless it is the very text that was streamed."""
        self.is_completed = True
        result = event["result"]
        is_run = isinstance(result, dict) and "final_output" in result
        output = result["final_output"] if is_run else result
        if output not in self.texts.values():
            print_output(output)
        for error in result["errors"] if is_run else ():
            say(f"Warning: actor {error['agent']!r} failed with {error['type']}: {error['message']}")
        say("completed")
