"""Tasks as people and programs read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import Head, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from jotty.core.queue import Task

__all__ = ["age", "as_document", "as_lines", "local", "took"]

_INTERNAL = {"due"}  # instants that mean nothing outside of the store


def as_document(task: Task) -> dict[str, Any]:
    """Return everything of a task, to be printed as JSON."""
    head = {
        field.name: getattr(task, field.name) for field in attrs.fields(Head) if field.name not in _INTERNAL
    }
    payload = {"goal": task.goal, "context": task.context, "metadata": task.metadata, "headers": task.headers}
    return {**head, **payload, "result": task.result, "error": task.error}


def age(seconds: float | None) -> str:
    """Return a duration in the unit that suits it; empty where there is none."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def took(seconds: float) -> str:
    """Return a duration as `age` does, and one below a second in milliseconds."""
    if seconds >= 1:
        return age(seconds)
    milliseconds = round(seconds * 1000)
    return f"{milliseconds} ms" if milliseconds else "< 1 ms"


def local(instant: datetime | None) -> str:
    """Return an instant in local time with its zone, as a person reads it; empty where there is none."""
    return "" if instant is None else instant.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def as_lines(task: Task) -> Iterator[tuple[str, str]]:
    """Yield name and value of what there is to say about a task, but for its result and error."""
    yield "id", task.id
    yield "status", _status(task)
    yield "goal", str(task.goal)
    for key, value in task.context.items():
        yield f"context {key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield "lane", task.lane
    yield "priority", str(task.priority)
    yield "attempts", f"{task.attempt} of {task.max_attempts}"
    last = "" if task.status is TaskStatus.IN_PROGRESS or task.status.is_terminal else "last "
    optional = {
        "key": task.key,
        "tags": ", ".join(task.tags),
        "depends on": ", ".join(task.depends_on),
        "awaiting": ", ".join(task.awaiting),
        f"{last}worker": task.worker,
        "enqueued": local(task.created_at),
        "not before": local(task.run_at) if task.run_at != task.created_at else "",
        f"{last}started": local(task.started_at),
        "finished": local(task.finished_at),
        "took": _seconds(task),
    }
    yield from ((name, value) for name, value in optional.items() if value)


def _status(task: Task) -> str:
    return f"{task.status} (asked to stop)" if _is_asked_to_stop(task) else str(task.status)


def _is_asked_to_stop(task: Task) -> bool:
    return task.cancel_requested and not task.status.is_terminal


def _seconds(task: Task) -> str:
    if task.started_at is None or task.finished_at is None:
        return ""
    return f"{(task.finished_at - task.started_at).total_seconds():.2f} s"
