"""Running a coroutine under contextvars of its own, without a task of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context

__all__ = ["Within", "begin"]


def begin(context: Context, coroutine: Coroutine[Any, Any, None]) -> Within | None:
    """Run a coroutine up to where it first waits, and return the rest, to be awaited; None if all ran."""
    try:
        suspended = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return Within(context, coroutine, suspended)


class Within:
    """The rest of a coroutine that has suspended, to be awaited in its own context.

    The task is the one that awaits it, and so are its cancel scopes; only the variables differ.

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
        run, coroutine, suspended = self._context.run, self._coroutine, self._suspended
        try:
            while True:
                try:
                    sent = yield suspended
                except GeneratorExit:
                    self.is_closed = True
                    run(coroutine.close)
                    raise
                except BaseException as exc:  # noqa: BLE001  # whatever it is, it is meant for the coroutine
                    suspended = run(coroutine.throw, exc)
                else:
                    suspended = run(coroutine.send, sent)
        except StopIteration as stop:
            return stop.value
