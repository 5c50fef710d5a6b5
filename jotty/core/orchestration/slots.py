"""How many executions of a run may go on at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Slots"]


class Slots:
    """The room that `max_parallel` leaves; whoever waits for some is served in order, before what is new.

    Args:
        bound: How many may be taken at once, or None for any number.
        has_room: Called when a slot has become free that nobody waits for.
    """

    def __init__(self, bound: int | None, has_room: Callable[[], object]) -> None:
        self.bound = bound
        self._has_room = has_room
        self._used = 0
        self._waiting: deque[anyio.Event] = deque()

    @property
    def is_free(self) -> bool:
        """Whether there is a slot for which nobody waits."""
        return self.bound is None or (self._used < self.bound and not self._waiting)

    def try_take(self) -> bool:
        """Take a slot if one is free for which nobody waits."""
        if self.bound is not None and not self.is_free:
            return False
        self._used += 1
        return True

    async def take(self) -> None:
        """Take a slot as soon as there is one; if this is cancelled, it has taken none."""
        if self.try_take():
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.give_back()
            else:
                self._waiting.remove(turn)
            raise

    def seize(self) -> None:
        """Take a slot at once, though there may be none: nobody else gets one until there is one again."""
        self._used += 1

    def give_back(self, *, quietly: bool = False) -> None:
        """Let the first who waits have the slot; else tell that there is room, unless quietly."""
        if self.bound is not None and self._used > self.bound:
            self._used -= 1
            return
        if self._waiting:
            self._waiting.popleft().set()
            return
        self._used -= 1
        if not quietly and self.bound is not None:
            self._has_room()
