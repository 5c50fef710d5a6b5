"""The lines of a log: heads and opaque bytes as JSON that a person can read, and back."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from functools import lru_cache
from operator import attrgetter
from sys import intern
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue.retry import RetryPolicy
from jotty.core.queue.task import Head, TaskStatus, head_from

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bytes_of", "entry_of", "head_of", "json_of", "line_of", "text_of"]

_FIELDS: Final = attrs.fields_dict(Head)
_NAMES: Final = tuple(_FIELDS)
_DEFAULTS: Final = tuple(field.default for field in _FIELDS.values())
_values: Final = attrgetter(*_NAMES)
_STATUS: Final = {status.value: status for status in TaskStatus}
_TUPLES: Final = frozenset({"tags", "depends_on", "awaiting", "answered", "progress"})
_SHARED: Final = frozenset({"lane", "worker"})  # many tasks have the same; one copy will do
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def line_of(entry: Mapping[str, Any]) -> str:
    """Return an entry as a line of JSON."""
    return _encode(entry)


def entry_of(line: str) -> dict[str, Any]:
    """Return the entry that a line holds.

    Raises:
        ValueError: It is no line of a log.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError(f"A line of a log is an object, not {line:.100}.")  # noqa: TRY004 - it is bad data
    return entry


def json_of(head: Head) -> dict[str, Any]:
    """Return what of a head differs from a new one, by the names of its fields, and its status always."""
    fields: dict[str, Any] = {
        name: value
        for name, value, default in zip(_NAMES, _values(head), _DEFAULTS, strict=True)
        if value is not default and value != default
    }
    fields["status"] = head.status
    if "retry" in fields:
        fields["retry"] = head.retry.to_json()
    return fields


def head_of(fields: dict[str, Any]) -> Head:
    """Return the head again; what was read from a line is used up, and what is no field is passed over.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: These are no fields of a head.
    """
    if not (fields["id"] and fields["seq"]):
        raise ValueError(f"A head has an id and a seq, which {fields} has not.")
    if "status" in fields:
        fields["status"] = _STATUS[fields["status"]]
    if "retry" in fields:
        fields["retry"] = _policy_of(tuple(fields["retry"].items()))
    for name in _TUPLES & fields.keys():
        fields[name] = tuple(fields[name])
    for name in _SHARED & fields.keys():
        fields[name] = intern(fields[name])
    return head_from(map(fields.get, _NAMES, _DEFAULTS))


@lru_cache(maxsize=256)
def _policy_of(fields: tuple[tuple[str, Any], ...]) -> RetryPolicy:
    return RetryPolicy(**dict(fields))


def text_of(data: bytes) -> str | dict[str, str]:
    """Return opaque bytes as JSON: as text where they are, which a person can read."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def bytes_of(text: str | Mapping[str, str]) -> bytes:
    """Return the bytes again."""
    return text.encode() if isinstance(text, str) else b64decode(text["base64"])
