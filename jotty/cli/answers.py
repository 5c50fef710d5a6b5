"""`jotty answer`: what a person says to a run that asks, and what there is to be answered."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jotty.core.orchestration import answer_run
from jotty.core.orchestration.labels import readable
from jotty.core.queue import TaskStatus
from jotty.errors import TaskNotFound

from .documents import local
from .failing import CommandError, ExitCode, UsageError, called_rightly, perform
from .options import AsJson, Debug, QueueUrl, TaskId, parse_value
from .printing import print_json, say
from .steps import timeline_of
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jotty.core.orchestration import Timeline, TimelineQuestion
    from jotty.core.queue import Task

__all__ = [
    "answer",
    "answer_command",
    "may_ask",
    "meant",
    "open_questions",
    "question_lines",
    "say_asking",
    "told_options",
]


def answer(
    task_id: TaskId,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The question, as `jotty show` tells its key.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The answer; strict JSON, else text.")],
    *,
    queue: QueueUrl = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Answer a question that a task asks, so that it goes on."""
    perform(lambda: _answer(task_id, key, value, queue, as_json=as_json), debug=debug)


async def _answer(task_id: str, key: str, text: str, url: str | None, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        with answering(queue.url):
            task = await queue.get(task_id)
        if task is None:
            raise TaskNotFound(task_id)
        timeline = await timeline_of(queue, task_id)
        value = meant(text, _asked(task, timeline, key).options)
        with answering(queue.url), called_rightly():
            task = await answer_run(queue, task_id, key, value)
    if as_json:
        print_json({"id": task.id, "status": task.status, "key": key, "value": value})
    else:
        typer.echo(f"{task.id} {task.status}")
    return ExitCode.OK


def _asked(task: Task, timeline: Timeline, key: str) -> TimelineQuestion:
    """Return the question that is meant.

    Raises:
        CommandError: The task is over, or the question has its answer.
        UsageError: It asks no such thing.
    """
    if task.status.is_terminal:
        raise CommandError(f"Task {task.id} is {task.status}: it waits for no answer any more.")
    found = next((each for each in timeline.questions if each.key == key), None)
    if found is None:
        raise UsageError(f"Task {task.id} does not ask {key!r}. {_listed(open_questions(task, timeline))}")
    if found.answered is not None:
        how = "Nobody answered in time, and it went on with" if found.is_default else "It was answered with"
        raise CommandError(f"Task {task.id} asks {key!r} no more. {how}: {found.answer!r:.200}")
    return found


def _listed(questions: Sequence[TimelineQuestion]) -> str:
    if not questions:
        return "It asks nothing now."
    asked = "; ".join(f"{each.key} ({each.question})" for each in questions)
    return f"It asks: {asked}."


def meant(text: str, options: Sequence[Any] | None) -> Any:
    """Return the answer that a text means: JSON where it is JSON, unless the text itself is an option."""
    value = parse_value(text)
    return text if options is not None and value not in options and text in options else value


def may_ask(task: Task) -> bool:
    """Whether a task is in a state in which it may wait for an answer."""
    return task.status is TaskStatus.IN_PROGRESS or bool(task.awaiting)


def open_questions(task: Task, timeline: Timeline) -> list[TimelineQuestion]:
    """Return what a task waits to be told now."""
    if not may_ask(task):
        return []
    unanswered = [each for each in timeline.questions if each.answered is None]
    return [each for each in unanswered if each.is_open or each.key in task.awaiting]


def question_lines(task: Task, timeline: Timeline, url: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of what there is to say about the open questions of a task."""
    for each in open_questions(task, timeline):
        yield "question", each.question
        yield "  key", each.key
        yield "  asked by", readable(timeline.asker_of(each))
        if each.options is not None:
            yield "  options", told_options(each.options)
        if each.until is not None:
            yield "  expires", local(datetime.fromtimestamp(each.until, UTC))
        yield "  answer it", answer_command(task.id, each.key, url)


def told_options(options: Sequence[Any]) -> str:
    """Return the options of a question as they are to be typed, but for a shell's quotes."""
    return ", ".join(
        one if isinstance(one, str) and parse_value(one) == one else json.dumps(one, ensure_ascii=False)
        for one in options
    )


def answer_command(task_id: str, key: str, url: str) -> str:
    """Return the command that answers a question."""
    return f"jotty answer {task_id} {shlex.quote(key)} VALUE --queue {shlex.quote(url)}"


def say_asking(ids: Sequence[str], url: str) -> None:
    """Tell how many tasks wait for an answer, and how to see what they ask."""
    if ids:
        wait = "1 task waits" if len(ids) == 1 else f"{len(ids)} tasks wait"
        say(f"{wait} for an answer. See what is asked: jotty show {ids[0]} --queue {shlex.quote(url)}")
