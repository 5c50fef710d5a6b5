"""How much of something scarce is used at once, and how often a minute."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from jotty.core.queue import MICROSECONDS

from .binding import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jotty.core.queue import Clock

    from .actor import Limit

__all__ = ["Limiter", "Limiters"]

MINUTE: Final = 60 * MICROSECONDS


class _Waiter:
    """Someone who waits for its turn.

    Attributes:
        counts: Whether it starts something, so that it counts for the minute.
        number: Its place in line.
        news: Set when it should look again.
        is_admitted: Whether it has what it waits for.
        keeps_time: Whether it wakes by itself when the minute may have room.
    """

    __slots__ = ("counts", "is_admitted", "keeps_time", "news", "number")

    def __init__(self, number: int, *, counts: bool) -> None:
        self.number = number
        self.counts = counts
        self.news = anyio.Event()
        self.is_admitted = False
        self.keeps_time = False


class Limiter:
    """Lets so many in at once, and so many start within any 60 s, first come, first served.

    Who comes back, having been let in before (`counts=False`), needs no room in the minute: it passes those
    who wait for that, and for nothing else. A limiter belongs to one event loop and is not thread-safe.

    Args:
        limit: How many.
        clock: The time.
    """

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._held = 0
        self._starts: deque[int] = deque()  # of the last minute
        self._admitted = 0  # who may start, but is not awake yet: it will start at an instant still unknown
        self._numbers = 0
        self._starters: OrderedDict[_Waiter, None] = OrderedDict()
        self._returners: OrderedDict[_Waiter, None] = OrderedDict()

    def try_acquire(self, *, counts: bool = True) -> bool:
        """Take a place at once, if there is one that nobody waits for.

        Args:
            counts: Whether that is a start, which counts for the minute.

        Returns:
            Whether it was taken; `release` must follow then.
        """
        if self._starters or self._returners:
            self._admit()  # whoever waits after that waits for what is not there
        if not self._has_place() or (counts and not self._has_start()):
            return False
        self._held += 1
        if counts:
            self._note_start()
        return True

    async def acquire(self, *, counts: bool = True) -> None:
        """Take a place, waiting for one in line; without suspending if there is one. `release` must follow.

        If it is cancelled nothing is taken, and the next in line goes on.

        Args:
            counts: Whether that is a start, which counts for the minute.
        """
        await checkpoint_if_cancelled()
        if self.try_acquire(counts=counts):
            return
        self._numbers += 1
        waiter = _Waiter(self._numbers, counts=counts)
        line = self._starters if counts else self._returners
        line[waiter] = None
        try:
            await self._wait(waiter)
        except BaseException:
            self._give_up(waiter)
            raise
        if counts:
            self._admitted -= 1
            self._note_start()

    def seize(self) -> None:
        """Take a place at once, though there may be none: nobody is let in until there is one again."""
        self._held += 1

    def release(self) -> None:
        """Give a place back; the next in line takes it.

        Raises:
            RuntimeError: None is taken.
        """
        if self._held == 0:
            raise RuntimeError("release() without acquire(). Release once for each acquire().")
        self._held -= 1
        self._admit()

    async def _wait(self, waiter: _Waiter) -> None:
        while not waiter.is_admitted:
            delay = self._delay_of(waiter)
            waiter.news, waiter.keeps_time = anyio.Event(), delay is not None
            with self._clock.timeout(delay):
                await waiter.news.wait()
            waiter.keeps_time = False
            self._admit()

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter.is_admitted:
            self._held -= 1
            self._admitted -= waiter.counts
        else:
            del (self._starters if waiter.counts else self._returners)[waiter]
        self._admit()

    def _delay_of(self, waiter: _Waiter) -> float | None:
        """Return after how many seconds to look again; None to be told: only the first starter keeps time."""
        if not waiter.counts or next(iter(self._starters)) is not waiter or not self._has_place():
            return None
        opens = self._starts[0] + MINUTE - self._clock.now() if self._starts else MINUTE
        return opens / MICROSECONDS

    def _admit(self) -> None:
        """Let in whoever can be, in the order in which they came; have the first of the rest keep time."""
        while self._has_place() and (waiter := self._next()):
            del (self._starters if waiter.counts else self._returners)[waiter]
            self._held += 1
            self._admitted += waiter.counts
            waiter.is_admitted = True
            waiter.news.set()
        if self._starters and self._has_place():
            first = next(iter(self._starters))
            if not first.keeps_time:
                first.news.set()

    def _next(self) -> _Waiter | None:
        starter = next(iter(self._starters), None) if self._has_start() else None
        returner = next(iter(self._returners), None)
        if starter is None or returner is None:
            return starter or returner
        return min(starter, returner, key=lambda each: each.number)

    def _has_place(self) -> bool:
        return self._limit.concurrent is None or self._held < self._limit.concurrent

    def _has_start(self) -> bool:
        if self._limit.per_minute is None:
            return True
        past = self._clock.now() - MINUTE
        while self._starts and self._starts[0] <= past:
            self._starts.popleft()
        return len(self._starts) + self._admitted < self._limit.per_minute

    def _note_start(self) -> None:
        if self._limit.per_minute is not None:
            self._starts.append(self._clock.now())


class Limiters:
    """The limiters of a conductor, by name: one of each for every event loop, and gone with it.

    Args:
        limits: What each of them allows.
        clock: The time.
    """

    def __init__(self, limits: Mapping[str, Limit], clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._by_loop: WeakKeyDictionary[object, dict[str, Limiter]] = WeakKeyDictionary()

    def of(self, name: str) -> Limiter:
        """Return the limiter of this name on the event loop that runs here, always the same.

        Raises:
            ValueError: No limit has this name.
        """
        here = self._by_loop.setdefault(current_token().native_token, {})
        if name not in here:
            if name not in self._limits:
                raise ValueError(f"No limit is named {name!r}. There are: {listed(self._limits)}.")
            here[name] = Limiter(self._limits[name], self._clock)
        return here[name]
