"""The shapes of single values that the standard library has and JSON has not."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import cache
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs

from .shape import Misfit, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

__all__ = ["Scalar", "enum_shape", "scalars"]


@attrs.frozen(eq=False)
class Scalar:
    """A single value.

    Attributes:
        name: Of its class.
        kind: Its class.
        form: The kind of JSON that it is.
        write: Makes that.
        read: Makes the value again.
    """

    name: str
    kind: type
    form: type
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]

    def encode(self, value: Any) -> Any:
        """Return a string, a number, or a list of numbers."""
        return checked(self.write(value))

    def decode(self, data: Any) -> Any:
        """Return the value."""
        return self.read(data)


@cache
def scalars() -> Mapping[type, Scalar]:
    """Return the shapes by what is annotated, which for a path is not what is really there."""
    from base64 import b64decode, b64encode

    return {
        datetime: Scalar("datetime", datetime, str, _write_datetime, _read_datetime),
        time: Scalar("time", time, str, _write_time, _read_time),
        date: Scalar("date", date, str, date.isoformat, date.fromisoformat),
        timedelta: Scalar("timedelta", timedelta, list, _write_timedelta, lambda data: timedelta(*data)),
        UUID: Scalar("UUID", UUID, str, str, UUID),
        Decimal: Scalar("Decimal", Decimal, str, str, Decimal),
        bytes: Scalar("bytes", bytes, str, lambda value: b64encode(value).decode(), b64decode),
        **{each: _path_shape(each) for each in (Path, PurePath, PurePosixPath, PureWindowsPath)},
    }


def enum_shape(kind: type[Enum]) -> Scalar:
    """Return the shape of an Enum: a member's name, or the number of a Flag, which may be several members."""
    if issubclass(kind, Flag):
        return Scalar(kind.__name__, kind, int, lambda value: value.value, kind)
    return Scalar(kind.__name__, kind, str, lambda value: value.name, lambda name: kind[name])


def _path_shape(annotated: type[PurePath]) -> Scalar:
    return Scalar(annotated.__name__, type(annotated()), str, str, annotated)


def _write_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _zone_suffix(zone: tzinfo | None) -> str:
    module = sys.modules.get("zoneinfo")  # where it is not loaded, there is no such zone
    is_known = module is not None and isinstance(zone, module.ZoneInfo)
    return f"[{key}]" if is_known and (key := getattr(zone, "key", None)) else ""


def _split_zone(text: str) -> tuple[str, tzinfo | None]:
    if not text.endswith("]"):
        return text, None
    from zoneinfo import ZoneInfo

    text, _, key = text[:-1].partition("[")
    return text, ZoneInfo(key)


def _write_datetime(value: datetime) -> str:
    """Return ISO 8601 with the zone's name, as RFC 9557 has it; the offset tells two folded hours apart."""
    suffix = _zone_suffix(value.tzinfo)
    text = value.isoformat() + suffix
    if value.tzinfo is not None and not suffix and datetime.fromisoformat(text) != value:
        raise Misfit(f"is {value!r}, whose time zone cannot be kept. Use zoneinfo's, or UTC.")
    return text


def _read_datetime(text: str) -> datetime:
    text, zone = _split_zone(text)
    value = datetime.fromisoformat(text)
    if zone is None:
        return value
    for fold in (0, 1):
        local = value.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(zone)  # the zone's rules have changed since


def _write_time(value: time) -> str:
    suffix = _zone_suffix(value.tzinfo)
    text = value.isoformat() + suffix
    if value.tzinfo is not None and not suffix and time.fromisoformat(text) != value:
        raise Misfit(f"is {value!r}, whose time zone cannot be kept. Use zoneinfo's, or UTC.")
    return text


def _read_time(text: str) -> time:
    text, zone = _split_zone(text)
    value = time.fromisoformat(text)
    return value if zone is None else value.replace(tzinfo=zone)
