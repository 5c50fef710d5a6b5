"""A task's journal: one append-only list of what was begun, finished, asked, answered and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.errors import PayloadError

from . import payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .task import Head

__all__ = [
    "RESERVED_KINDS",
    "EncodedEntry",
    "JournalEntry",
    "answer",
    "client_call",
    "encode_entry",
    "ended",
    "entry",
    "parse",
]

RESERVED_KINDS: Final = frozenset({"end", "call", "answer"})


@attrs.frozen
class JournalEntry:
    """One entry of a task's journal.

    Attributes:
        number: Its place, from 1, without holes, per task.
        kind: What it tells: "event" (of a run), "step" and "start" (of a durable run), "answer" and "call" (a
            client's), "end" (the task became terminal), or a kind of the caller's own.
        data: The rest of it, strict JSON. Of "end": status, time (microseconds), attempt; of "call":
            action, time; of "answer": key, value, time.
    """

    number: int
    kind: str
    data: dict[str, Any]


@attrs.frozen
class EncodedEntry:
    """An entry that was encoded when it was told, since what it holds may change before it is written.

    Attributes:
        data: What `entry` returned for it.
    """

    data: bytes


def entry(data: Mapping[str, Any] | EncodedEntry, limit: int) -> bytes:
    """Encode an entry that a worker writes; one that is encoded stays as it is.

    Args:
        data: Strict JSON with a `kind`, a text that is not reserved.
        limit: The most bytes it may have.

    Raises:
        PayloadError: It is no such dict, or longer than the limit.
    """
    if isinstance(data, EncodedEntry):
        return data.data
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise PayloadError("entry", f"must be a dict with a text under 'kind', not {data!r:.100}.")
    if data["kind"] in RESERVED_KINDS:
        raise PayloadError("entry['kind']", f"is {data['kind']!r}, which only the queue writes.")
    return payload.encode(data, "entry", limit=limit)


def encode_entry(data: Mapping[str, Any], limit: int) -> EncodedEntry:
    """Encode an entry now, to be given to `TaskQueue.record` or `Finished` later.

    Raises:
        PayloadError: See `TaskQueue.record`.
    """
    return EncodedEntry(entry(data, limit))


def parse(number: int, data: bytes) -> JournalEntry:
    """Return the entry that was stored under this number."""
    decoded = payload.decode(data)
    return JournalEntry(number, decoded.pop("kind"), decoded)


def ended(head: Head) -> bytes:
    """Return the entry of a task that has become terminal."""
    status, time, attempt = head.status.value, head.finished_at, head.attempt
    return (
        f'{{"kind":"end","status":"{status}","time":{time},"attempt":{attempt}}}'.encode()
    )  # each task has one


def client_call(action: str, now: int, **details: Any) -> bytes:
    """Return the entry of what a client asked for."""
    return payload.dumps({"kind": "call", "action": action, "time": now, **details})


def answer(key: str, value: Any, now: int, limit: int) -> bytes:
    """Return the entry of an answer.

    Raises:
        PayloadError: The value is not strict JSON, or longer than the limit.
    """
    payload.encode(value, "value", limit=limit)
    return payload.dumps({"kind": "answer", "key": key, "value": value, "time": now})
