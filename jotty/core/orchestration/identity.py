"""What tells one value from another across processes: a digest of what it is made of."""

from __future__ import annotations

import functools
import json
from collections import deque
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["digest", "digest_of", "name_of", "recognised"]

# modules of types whose repr tells all of a value, and nothing else
TELLING: Final = frozenset({"datetime", "decimal", "fractions", "ipaddress", "uuid", "zoneinfo"})
TELLING_TYPES: Final = (PurePath, complex, range, slice)
NAMED_TYPES: Final = (type, FunctionType, BuiltinFunctionType)


def digest(data: bytes) -> str:
    """Return 16 hexadecimal digits that stand for this: 64 bits of BLAKE2b."""
    return blake2b(data, digest_size=8).hexdigest()


def digest_of(value: Any) -> str:
    """Return what stands for arguments of any kind; see `recognised`."""
    return recognised(value)[0]


def recognised(value: Any) -> tuple[str, bool]:
    """Return what stands for a value, the same in every process, and whether it stands for no other.

    JSON, dataclasses, attrs classes, models, enums, dates, paths, sets, bytes, arrays and the like count by
    what they hold, functions and classes by their names. Anything else, say a client, counts by its type
    alone: then another one of that type looks the same.
    """
    strangers: list[type] = []
    text = _text(value, strangers)
    return digest(text.encode("utf-8", "surrogatepass")), not strangers


def name_of(value: Any) -> str | None:
    """Return a text for a person that tells a single value from others of its kind, if it has one."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (str, int, PurePath)) or type(value).__module__ in TELLING:
        return str(value)
    return None


def _text(value: Any, strangers: list[type]) -> str:
    try:
        return json.dumps(value, default=lambda each: _held(each, strangers))
    except TypeError:  # keys that are no texts
        return json.dumps(_paired(value), default=lambda each: _paired(_held(each, strangers)))
    except (ValueError, RecursionError):  # a circle
        strangers.append(type(value))
        return type(value).__qualname__


def _paired(value: Any) -> Any:
    """Return a value with lists of pairs in place of the dicts in it."""
    if isinstance(value, dict):
        return [[_paired(key), _paired(each)] for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [_paired(each) for each in value]
    return value


def _held(value: Any, strangers: list[type]) -> Any:
    """Return what a value holds, as something closer to JSON, with its type."""
    kind = type(value)
    for is_such, parts in KINDS:
        if is_such(value):
            return {f"<{kind.__qualname__}>": parts(value)}
    strangers.append(kind)
    return {f"<{kind.__qualname__}>": None}


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except (TypeError, ValueError, BufferError):
        return False
    return True


def _buffered(value: Any) -> Any:
    with memoryview(value) as view:
        return [view.format, view.shape, digest(view.tobytes())]


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in attrs.fields(type(value))}


def _dataclass_fields(value: Any) -> dict[str, Any]:
    # one that is not initialised may not be there
    return {name: getattr(value, name) for name in value.__dataclass_fields__ if hasattr(value, name)}


# in this order: what is of several kinds is of the first
KINDS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...]] = (
    (lambda value: attrs.has(type(value)), _fields),
    (
        lambda value: hasattr(type(value), "__dataclass_fields__"),
        lambda value: {
            name: getattr(value, name) for name in value.__dataclass_fields__ if hasattr(value, name)
        },
    ),
    (lambda value: hasattr(type(value), "model_dump"), lambda value: value.model_dump(mode="json")),
    (lambda value: isinstance(value, Enum), lambda value: value.name),
    (lambda value: isinstance(value, (set, frozenset)), lambda value: sorted(map(digest_of, value))),
    (lambda value: isinstance(value, deque), list),
    (lambda value: isinstance(value, SimpleNamespace), vars),
    (
        lambda value: isinstance(value, TELLING_TYPES) or type(value).__module__ in TELLING,
        repr,
    ),
    (lambda value: isinstance(value, NAMED_TYPES), lambda value: f"{value.__module__}.{value.__qualname__}"),
    (lambda value: isinstance(value, MethodType), lambda value: [value.__func__, value.__self__]),
    (
        lambda value: isinstance(value, functools.partial),
        lambda value: [value.func, value.args, value.keywords],
    ),
    (_has_buffer, _buffered),
)
