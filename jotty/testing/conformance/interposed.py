"""A backend before another, that does something just before or after a call of it: for races, on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from jotty.core.queue import QueueBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from jotty.core.queue import (
        Change,
        Claimed,
        ClaimRequest,
        Clock,
        Durability,
        Query,
        Record,
        Swapped,
        TaskStatus,
    )

__all__ = ["InterposedBackend"]

T = TypeVar("T")


class InterposedBackend(QueueBackend):
    """Passes every call on, and lets something happen around it.

    Args:
        inner: The backend that does the work.

    Attributes:
        before: By a method's name, what to await before each call of it.
        after: The same, after the call.
    """

    scheme = "interposed"

    def __init__(self, inner: QueueBackend) -> None:
        self._inner = inner
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}
        self.url = inner.url
        self.durability: Durability = inner.durability

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> QueueBackend:
        """Refuse: it stands before a backend that is there."""
        raise ValueError(f"An interposed backend has no URL, as {location!r} {clock!r} {options!r} is.")

    async def open(self) -> None:
        """Pass it on."""
        await self._inner.open()

    async def aclose(self) -> None:
        """Pass it on."""
        await self._inner.aclose()

    def clone(self) -> QueueBackend:
        """Return a clone of what stands behind."""
        return self._inner.clone()

    def now(self) -> int:
        """Pass it on."""
        return self._inner.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Pass it on."""
        return await self._around("insert", lambda: self._inner.insert(records, limit=limit))

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Pass it on."""
        return await self._around("claim", lambda: self._inner.claim(request))

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Pass it on."""
        return await self._around("swap", lambda: self._inner.swap(changes))

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Pass it on."""
        return await self._around("turn", lambda: self._inner.turn(changes, request))

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Pass it on."""
        return await self._around("extend", lambda: self._inner.extend(leases, us))

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Pass it on."""
        return await self._around("get", lambda: self._inner.get(ids, payload=payload))

    async def find(self, query: Query) -> list[Record]:
        """Pass it on; what finds by the time of the end goes by the name `find_finished`."""
        name = "find" if query.finished_before is None else "find_finished"
        return await self._around(name, lambda: self._inner.find(query))

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Pass it on."""
        return await self._around("count", self._inner.count)

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Pass it on."""
        return await self._around("append", lambda: self._inner.append(task_id, lease, entries))

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Pass it on."""
        return await self._around("read", lambda: self._inner.read(task_id, after, limit))

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Pass it on."""
        return await self._around("delete", lambda: self._inner.delete(targets))

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Pass it on."""
        return await self._around("wait", lambda: self._inner.wait(topic, mark, timeout))

    async def _around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        if before := self.before.get(name):
            await before()
        value = await call()
        if after := self.after.get(name):
            await after()
        return value
