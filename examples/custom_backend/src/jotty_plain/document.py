"""`document:///tasks.json`: a dict in memory, and in a JSON file that is written anew with each change."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from weakref import WeakValueDictionary

from anyio import CancelScope, to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.core.queue import Durability, QueueBackend, SteadyClock, Topics, topics_of
from jotty.errors import QueueClosed, SchemaError, StorageError, StoreCorrupt

from .files import open_own, path_of
from .steps import Row, Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jotty.core.queue import (
        Change,
        Claimed,
        ClaimRequest,
        Clock,
        Present,
        Query,
        Record,
        Swapped,
        TaskStatus,
    )

__all__ = ["DocumentBackend"]

T = TypeVar("T")


class _Store:
    """What all the handles on one file in this process share; no other process may have it meanwhile."""

    def __init__(self, path: Path, url: str, clock: Clock) -> None:
        self.path = path
        self.url = url
        self.clock = clock
        self.topics = Topics()
        self._guard = threading.Lock()
        self._rows: dict[str, Row] | None = None
        self._seq = 0
        self._anchor: str | None = None
        self._present: dict[str, Present] = {}
        self._lock: int | None = None

    def __del__(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # which unlocks it

    def load(self) -> None:
        """Read the file, or make one; the file is this process's own from now on."""
        with self._guard:
            if self._rows is not None:
                return
            if self._lock is None:
                self._lock = open_own(Path(f"{self.path}.lock"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                raise StorageError(self.url, "another process has it.") from taken
            told = self._told()
            rows = {row.head.id: row for row in map(Row.from_json, told["tasks"])}
            self._take_time(told["anchor"], told["seen"])
            self._save(rows, told["seq"])
            self._rows, self._seq = rows, told["seq"]

    def read(self, step: Callable[[Steps], T]) -> T:
        """Look at the store."""
        with self._guard:
            return step(Steps(self._rows or {}, 0, self._present, now=self.clock.now(), mark=0))

    def write(self, step: Callable[[Steps], T]) -> T:
        """Change the store: both the file and the memory, or neither."""
        with self._guard:
            rows, present = dict(self._rows or {}), dict(self._present)
            now = self.clock.now()  # now that nobody else may write
            steps = Steps(rows, self._seq, present, now=now, mark=self.topics.mark)
            value = step(steps)
            self._save(rows, steps.seq)
            self._rows, self._seq, self._present = rows, steps.seq, present
        self.topics.bump(dict.fromkeys(topic for head in steps.written for topic in topics_of(head)))
        return value

    def _told(self) -> dict[str, Any]:
        try:
            descriptor = open_own(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return {"seq": 0, "anchor": None, "seen": None, "tasks": []}
        with os.fdopen(descriptor, encoding="ascii") as file:
            try:
                told: Any = json.load(file)
            except ValueError as wrong:
                raise StoreCorrupt(self.url, f"{self.path} is no JSON: {wrong}.") from wrong
        if not isinstance(told, dict) or told.get("format") != 1:
            raise SchemaError(self.url, found=0, expected=1)
        return told

    def _take_time(self, anchor: str | None, seen: int | None) -> None:
        """Go by the time of the store, which goes on whatever the wall clock does."""
        if isinstance(self.clock, SteadyClock) and not (anchor and self.clock.take_anchor(anchor)):
            anchor = self.clock.new_anchor(seen)
        self._anchor = anchor

    def _save(self, rows: Mapping[str, Row], seq: int) -> None:
        """Put another file in the place of this one: it is the old one or the new one, and always whole."""
        told = {"format": 1, "seq": seq, "anchor": self._anchor, "seen": self.clock.now()}
        tasks = ",\n".join(row.text for row in rows.values())
        draft = Path(f"{self.path}.new")
        try:
            with os.fdopen(
                open_own(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="ascii"
            ) as file:
                file.write(f'{json.dumps(told)[:-1]}, "tasks": [\n{tasks}\n]}}\n')
            draft.replace(self.path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise


# Handles on one file find each other here; the store is let go of with the last one.
_stores: WeakValueDictionary[Path, _Store] = WeakValueDictionary()


class DocumentBackend(QueueBackend):
    """A `QueueBackend` over one JSON file, for one process: a write costs as much as there is in the file."""

    scheme = "document"
    capabilities = frozenset({"event_loops"})  # and not "processes"
    durability: Durability = "process"

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._path = Path(path).absolute()
        self.url = f"document:///{quote(str(self._path))}"
        self._store = _stores.setdefault(self._path, _Store(self._path, self.url, clock or SteadyClock()))
        self._is_closed = False

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> DocumentBackend:
        """Make a handle on the file that a URL names."""
        return cls(path_of(location), clock=clock, **options)

    async def open(self) -> None:
        """Read the file, or make it."""
        await self._in_thread(self._store.load)

    async def aclose(self) -> None:
        """Let no more calls in, and end those that wait."""
        self._is_closed = True
        self._store.topics.bump_all()

    def clone(self) -> DocumentBackend:
        """Return another handle on the same file."""
        return DocumentBackend(self._path)

    def now(self) -> int:
        """Return the store's time."""
        return self._store.clock.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Store new tasks, all or none."""
        return await self._write(lambda steps: steps.insert(records, limit))

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Give ready tasks to a worker."""
        return await self._write(
            lambda steps: steps.claim(request),
            undo=lambda steps, claimed: steps.give_back(claimed),
        )

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Replace tasks whose version is as expected."""
        return await self._write(lambda steps: steps.swap(changes))

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Swap, then claim, with one write."""
        return await self._write(
            lambda steps: (steps.swap(changes), steps.claim(request)),
            undo=lambda steps, turned: steps.give_back(turned[1]),
        )

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Renew leases."""
        return await self._write(lambda steps: steps.extend(leases, us))

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Append to the journal of a task in progress under this lease."""
        return await self._write(lambda steps: steps.append(task_id, lease, entries))

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Delete terminal tasks."""
        return await self._write(lambda steps: steps.delete(targets))

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Note that a worker is here."""
        await self._write(lambda steps: steps.announce(worker, data, us))

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Return tasks by id."""
        return self._read(lambda steps: steps.get(ids, payload=payload))

    async def find(self, query: Query) -> list[Record]:
        """Return a page of the tasks that match."""
        return self._read(lambda steps: steps.find(query))

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks there are by (lane, status)."""
        return self._read(lambda steps: steps.count())

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Return journal entries after a number."""
        return self._read(lambda steps: steps.read(task_id, after, limit))

    async def workers(self) -> list[Present]:
        """Return the workers that are here."""
        return self._read(lambda steps: steps.workers())

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Wait for a change of the topic."""
        self._check_open()
        mark = await self._store.topics.wait(topic, mark, timeout, self._store.clock)
        self._check_open()
        return mark

    # One step

    def _check_open(self) -> None:
        if self._is_closed:
            raise QueueClosed(self.url)

    def _read(self, step: Callable[[Steps], T]) -> T:
        self._check_open()
        return self._store.read(step)

    async def _write(
        self, step: Callable[[Steps], T], *, undo: Callable[[Steps, T], None] | None = None
    ) -> T:
        """Change the store; what was changed for a caller that was cancelled meanwhile is undone."""
        value = await self._in_thread(lambda: self._store.write(step))
        try:
            await checkpoint_if_cancelled()  # the thread goes on whoever is cancelled
        except BaseException:
            if undo is not None:
                with CancelScope(shield=True):
                    await self._in_thread(lambda: self._store.write(lambda steps: undo(steps, value)))
            raise
        return value

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._check_open()
        with self._store.clock.hold():
            try:
                return await to_thread.run_sync(work)
            except OSError as exc:
                raise StorageError(self.url, f"{exc}.") from exc
