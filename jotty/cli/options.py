"""The options that several commands share, and what their values mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jotty.core.queue import check_json
from jotty.errors import PayloadError

from .durations import parse_duration
from .failing import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = [
    "AppAddress",
    "AsJson",
    "Context",
    "Debug",
    "Goal",
    "Mode",
    "Order",
    "QueueUrl",
    "TaskId",
    "parse_context",
    "parse_order",
    "parse_retention",
    "parse_value",
]

AppAddress = Annotated[
    str,
    typer.Argument(
        metavar="APP", help="module:attribute, or path.py[:attribute]: a Conductor or a WorkflowMode."
    ),
]
Goal = Annotated[str, typer.Argument(metavar="GOAL", help="What the actors are to do.")]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task, as `enqueue` printed it.")]
QueueUrl = Annotated[
    str | None,
    typer.Option(
        "--queue", "-q", metavar="URL", envvar="JOTTY_QUEUE", help="The queue, like sqlite:///tasks.db."
    ),
]
Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        "-c",
        metavar="KEY=VALUE",
        help="A value for the actors; strict JSON, else text. Repeat it for more.",
    ),
]
Mode = Annotated[
    str | None, typer.Option("--mode", metavar="MODE", help="dynamic or static, instead of the app's own.")
]
Order = Annotated[
    str | None,
    typer.Option("--order", metavar="A,B,...", help="Run these actors one after the other (static mode)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def parse_context(pairs: list[str] | None) -> dict[str, Any]:
    """Return the context that `--context key=value` options make; of two with one key, the later counts.

    Raises:
        UsageError: One has no `=`, or no key.
        PayloadError: One is not UTF-8.
    """
    context: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--context takes KEY=VALUE, not {pair!r}. Write --context {key or 'key'}=value."
            )
        context[key] = parse_value(text)
    check_json(context, "context")
    return context


def parse_value(text: str) -> Any:
    """Return the JSON that the text is, if a queue would take it, else the text itself."""
    try:
        value = json.loads(text)
        check_json(value)
    except (ValueError, RecursionError, PayloadError):
        return text
    return value


def parse_order(text: str | None) -> list[str] | None:
    """Return the actors that `--order a,b` names.

    Raises:
        UsageError: A name is empty.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"--order takes names with commas between them, not {text!r}.")
    return names


def parse_retention(text: str) -> timedelta | None:
    """Return for how long `--retention 7d` keeps finished tasks; None for ever.

    Raises:
        UsageError: It is neither "never" nor a duration above zero.
    """
    if text == "never":
        return None
    try:
        found = parse_duration(text)
    except typer.BadParameter as wrong:
        raise UsageError(f"--retention: {wrong} Or never, to delete nothing.") from wrong
    if not found:
        raise UsageError(f"--retention {text} would delete every result at once. Write never to keep all.")
    return found
