"""Time as the rest of jotty sees it: injected everywhere, so that tests need not sleep."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["MAX_SECONDS", "MICROSECONDS", "Clock", "SystemClock", "microseconds"]

MICROSECONDS = 1_000_000
_NOTHING: Final = nullcontext()
MAX_SECONDS = 100 * 366 * 86_400  # a century: no wait is longer, and no instant leaves 64 bits


def microseconds(seconds: float) -> int:
    """Convert a duration of the public API, in seconds, to what the store keeps."""
    return round(seconds * MICROSECONDS)


class Clock(Protocol):
    """A source of time with the two ways of waiting that jotty needs.

    Attributes:
        is_virtual: Whether time passes only when the test says so.
    """

    is_virtual: bool

    def now(self) -> int:
        """Return microseconds since the Unix epoch; never smaller than at an earlier call."""
        ...

    def wall(self) -> int:
        """Return what the machine's wall clock shows, in microseconds since the Unix epoch; it may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds; a checkpoint even for zero."""
        ...

    def timeout(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Open a cancel scope that is cancelled after this many seconds; None never cancels it.

        Leaving it swallows the cancellation, as `anyio.move_on_after` does;
        `scope.cancelled_caught` tells whether that happened.
        """
        ...

    def move_timeout(self, scope: anyio.CancelScope, seconds: float | None) -> None:
        """Have a scope that `timeout` has opened cancelled this many seconds from now; None for never."""
        ...

    def every(self, seconds: float) -> float:
        """Return after how long to look again where nothing but a safety net asks for it every so often.

        That is as often, in real time; a virtual clock may make it seldom, so that weeks without news pass
        at once. What is known to happen later (a lease's end, a task's time) is not waited for so.
        """
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Keep virtual time still while work goes on outside of the event loop; nothing for a real clock."""
        ...


class SystemClock:
    """The wall clock at its creation, carried on by the monotonic clock.

    So it is steady: a wall clock that is set back or forth later moves no deadline.
    """

    is_virtual = False

    def __init__(self) -> None:
        self._anchor = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """Return microseconds since the Unix epoch."""
        return (self._anchor + time.monotonic_ns()) // 1000

    def wall(self) -> int:
        """Return the machine's wall-clock time."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop's own clock."""
        await anyio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Open a cancel scope with a deadline on the event loop's own clock."""
        return anyio.move_on_after(seconds)

    def move_timeout(self, scope: anyio.CancelScope, seconds: float | None) -> None:
        """Move the deadline of a scope."""
        scope.deadline = math.inf if seconds is None else anyio.current_time() + seconds

    def every(self, seconds: float) -> float:
        """Return these seconds."""
        return seconds

    def hold(self) -> AbstractContextManager[None]:
        """Do nothing: real time does not wait."""
        return _NOTHING
