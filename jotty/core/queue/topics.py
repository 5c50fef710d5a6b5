"""Waking those who wait for a change of the store, within one process."""

from __future__ import annotations

import threading
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import anyio

from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .clock import Clock
    from .task import Head

__all__ = ["Topics", "topics_of"]

MAX_REMEMBERED: Final = 10_000
_NOBODY: Final[Mapping[Any, Any]] = {}


def topics_of(head: Head) -> tuple[str, ...]:
    """Return what to `bump` when this head was written.

    That is its task, its lane if it can be claimed, and its worker if that is asked to stop it.
    """
    if head.status == "pending":
        return (f"task:{head.id}", f"lane:{head.lane}")
    if head.cancel_requested and head.status == "in_progress":
        return (f"task:{head.id}", f"worker:{head.worker}")
    return (f"task:{head.id}",)


class Topics:
    """Counts changes by topic, and wakes who waits for the next; usable from any thread and event loop.

    There is one mark for all topics, which grows with each `bump`. Old changes are forgotten; a wait from
    before them can then return early, never late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mark = 0
        self._changes: deque[tuple[int, tuple[str, ...]]] = deque()
        self._remembered = 0
        self._forgotten = 0
        self._waiting: dict[str, dict[anyio.Event, EventLoop]] = {}

    @property
    def mark(self) -> int:
        """The mark of the last change; read it before looking at the store, then wait from it."""
        return self._mark

    def bump(self, topics: Iterable[str]) -> None:
        """Tell that these have changed."""
        topics = tuple(topics)
        with self._lock:
            self._mark += 1
            self._remember(topics)
            if not self._waiting:
                return
            woken = [item for topic in topics for item in self._waiting.get(topic, _NOBODY).items()]
        for event, loop in woken:
            loop.call_soon(event.set)

    def bump_all(self) -> None:
        """Tell that anything may have changed."""
        with self._lock:
            self._mark += 1
            self._changes.clear()
            self._remembered, self._forgotten = 0, self._mark
            woken = [item for waiters in self._waiting.values() for item in waiters.items()]
        for event, loop in woken:
            loop.call_soon(event.set)

    async def wait(self, topic: str, mark: int, timeout: float, clock: Clock) -> int:
        """Return the current mark once the topic has changed since `mark`, or after `timeout` seconds."""
        event = anyio.Event()
        with self._lock:
            if self._has_changed(topic, mark):
                return self._mark
            self._waiting.setdefault(topic, {})[event] = EventLoop()
        try:
            with clock.timeout(timeout):
                await event.wait()
        finally:
            self._forget(topic, event)
        return self._mark

    def _remember(self, topics: tuple[str, ...]) -> None:
        self._changes.append((self._mark, topics))
        self._remembered += len(topics)
        while self._remembered > MAX_REMEMBERED:
            self._forgotten, oldest = self._changes.popleft()
            self._remembered -= len(oldest)

    def _has_changed(self, topic: str, mark: int) -> bool:
        """Whether a topic has, or may have, changed since a mark."""
        if mark < self._forgotten:
            return True
        later = takewhile(lambda change: change[0] > mark, reversed(self._changes))
        return any(topic in topics for _, topics in later)

    def _forget(self, topic: str, event: anyio.Event) -> None:
        with self._lock:
            waiting = self._waiting[topic]
            del waiting[event]
            if not waiting:
                del self._waiting[topic]
