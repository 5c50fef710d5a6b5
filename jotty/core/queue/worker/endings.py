"""What a worker's log says of tasks: how they end, and what could not be given back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from jotty.core.queue.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jotty.core.queue.settlement import Settlement
    from jotty.core.queue.task import Task

__all__ = ["log_end", "log_left"]

logger = logging.getLogger("jotty.queue")


def log_end(task: Task) -> None:
    """Tell what became of a task: with the reason, where it is not what one hopes for."""
    head, error = task.head, task.error
    if error and head.status is TaskStatus.FAILED:
        logger.warning("Task %s is failed: %s: %s", head.id, error.get("type"), error.get("message"))
    elif error and head.status is TaskStatus.PENDING and head.attempt:
        reason = error.get("type"), error.get("message")
        logger.warning("Task %s is to be tried again: %s: %s", head.id, *reason)
    elif head.status is TaskStatus.BLOCKED and head.awaiting:
        logger.info("Task %s waits for an answer to %s.", head.id, ", ".join(map(repr, head.awaiting)))
    else:
        logger.info("Task %s is %s.", head.id, head.status)


def log_left(settlements: Iterable[Settlement], cause: str) -> int:
    """Name the tasks that the store did not take back, and return how many they are."""
    left = {one.task.id: one for one in settlements}
    for task_id, one in left.items():
        trouble = "could not be given back" if one.outcome is None else "has ended, which could not be stored"
        logger.warning(
            "Task %s %s: %s; others have it when its lease ends, at the cost of an attempt.",
            task_id,
            trouble,
            cause.rstrip("."),
        )
    return len(left)
