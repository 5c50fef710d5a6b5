"""A backend before another, through which every call passes in one place: for faults, latency, records."""

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
        Migration,
        Present,
        Query,
        Record,
        Swapped,
        TaskStatus,
    )

__all__ = ["BackendProxy"]

T = TypeVar("T")


class BackendProxy(QueueBackend):
    """Passes every call on; a child overrides `around`, or single calls.

    Args:
        inner: The backend that does the work.
    """

    scheme = "proxy"

    def __init__(self, inner: QueueBackend) -> None:
        self.inner = inner
        self.url = inner.url
        self.durability: Durability = inner.durability

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call of the backend behind.

        Args:
            name: The method's name.
            call: Makes the call; to be awaited at most once.
        """
        del name
        return await call()

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> QueueBackend:
        """Refuse: it stands before a backend that is there."""
        raise ValueError(f"A proxy has no URL, as {location!r} {clock!r} {options!r} is.")

    async def open(self) -> None:
        """Pass it on."""
        await self.around("open", self.inner.open)

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        """Pass it on."""
        return await self.around("migrate", lambda: self.inner.migrate(dry_run=dry_run))

    async def aclose(self) -> None:
        """Pass it on, and nothing else: closing always succeeds."""
        await self.inner.aclose()

    def clone(self) -> QueueBackend:
        """Return a clone of what stands behind."""
        return self.inner.clone()

    def now(self) -> int:
        """Pass it on."""
        return self.inner.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Pass it on."""
        return await self.around("insert", lambda: self.inner.insert(records, limit=limit))

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Pass it on."""
        return await self.around("claim", lambda: self.inner.claim(request))

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Pass it on."""
        return await self.around("swap", lambda: self.inner.swap(changes))

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Pass it on."""
        return await self.around("turn", lambda: self.inner.turn(changes, request))

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Pass it on."""
        return await self.around("extend", lambda: self.inner.extend(leases, us))

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Pass it on."""
        return await self.around("get", lambda: self.inner.get(ids, payload=payload))

    async def find(self, query: Query) -> list[Record]:
        """Pass it on."""
        return await self.around("find", lambda: self.inner.find(query))

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Pass it on."""
        return await self.around("count", self.inner.count)

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Pass it on."""
        return await self.around("append", lambda: self.inner.append(task_id, lease, entries))

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Pass it on."""
        return await self.around("read", lambda: self.inner.read(task_id, after, limit))

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Pass it on."""
        return await self.around("delete", lambda: self.inner.delete(targets))

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Pass it on."""
        return await self.around("wait", lambda: self.inner.wait(topic, mark, timeout))

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Pass it on."""
        await self.around("announce", lambda: self.inner.announce(worker, data, us))

    async def workers(self) -> list[Present]:
        """Pass it on."""
        return await self.around("workers", self.inner.workers)
