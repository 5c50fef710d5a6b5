"""What a worker that has nothing left to run says of the tasks that wait for a person."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, Final

from jotty.core.queue import TaskStatus
from jotty.errors import StorageError

from .advance import asking
from .answers import answer_command, open_questions
from .steps import timeline_of
from .store import answering
from .telling import asked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jotty.core.orchestration import Timeline
    from jotty.core.queue import Task, TaskQueue

__all__ = ["log_questions"]

logger = logging.getLogger("jotty.cli")

_MOST: Final = 10  # tasks whose questions are told
_MOST_FOUND: Final = 10_000


async def log_questions(queue: TaskQueue, lanes: Collection[str]) -> None:
    """Log what is asked by the tasks of these lanes that wait for an answer, and how to answer."""
    try:
        with answering(queue.url):
            blocked = await asking(queue.backend, _MOST_FOUND)
        waiting = [head.id for head in blocked if head.lane in lanes]
        for task_id in waiting[:_MOST]:
            await _log_questions_of(queue, task_id)
    except StorageError as failure:  # the work is done all the same
        logger.warning("What waits for an answer cannot be told: %s", failure)
        return
    if (more := len(waiting) - _MOST) > 0:
        wait = "1 more task waits" if more == 1 else f"{more} more tasks wait"
        logger.info("%s for answers: jotty list --status blocked --queue %s", wait, shlex.quote(queue.url))


async def _log_questions_of(queue: TaskQueue, task_id: str) -> None:
    timeline = await timeline_of(queue, task_id)
    with answering(queue.url):
        task = await queue.get(task_id)
    if task is None or task.status is not TaskStatus.BLOCKED:
        return
    for line in _lines(task, timeline, queue.url):
        logger.info("%s", line)


def _lines(task: Task, timeline: Timeline, url: str) -> Iterator[str]:
    for each in open_questions(task, timeline):
        question = asked(each.question, each.options)
        yield f"Task {task.id} asks: {question} Answer it with: {answer_command(task.id, each.key, url)}"
