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
        outer: Those of the run around this one: of which one is taken with each of these.
    """

    def __init__(self, bound: int | None, has_room: Callable[[], object], outer: Slots | None = None) -> None:
        self.bound = bound
        self._has_room = has_room
        self._outer = outer
        self._inner: dict[Slots, None] = {}
        self._used = 0
        self._waiting: deque[anyio.Event] = deque()
        if outer is not None:
            outer._inner[self] = None  # noqa: SLF001 - its own kind

    def close(self) -> None:
        """Be told of no more room around."""
        if self._outer is not None:
            self._outer._inner.pop(self, None)  # noqa: SLF001 - its own kind

    @property
    def is_free(self) -> bool:
        """Whether there is a slot for which nobody waits, here and around."""
        if self.bound is not None and (self._used >= self.bound or self._waiting):
            return False
        return self._outer is None or self._outer.is_free

    def try_take(self) -> bool:
        """Take a slot if one is free for which nobody waits."""
        if (self.bound is not None or self._outer is not None) and not self.is_free:
            return False
        self.seize()
        return True

    async def take(self) -> None:
        """Take a slot as soon as there is one; if this is cancelled, it has taken none."""
        if self.bound is None or (self._used < self.bound and not self._waiting):
            self._used += 1
        else:
            await self._wait()
        if self._outer is not None:
            try:
                await self._outer.take()
            except BaseException:
                self._give_back(quietly=False)
                raise

    async def _wait(self) -> None:
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._give_back(quietly=False)
            else:
                self._waiting.remove(turn)
            raise

    def seize(self) -> None:
        """Take a slot at once, though there may be none: nobody else gets one until there is one again."""
        self._used += 1
        if self._outer is not None:
            self._outer.seize()

    def give_back(self, *, quietly: bool = False) -> None:
        """Let the first who waits have the slot; else tell that there is room, unless quietly."""
        if self._outer is not None:
            self._outer.give_back()
        self._give_back(quietly=quietly)

    def _give_back(self, *, quietly: bool) -> None:
        if self._waiting and (self.bound is None or self._used <= self.bound):
            self._waiting.popleft().set()
            return
        self._used -= 1
        if not quietly and (self.bound is not None and self._used < self.bound):
            self._tell()

    def offer(self) -> None:
        """Tell the runs within this one that there is room, if there is, which this one has no use for."""
        if self._inner and self.is_free:
            for inner in tuple(self._inner):
                inner._tell()  # noqa: SLF001 - its own kind

    def _tell(self) -> None:
        self._has_room()
        for inner in tuple(self._inner):
            inner._tell()  # noqa: SLF001 - its own kind
