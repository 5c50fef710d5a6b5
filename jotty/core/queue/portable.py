"""A task as a JSON object that any other store can take in: what export writes and import reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, get_args

import attrs

from jotty.errors import PayloadError

from . import payload
from .payload import ROOM
from .record import new_payload, result_outcome
from .retry import RetryPolicy
from .task import Head, NewTask, OnDependency, TaskStatus, check_count, check_name, check_priority

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .task import Task

__all__ = ["FORMAT", "Arrival", "document", "parse"]

FORMAT: Final = 1
# where a task stands in a store, which another store decides for itself
_LOCAL: Final = frozenset({"seq", "lease_until"})
_ERROR_FIELDS: Final = frozenset({"type", "message", "traceback"})


@attrs.frozen(kw_only=True)
class Arrival:
    """A task that is to be imported, checked.

    Attributes:
        place: Where it was found, for errors: "line 3".
        head: Its head as it was exported.
        payload: Goal, context and the like, as a backend stores them.
        outcome: Result or error, likewise; None if there was neither.
        entries: Its journal, likewise.
        gone: Ids among its dependencies that were deleted before the export, so that they had completed.
    """

    place: str
    head: Head
    payload: bytes
    outcome: bytes | None
    entries: tuple[bytes, ...]
    gone: frozenset[str]

    @property
    def size(self) -> int:
        """How many bytes it has, heads apart."""
        return len(self.payload) + len(self.outcome or b"") + sum(map(len, self.entries))


def document(task: Task, entries: Sequence[bytes], gone: Collection[str]) -> dict[str, Any]:
    """Return a task with its journal as strict JSON.

    Args:
        task: The task.
        entries: Its journal.
        gone: Ids among its dependencies that are not in the store any more.
    """
    told: dict[str, Any] = {
        "jotty": FORMAT,
        "head": {
            field.name: _plain(getattr(task.head, field.name))
            for field in attrs.fields(Head)
            if field.name not in _LOCAL
        },
        "goal": task.goal,
        "context": task.context,
        "metadata": task.metadata,
        "headers": task.headers,
        "result": task.result,
        "error": task.error,
        "journal": [payload.decode(entry) for entry in entries],
    }
    return {**told, "gone": list(gone)} if gone else told


def _plain(value: Any) -> Any:
    if isinstance(value, RetryPolicy):
        return dict(value.to_json())
    if isinstance(value, TaskStatus):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def parse(place: str, line: str | bytes | dict[str, Any], max_payload: int) -> Arrival:
    """Return the task that a line of JSON, or the object in it, stands for.

    Args:
        place: What to call the line in an error.
        line: What `document` returned, or JSON of it.
        max_payload: The most bytes that its payload, its result or a journal entry may have.

    Raises:
        PayloadError: It is no such object, of an unknown format, or wrong in some place; says where.
    """
    told = _decoded(place, line) if isinstance(line, (str, bytes)) else line
    if not isinstance(told, dict) or "jotty" not in told:
        raise PayloadError(place, 'is no exported task, which is an object like {"jotty": 1, "head": {...}}.')
    if told["jotty"] != FORMAT:
        raise PayloadError(place, f"has the format {told['jotty']!r:.100}, this jotty knows {FORMAT}.")
    unknown = [name for name in told if name not in _FIELDS]
    if unknown:
        raise PayloadError(place, f"has the field {unknown[0]!r:.100}, which no exported task has.")
    try:
        return Arrival(
            place=place,
            head=_head(told.get("head")),
            payload=_payload(told, max_payload),
            outcome=_outcome(told, max_payload + ROOM),
            entries=_entries(told.get("journal", []), max_payload + ROOM),
            gone=_gone(told.get("gone", [])),
        )
    except PayloadError as wrong:
        path = f"{place}: {wrong.path}"
        raise PayloadError(path, wrong.problem, is_too_large=wrong.is_too_large) from wrong


def _decoded(place: str, line: str | bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse)
    except json.JSONDecodeError as wrong:
        raise PayloadError(place, f"is no JSON: {wrong.msg} at column {wrong.colno}.") from wrong
    except (ValueError, RecursionError) as wrong:
        raise PayloadError(place, f"is no JSON: {wrong}.") from wrong


def _refuse(name: str) -> None:
    raise ValueError(f"it has no {name}")


def _payload(told: Mapping[str, Any], limit: int) -> bytes:
    for name in ("context", "metadata", "headers"):
        if not isinstance(told.get(name), dict | None):
            raise PayloadError(name, f"must be an object, not {told[name]!r:.100}.")
    new = NewTask(
        told.get("goal"),
        told.get("context"),
        metadata=told.get("metadata"),
        headers=told.get("headers"),
    )
    return new_payload(new, limit)


def _outcome(told: Mapping[str, Any], limit: int) -> bytes | None:
    result, error = told.get("result"), told.get("error")
    if error is None:
        return None if result is None else result_outcome(result, limit)
    is_error = isinstance(error, dict) and error.keys() == _ERROR_FIELDS
    if not is_error or not all(isinstance(part, str) for part in error.values()):
        raise PayloadError("error", f"must have type, message and traceback, not {error!r:.100}.")
    if result is not None:
        raise PayloadError("error", "stands beside a result. A task has one of the two.")
    return payload.encode({"error": error}, "error", limit=limit)


def _entries(told: Any, limit: int) -> tuple[bytes, ...]:
    if not isinstance(told, list):
        raise PayloadError("journal", f"must be a list, not {told!r:.100}.")
    return tuple(_entry(f"journal[{at}]", entry, limit) for at, entry in enumerate(told))


def _entry(path: str, entry: Any, limit: int) -> bytes:
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise PayloadError(path, f"must be an object with a text under 'kind', not {entry!r:.100}.")
    for name, value in entry.items():  # one by one: what an answer holds may be as deep as any value
        payload.check_json({name: None}, path)
        payload.check_json(value, f"{path}[{name!r}]", limit=limit)
    encoded = payload.dumps(entry)
    if len(encoded) > limit:
        raise PayloadError(path, f"has {len(encoded)} bytes of JSON, more than {limit}.", is_too_large=True)
    return encoded


def _gone(told: Any) -> frozenset[str]:
    try:
        return frozenset(_names(told))
    except (TypeError, ValueError) as wrong:
        raise PayloadError("gone", f"is wrong: {wrong}") from wrong


def _head(told: Any) -> Head:
    if not isinstance(told, dict) or "id" not in told:
        raise PayloadError("head", f"must be an object with an id, not {told!r:.100}.")
    values = {}
    for name, value in told.items():
        if name not in _CHECKS:
            raise PayloadError(f"head[{name!r:.100}]", "is no field of a task.")
        try:
            values[name] = _CHECKS[name](value)
        except (TypeError, ValueError) as wrong:
            raise PayloadError(f"head[{name!r}]", f"is wrong: {wrong}") from wrong
    head = Head(**values)
    if head.status is TaskStatus.IN_PROGRESS and not (head.lease and head.attempt):
        raise PayloadError("head", "is in progress without a lease and an attempt.")
    return head


def _name(name: Any) -> str:
    check_name("it", name)
    return str(name)


def _count(count: Any) -> int:
    check_count("it", count, least=0)
    return int(count)


def _at_least_one(count: Any) -> int:
    check_count("it", count)
    return int(count)


def _priority(priority: Any) -> int:
    check_priority(priority)
    return int(priority)


def _flag(flag: Any) -> bool:
    if not isinstance(flag, bool):
        raise TypeError(f"it must be true or false, not {flag!r:.100}.")
    return flag


def _names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise TypeError(f"it must be a list, not {names!r:.100}.")
    return tuple(dict.fromkeys(map(_name, names)))


def _progress(steps: Any) -> tuple[int, int]:
    if not isinstance(steps, list) or len(steps) != 2:  # noqa: PLR2004 - finished and known
        raise TypeError(f"it must be two numbers, not {steps!r:.100}.")
    return _count(steps[0]), _count(steps[1])


def _retry(told: Any) -> RetryPolicy:
    return RetryPolicy(**told)


def _on_dependency(told: Any) -> OnDependency:
    if told not in get_args(OnDependency):
        raise ValueError(f"it must be 'fail', 'cancel' or 'run', not {told!r:.100}.")
    answer: OnDependency = told
    return answer


def _if_any(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": _name,
    "priority": _priority,
    "lane": _name,
    "status": TaskStatus,
    "key": _if_any(_name),
    "tags": _names,
    "depends_on": _names,
    "on_dependency": _on_dependency,
    "awaiting": _names,
    "answered": _names,
    "run_at": _count,
    "due": _if_any(_count),
    "lease": _count,
    "worker": _if_any(_name),
    "attempt": _count,
    "max_attempts": _at_least_one,
    "retry": _retry,
    "timeout": _if_any(_at_least_one),
    "cancel_requested": _flag,
    "postponed": _count,
    "isolated": _flag,
    "progress": _if_any(_progress),
    "created_at": _count,
    "started_at": _count,
    "finished_at": _count,
    "version": _at_least_one,
}
_FIELDS: Final = (
    "jotty",
    "head",
    "goal",
    "context",
    "metadata",
    "headers",
    "result",
    "error",
    "journal",
    "gone",
)
