"""Tasks in this process's memory: for tests, and for work that may die with the process."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from jotty.core.queue import (
    MAX_PAYLOAD,
    Change,
    Claimed,
    ClaimRequest,
    Clock,
    Durability,
    Present,
    Query,
    QueueBackend,
    QueueState,
    Record,
    Swapped,
    SystemClock,
    TaskQueue,
    Topics,
    topics_of,
)
from jotty.errors import QueueClosed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jotty.core.queue import Random, TaskStatus

__all__ = ["MemoryBackend", "MemoryTaskQueue"]


class _Store:
    """What every handle on one memory store shares."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.state = QueueState()
        self.lock = threading.Lock()
        self.topics = Topics()

    def __enter__(self) -> Self:
        self.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()


# Handles of one name find each other here; a store dies with its last handle.
_named: WeakValueDictionary[str, _Store] = WeakValueDictionary()
_private_names = count(1)


class MemoryBackend(QueueBackend):
    """A `QueueBackend` over `QueueState` and a lock; handles of one name in one process share a store."""

    scheme = "memory"
    capabilities = frozenset({"event_loops"})
    durability: Durability = "none"

    def __init__(self, name: str | None = None, *, clock: Clock | None = None) -> None:
        self.url = f"memory:{name or f'#{next(_private_names)}'}"
        if name is None:
            self._store = _Store(clock or SystemClock())
        else:
            self._store = _named.setdefault(name, _Store(clock or SystemClock()))
        self._closed = False

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> MemoryBackend:
        """Make a handle on the store of this name, or on one of its own where there is no name."""
        return cls(location or None, clock=clock, **options)

    async def open(self) -> None:
        """Do nothing: the store is there."""
        self._open_store()

    async def aclose(self) -> None:
        """Close this handle; the store lives as long as another does, and waiting calls end."""
        self._closed = True
        self._store.topics.bump_all()

    def clone(self) -> MemoryBackend:
        """Return another handle on the same store."""
        twin = object.__new__(MemoryBackend)
        twin.url, twin._store, twin._closed = self.url, self._store, False
        return twin

    def now(self) -> int:
        """Return the store's time."""
        return self._store.clock.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Store new tasks, all or none."""
        with self._open_store() as store:
            stored = store.state.insert(records, store.clock.now(), limit)
        self._tell(stored)
        return stored

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Give ready tasks to a worker."""
        return (await self.turn((), request))[1]

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Replace tasks whose version is as expected."""
        with self._open_store() as store:
            swapped = store.state.swap(changes, store.clock.now())
        self._tell(one.record for one in swapped if one.outcome == "ok")
        return swapped

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Swap, then claim, in one step."""
        with self._open_store() as store:
            now = store.clock.now()
            swapped = store.state.swap(changes, now)
            claimed = store.state.claim(request, now, store.topics.mark)
        self._tell([*(one.record for one in swapped if one.outcome == "ok"), *claimed.records])
        return swapped, claimed

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Renew leases."""
        with self._open_store() as store:
            return store.state.extend(leases, us, store.clock.now())

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Return tasks by id."""
        with self._open_store() as store:
            return store.state.get(ids, payload=payload)

    async def find(self, query: Query) -> list[Record]:
        """Return a page of the tasks that match."""
        with self._open_store() as store:
            return store.state.find(query)

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks there are by (lane, status)."""
        with self._open_store() as store:
            return store.state.count()

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Append to the journal of a task in progress under this lease."""
        with self._open_store() as store:
            last = store.state.append(task_id, lease, entries)
        self._store.topics.bump((f"task:{task_id}",))
        return last

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Return journal entries after a number."""
        with self._open_store() as store:
            return store.state.read(task_id, after, limit)

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Delete terminal tasks."""
        with self._open_store() as store:
            return store.state.delete(targets)

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Note that a worker is here."""
        with self._open_store() as store:
            store.state.announce(worker, data, us, store.clock.now())

    async def workers(self) -> list[Present]:
        """Return the workers that are here."""
        with self._open_store() as store:
            return store.state.workers(store.clock.now())

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Wait for a change of the topic."""
        mark = await self._open_store().topics.wait(topic, mark, timeout, self._store.clock)
        self._open_store()
        return mark

    def _open_store(self) -> _Store:
        if self._closed:
            raise QueueClosed(self.url)
        return self._store

    def _tell(self, records: Iterable[Record | None]) -> None:
        """Wake who waits for these tasks, or for one to claim in their lanes."""
        self._store.topics.bump([topic for record in records if record for topic in topics_of(record.head)])


class MemoryTaskQueue(TaskQueue):
    """A `TaskQueue` in this process's memory; one of its own, or shared by name.

    Args:
        name: Queues of one name in one process are one store; None for a private one.
        clock: Another source of time, for tests.
        random: Where ids and jitter come from.
        max_size: The most live tasks; None for no bound.
        max_payload: The most bytes of JSON a task, a result or a journal entry may have.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_size: int | None = None,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        super().__init__(
            MemoryBackend(name, clock=clock),
            clock=clock,
            random=random,
            max_size=max_size,
            max_payload=max_payload,
        )
