"""Strict JSON: what goes in comes out type-identical, in every backend, or is refused with its path."""

from __future__ import annotations

import json
import math
from typing import Any

from jotty.errors import PayloadError

__all__ = ["MAX_DEPTH", "MAX_PAYLOAD", "ROOM", "check_json", "decode", "dumps", "encode"]

MAX_DEPTH = 100
MAX_PAYLOAD = 1024 * 1024
ROOM = 64 * 1024  # bytes for what jotty wraps around a value that is itself held to max_payload
_ELSEWHERE = "Store it elsewhere, and pass where it is; or give the queue another max_payload."
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_INFINITY = float("inf")
_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: Any, path: str = "value", *, limit: int | None = None) -> bytes:
    """Return the value as JSON in UTF-8.

    Args:
        value: None, bool, int, float, str, and lists and string-keyed dicts of these.
        path: What to call the value in an error.
        limit: The most bytes its JSON may have; None for no bound.

    Raises:
        PayloadError: It is anything else (see `check_json`), or longer than the limit.
    """
    check_json(value, path, limit=limit)
    data = dumps(value)
    if limit is not None and len(data) > limit:
        problem = f"is {len(data)} bytes of JSON, more than max_payload={limit}. {_ELSEWHERE}"
        raise PayloadError(path, problem, is_too_large=True)
    return data


def dumps(value: Any) -> bytes:
    """Return the JSON of a value that is known to be strict."""
    return _encoder.encode(value).encode()


def decode(data: bytes) -> Any:
    """Return the value that was encoded."""
    text = data.decode()
    value, end = _decoder.raw_decode(text)
    if end != len(text):
        raise ValueError(f"there is more than one value: {text[end:]!r:.100}")
    return value


def check_json(value: Any, path: str = "value", *, limit: int | None = None) -> None:
    """Refuse what would not come back type-identical.

    Args:
        value: Any value.
        path: What to call it in an error.
        limit: The most bytes that its JSON may have: one that must be longer is not looked through.

    Raises:
        PayloadError: NaN or infinities, keys that are no strings, tuples, sets, bytes and other objects,
            subclasses of JSON's types, lone surrogates, cycles, more than 100 levels, or integers
            beyond 64 bits; `.path` says where. Or it is far beyond the limit.
    """
    if type(value) is str and value.isascii():
        return
    check = _Check(limit)
    problem = check.value(value, MAX_DEPTH)
    if check.is_too_large:
        problem = f"is more than max_payload={limit} bytes of JSON. {_ELSEWHERE}"
        raise PayloadError(path, problem, is_too_large=True)
    if problem is not None:
        raise PayloadError(path + "".join(f"[{step!r}]" for step in reversed(check.where)), problem)


class _Check:
    """One look through a value.

    Attributes:
        where: The steps to what is wrong, innermost first.
        is_too_large: Whether there is more than the limit allows; the look then ends.
    """

    def __init__(self, limit: int | None) -> None:
        self.where: list[Any] = []
        self.is_too_large = False
        self._room = math.inf if limit is None else limit // 2  # an item is a digit and a comma, or more

    def value(self, value: Any, depth: int) -> str | None:
        """Return what is wrong."""
        kind = type(value)
        if kind is str:
            return None if value.isascii() else _check_text(value)
        if kind is bool or value is None:
            return None
        if kind is int:
            return (
                None
                if _INT_MIN <= value <= _INT_MAX
                else "is an integer beyond 64 bits. Pass it as a string."
            )
        if kind is float:
            return (
                None
                if -_INFINITY < value < _INFINITY
                else f"is {value!r}, which JSON does not have. Use None."
            )
        if kind is dict:
            return self._keys(value) or self._items(value.items(), len(value), depth)
        if kind is list:
            return self._items(enumerate(value), len(value), depth)
        return _check_other(value)

    def _keys(self, value: dict[Any, Any]) -> str | None:
        for key in value:
            if type(key) is not str:
                return f"has the key {key!r}, which is no string. Make it one."
            if not key.isascii() and (problem := _check_text(key)):
                self.where.append(key)
                return f"is a key that {problem}"
        return None

    def _items(self, items: Any, number: int, depth: int) -> str | None:
        if depth == 0:
            return f"is nested more than {MAX_DEPTH} levels deep, or contains itself."
        self._room -= number
        if self._room < 0:
            self.is_too_large = True
            return "is too large."
        for step, item in items:
            problem = self.value(item, depth - 1)
            if problem is not None:
                self.where.append(step)
                return problem
        return None


def _check_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate, which UTF-8 does not have."
    return None


def _check_other(value: Any) -> str:
    name = type(value).__qualname__
    if isinstance(value, tuple):
        return "is a tuple, which would come back as a list. Pass a list."
    if isinstance(value, (str, int, float, list, dict)):
        return f"is a {name}, a subclass that would not come back as itself. Pass the plain JSON type."
    return f"is of type {name}, which JSON does not have."
