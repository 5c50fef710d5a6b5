"""Between the values that people hold and the bytes that a backend stores."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from jotty.errors import PayloadError

from . import journal, payload
from .backend import Change, Record
from .clock import microseconds
from .task import Head, NewTask, Ref, Task, TaskStatus, from_microseconds, rewriting, task_with

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "change",
    "error_outcome",
    "new_head",
    "new_payload",
    "outcome_from",
    "result_outcome",
    "task_from",
]

MAX_ERROR: Final = 8 * 1024
_MAX_MESSAGE: Final = 2 * 1024
_MAX_TYPE: Final = 200
_BLANK: Final = Head(id="")
_fill: Final = rewriting(
    "id",
    "priority",
    "lane",
    "status",
    "key",
    "tags",
    "depends_on",
    "on_dependency",
    "run_at",
    "max_attempts",
    "retry",
    "timeout",
    is_next=False,
)


def task_from(record: Record) -> Task:
    """Return a task as people see it."""
    told = {} if record.payload is None else payload.decode(record.payload)
    if record.outcome:
        return task_with(record.head, **told, **payload.decode(record.outcome))
    return task_with(record.head, **told)


def outcome_from(record: Record) -> dict[str, Any]:
    """Return the result or error of a task by name; empty where there is neither."""
    return payload.decode(record.outcome) if record.outcome else {}


def new_head(new: NewTask, ids: Sequence[str], *, now: int, wall: int) -> Head:
    """Return the head of a new task.

    Args:
        new: The task.
        ids: The ids of the call's items up to this one, whose own is the last.
        now: The store's time.
        wall: The wall-clock time at that moment, to convert `run_at`.

    Raises:
        ValueError: A Ref does not point to an earlier item.
    """
    run_at = 0
    if new.delay:
        run_at = now + microseconds(new.delay)
    elif new.run_at is not None:
        run_at = max(now + microseconds((new.run_at - from_microseconds(wall)).total_seconds()), 1)
    depends_on: tuple[str, ...] = ()
    if new.depends_on:
        depends_on = tuple(dict.fromkeys(_resolve(one, ids[:-1]) for one in new.depends_on))
    status = new.status if type(new.status) is TaskStatus else TaskStatus(new.status)
    return _fill(
        _BLANK,
        id=ids[-1],
        priority=new.priority,
        lane=new.lane,
        status=TaskStatus.BLOCKED if depends_on and status is TaskStatus.PENDING else status,
        key=new.key,
        tags=tuple(dict.fromkeys(new.tags)) if new.tags else (),
        depends_on=depends_on,
        on_dependency=new.on_dependency,
        run_at=run_at,
        max_attempts=new.max_attempts,
        retry=new.retry,
        timeout=None if new.timeout is None else max(microseconds(new.timeout), 1),
    )


def _resolve(dependency: str | Ref, ids: Sequence[str]) -> str:
    if isinstance(dependency, str):
        return dependency
    if not 0 <= dependency.index < len(ids):
        raise ValueError(f"{dependency!r} must point to an earlier item: its index is 0 to {len(ids) - 1}.")
    return ids[dependency.index]


def new_payload(new: NewTask, limit: int) -> bytes:
    """Return the payload of a new task.

    Raises:
        PayloadError: Goal, context, metadata or headers are not strict JSON, or together over the limit.
        TypeError: Context, metadata or headers are no dicts.
    """
    if new.context is None and new.metadata is None and new.headers is None:
        payload.check_json(new.goal, "goal", limit=limit)
        encoded = b'{"goal":' + payload.dumps(new.goal) + b"}"
        if len(encoded) <= limit:
            return encoded
    parts: dict[str, Any] = {"goal": new.goal}
    for name in ("context", "metadata", "headers"):
        value = getattr(new, name)
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{name} must be a dict or None, not {value!r}.")
        if value is not None:
            parts[name] = value
    for name, part in parts.items():
        payload.check_json(part, name, limit=limit)
    parts = {name: part for name, part in parts.items() if part or name == "goal"}
    for name, value in (new.headers or {}).items():
        if not isinstance(value, str):
            raise PayloadError(f"headers[{name!r}]", "must be text.")
    encoded = payload.dumps(parts)
    if len(encoded) > limit:
        largest = max(parts, key=lambda name: len(payload.dumps(parts[name])))
        size = len(payload.dumps(parts[largest]))
        raise PayloadError(
            largest, f"has {size} bytes of JSON; the task's {len(encoded)} are over max_payload={limit}."
        )
    return encoded


def result_outcome(result: Any, limit: int) -> bytes:
    """Return the outcome of a task that was completed.

    Raises:
        PayloadError: The result is not strict JSON, or longer than the limit.
    """
    return b'{"result":' + payload.encode(result, "result", limit=limit) + b"}"


def error_outcome(error: BaseException | str | tuple[str, str]) -> bytes:
    """Return the outcome of a task that failed: any error, cut to 8 KiB; never raises."""
    if isinstance(error, BaseException):
        kind, message, trace = type(error).__qualname__, _text(error), _traceback(error)
    else:
        (kind, message), trace = ("Error", error) if isinstance(error, str) else error, ""
    told = {"type": _cut(kind, _MAX_TYPE), "message": _cut(message, _MAX_MESSAGE), "traceback": ""}
    room = MAX_ERROR - len(payload.dumps({"error": told}))
    told["traceback"] = _fit(_clean(trace), room)
    return payload.dumps({"error": told})


def _text(error: BaseException) -> str:
    """Return what an error says, and below that the notes that were added to it."""
    try:
        return "\n".join((str(error), *getattr(error, "__notes__", ())))
    except Exception as failure:  # noqa: BLE001 - an error that cannot be told must not hide that there was one
        return f"<str() of this error raised {type(failure).__qualname__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as failure:  # noqa: BLE001 - see _text
        return f"<its traceback could not be formatted: {type(failure).__qualname__}>"


def _clean(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _cut(text: str, limit: int) -> str:
    """Shorten a text to what takes at most `limit` bytes of JSON."""
    text = _clean(text)
    while len(payload.dumps(text)) > limit:
        text = text[: len(text) * 3 // 4 - 1] + "…"
    return text


def _fit(trace: str, room: int) -> str:
    """Keep the end of a traceback, where the cause stands, in at most `room` bytes of JSON."""
    while trace and len(payload.dumps(trace)) > room:
        trace = trace[len(trace) // 4 + 1 :]
    return trace


def change(old: Head, new: Head, *, outcome: bytes | None = None, entries: Sequence[bytes] = ()) -> Change:
    """Return the swap from one head to another; one that ends the task tells so in its journal (C37)."""
    if new.status.is_terminal and not old.status.is_terminal:
        entries = (*entries, journal.ended(new))
    return Change(old.version, Record(new, None, outcome), entries, old)
