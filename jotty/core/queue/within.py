"""Running a coroutine under contextvars of its own, without a task of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context

__all__ = ["Within", "begin"]

_NOTHING: Final = object()  # what a coroutine suspends with may be None


def begin(context: Context, coroutine: Coroutine[Any, Any, None]) -> Within | None:
    """Run a coroutine up to where it first waits, and return the rest, to be awaited; None if all ran."""
    try:
        suspended = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return Within(context, coroutine, suspended)


class Within:
    """The rest of a coroutine that has suspended, to be awaited once, in its own context.

    The task is the one that awaits it, and so are its cancel scopes; only the variables differ. It is its own
    iterator: a generator would take up four times as much for as long as the coroutine waits.

    Attributes:
        is_closed: Whether it was closed from outside, so that a GeneratorExit is none of the coroutine's own.
    """

    __slots__ = ("_context", "_coroutine", "_suspended", "is_closed")

    def __init__(self, context: Context, coroutine: Coroutine[Any, Any, Any], suspended: Any) -> None:
        self._context = context
        self._coroutine = coroutine
        self._suspended = suspended
        self.is_closed = False

    def __await__(self) -> Generator[Any, Any, Any]:
        """Hand each of its suspensions up to the event loop, and what comes back down to it."""
        return self

    def __iter__(self) -> Self:
        return self

    # What a generator has, for the event loop to call through whoever awaits this

    def __next__(self) -> Any:
        if self._suspended is not _NOTHING:
            suspended, self._suspended = self._suspended, _NOTHING
            return suspended
        return self._context.run(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        """Go on with this value."""
        return self._context.run(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Go on with this error."""
        return self._context.run(self._coroutine.throw, *error)

    def close(self) -> None:
        """End the coroutine, as whoever awaits it is being closed."""
        self.is_closed = True
        self._context.run(self._coroutine.close)
