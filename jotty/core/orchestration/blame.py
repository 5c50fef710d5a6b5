"""Which actor's code a frame of the stack runs: for the warning of a blocked event loop."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

    from .actor import AnyActor

__all__ = ["describe_frames"]


def describe_frames(actors: Iterable[AnyActor]) -> Callable[[FrameType], str | None]:
    """Return what names the actor whose function, `when` or prompt a frame runs; from any thread."""
    given = tuple(actors)

    @cache  # most loops are never blocked
    def names() -> dict[CodeType, list[str]]:
        found: dict[CodeType, list[str]] = {}
        for each in given:
            for call in (each.target, each.when, each.prompt):
                for code in _codes(call):
                    found.setdefault(code, []).append(repr(each.name))
        return found

    def describe(frame: FrameType) -> str | None:
        found = names().get(frame.f_code)
        return None if found is None else f"actor {' or '.join(found)}"

    return describe


def _codes(call: Any) -> Iterator[CodeType]:
    """Return the code of a callable and of the one that it wraps, and so on."""
    while callable(call):
        if isinstance(call, partial):
            call = call.func
            continue
        function = getattr(call, "__func__", call)  # a method's
        if not hasattr(function, "__code__"):
            function = type(call).__call__  # an object's
        if (code := getattr(function, "__code__", None)) is not None:
            yield code
        call = getattr(call, "__wrapped__", None)
