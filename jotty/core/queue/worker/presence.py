"""Who works on a queue: workers announce themselves, and readers see who is there."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from jotty.core.queue.clock import MICROSECONDS, Clock, microseconds
from jotty.core.queue.task import from_microseconds
from jotty.errors import QueueClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from jotty.core.queue.backend import Present

    from .keeper import Store

__all__ = ["Presence", "Tally", "WorkerInfo", "host", "worker_info"]

logger = logging.getLogger("jotty.queue")

ANNOUNCE_EVERY: Final = 10.0
VALID: Final = 30.0  # seconds; two announcements may be lost
LEAST_PAUSE: Final = 1.0
LAST_WORDS: Final = 0.5
MAX_NAMED: Final = 10
MINUTE: Final = 60


@attrs.frozen(kw_only=True)
class WorkerInfo:
    """What a worker tells of itself, at most ten seconds ago; it is gone from the list when it is gone.

    Attributes:
        name: The worker, as the tasks it holds name it.
        host: The machine.
        pid: The process.
        lanes: The lanes it takes from.
        max_concurrent: How many tasks it runs at once at most.
        running: How many it runs.
        started_at: When it began, by the store's time.
        ended: How many tasks came to their end there since then.
        per_minute: How many of them within the last minute.
        unhandled: How many waiting tasks it has met and left, because it cannot run them.
        unhandled_ids: The ids of some of them, ten at most.
        blocked: For how many seconds its event loop has been blocked; 0.0 if it is not.
        until: When it counts as gone, unless it announces itself again.
    """

    name: str
    host: str
    pid: int
    lanes: tuple[str, ...]
    max_concurrent: int
    running: int
    started_at: datetime
    ended: int
    per_minute: int
    unhandled: int
    unhandled_ids: tuple[str, ...]
    blocked: float
    until: datetime


def worker_info(present: Present) -> WorkerInfo | None:
    """Return what an announcement says; None if another version of jotty says it in a way unknown here."""
    try:
        told = json.loads(present.data)
        return WorkerInfo(
            name=present.worker,
            host=str(told["host"]),
            pid=int(told["pid"]),
            lanes=tuple(map(str, told["lanes"])),
            max_concurrent=int(told["max_concurrent"]),
            running=int(told["running"]),
            started_at=from_microseconds(int(told["started_at"])),
            ended=int(told["ended"]),
            per_minute=int(told["per_minute"]),
            unhandled=int(told["unhandled"]["count"]),
            unhandled_ids=tuple(map(str, told["unhandled"]["ids"])),
            blocked=float(told["blocked"]),
            until=from_microseconds(present.until),
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return None


class Tally:
    """Counts what ends, in all and within the last minute.

    Attributes:
        total: How many there were.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque(maxlen=MINUTE + 1)  # each with how many ended in it
        self.total = 0

    def add(self, number: int) -> None:
        """Count so many that ended now."""
        if not number:
            return
        self.total += number
        second = self._clock.now() // MICROSECONDS
        if self._seconds and self._seconds[-1][0] == second:
            number += self._seconds.pop()[1]
        self._seconds.append((second, number))

    def last_minute(self) -> int:
        """Return how many ended within the last sixty seconds; from any thread."""
        first = self._clock.now() // MICROSECONDS - MINUTE
        return sum(number for second, number in tuple(self._seconds) if second > first)


class Presence:
    """Announces a worker: when it starts, every ten seconds, and when it has left.

    A failed announcement disturbs nothing: the worker is merely not seen.

    Args:
        worker: Its name.
        lanes: The lanes it takes from.
        max_concurrent: How many tasks it runs at once at most.
        changing: Gives what else is told and changes: `running`, `ended`, `per_minute`, `unhandled` (a
            sequence of ids) and `blocked`; called from the thread that announces.
    """

    def __init__(
        self,
        worker: str,
        *,
        lanes: Sequence[str],
        max_concurrent: int,
        changing: Callable[[], dict[str, Any]],
    ) -> None:
        self._worker = worker
        self._fixed = {
            "host": host(),
            "pid": os.getpid(),
            "lanes": list(lanes),
            "max_concurrent": max_concurrent,
        }
        self._changing = changing
        self._started_at: int | None = None
        self._is_failing = False
        self._is_leaving = False
        self._has_news: anyio.Event | None = None
        self._has_left: anyio.Event | None = None

    def hurry(self) -> None:
        """Announce soon what has changed; from the loop that runs `announce_on`."""
        if self._has_news is not None:
            self._has_news.set()

    def leave(self) -> None:
        """Take the worker off the list soon, and for good; from that loop as well."""
        self._is_leaving = True
        for one in (self._has_news, self._has_left):
            if one is not None:
                one.set()

    async def announce_on(self, store: Store, clock: Clock) -> None:
        """Announce the worker until it leaves or this is cancelled, then take it off."""
        self._has_left = anyio.Event()
        try:
            while not self._is_leaving:
                self._has_news = anyio.Event()
                every = clock.every(ANNOUNCE_EVERY)
                await self._announce(store, every * VALID / ANNOUNCE_EVERY)
                with clock.timeout(LEAST_PAUSE):
                    await self._has_left.wait()
                with clock.timeout(every - LEAST_PAUSE):
                    await self._has_news.wait()
        finally:
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await self._announce(store, 0.0)

    async def _announce(self, store: Store, valid: float) -> None:
        try:
            backend = await store()
            if self._started_at is None:
                self._started_at = backend.now()
            await backend.announce(self._worker, self._data() if valid else b"", microseconds(valid))
        except QueueClosed:
            return
        except Exception as failure:  # noqa: BLE001 - whatever it is, work goes on; and it is said
            level = logging.DEBUG if self._is_failing else logging.INFO
            logger.log(level, "The worker could not announce itself: %s", failure)
            self._is_failing = True
        else:
            self._is_failing = False

    def _data(self) -> bytes:
        told = self._changing()
        ids = told.pop("unhandled")
        unhandled = {"count": len(ids), "ids": list(ids[:MAX_NAMED])}
        everything = {**self._fixed, "started_at": self._started_at, **told, "unhandled": unhandled}
        return json.dumps(everything, allow_nan=False).encode()


def host() -> str:
    """Return the name of this machine."""
    import socket  # only workers need it, and it takes longer to import than this package's own modules

    return socket.gethostname()
