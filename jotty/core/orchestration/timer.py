"""A timeout that can be stopped for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jotty.core.queue import MICROSECONDS, microseconds

if TYPE_CHECKING:
    from anyio import CancelScope

    from jotty.core.queue import Clock

__all__ = ["Timer"]


class Timer:
    """The time that an attempt has left.

    Args:
        clock: What has opened the scope.
        scope: What `clock.timeout(seconds)` has opened now.
        seconds: How long it may go on.
    """

    def __init__(self, clock: Clock, scope: CancelScope, seconds: float) -> None:
        self._clock = clock
        self._scope = scope
        self._ends = clock.now() + microseconds(seconds)
        self._pauses = 0

    def pause(self) -> None:
        """Let time pass that does not count; it may be paused several times at once."""
        self._pauses += 1
        if self._pauses == 1:
            self._ends -= self._clock.now()
            self._clock.move_timeout(self._scope, None)

    def resume(self) -> None:
        """Let time count again, once each pause is over."""
        self._pauses -= 1
        if not self._pauses:
            self._clock.move_timeout(self._scope, self._ends / MICROSECONDS)
            self._ends += self._clock.now()
