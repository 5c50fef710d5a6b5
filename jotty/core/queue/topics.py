"""Waking those who wait for a change of the store, within one process."""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio

from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .clock import Clock
    from .task import Head

__all__ = ["Topics", "topics_of"]

MAX_REMEMBERED: Final = 10_000


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

    There is one mark for all topics, which grows with each `bump`. A topic's last mark may be forgotten; a
    wait on it can then return early, never late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mark = 0
        self._last: dict[str, int] = {}
        self._forgotten = 0
        self._waiting: dict[str, dict[anyio.Event, EventLoop]] = {}

    @property
    def mark(self) -> int:
        """The mark of the last change; read it before looking at the store, then wait from it."""
        return self._mark

    def bump(self, topics: Iterable[str]) -> None:
        """Tell that these have changed."""
        with self._lock:
            self._mark += 1
            woken = [item for topic in topics for item in self._bump(topic)]
            if len(self._last) > 2 * MAX_REMEMBERED:
                self._forget_oldest()
        for event, loop in woken:
            loop.call_soon(event.set)

    def bump_all(self) -> None:
        """Tell that anything may have changed."""
        with self._lock:
            self._mark += 1
            self._last.clear()
            self._forgotten = self._mark
            woken = [item for waiters in self._waiting.values() for item in waiters.items()]
        for event, loop in woken:
            loop.call_soon(event.set)

    async def wait(self, topic: str, mark: int, timeout: float, clock: Clock) -> int:
        """Return the current mark once the topic has changed since `mark`, or after `timeout` seconds."""
        event = anyio.Event()
        with self._lock:
            if self._changed(topic) > mark:
                return self._mark
            self._waiting.setdefault(topic, {})[event] = EventLoop()
        try:
            with clock.timeout(timeout):
                await event.wait()
        finally:
            self._forget(topic, event)
        return self._mark

    def _bump(self, topic: str) -> Iterable[tuple[anyio.Event, EventLoop]]:
        self._last.pop(topic, None)  # so that the oldest stand first
        self._last[topic] = self._mark
        waiting = self._waiting.get(topic)
        return waiting.items() if waiting else ()

    def _forget_oldest(self) -> None:
        for topic in list(islice(self._last, MAX_REMEMBERED)):
            self._forgotten = max(self._forgotten, self._last.pop(topic))

    def _changed(self, topic: str) -> int:
        return self._last.get(topic, self._forgotten)

    def _forget(self, topic: str, event: anyio.Event) -> None:
        with self._lock:
            waiting = self._waiting[topic]
            del waiting[event]
            if not waiting:
                del self._waiting[topic]
