"""`LogBackend`: a whole backend over any place that can lock and append to a log."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

from jotty.errors import QueueClosed, StorageError

from .backend import Change, Claimed, ClaimRequest, Present, Query, QueueBackend, Record, Swapped
from .lineage import generation
from .log.writer import LogWriter
from .steady import SteadyClock
from .topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from .clock import Clock
    from .log.seam import Log
    from .log.state import LoggedState
    from .task import TaskStatus

__all__ = ["BUSY_TIMEOUT", "LogBackend"]

T = TypeVar("T")
BUSY_TIMEOUT: Final = 5.0
_FORKED: Final = "this handle was opened before a fork. Open another one in the child."


# Handles on one place in this process find each other here, and wake each other at once.
_topics: WeakValueDictionary[str, Topics] = WeakValueDictionary()


class _Shared:
    """What a handle and its clones have in common."""

    def __init__(self, *, was_open: bool = False) -> None:
        self.was_open = was_open
        self.guard = threading.Lock()
        self.writer: LogWriter | None = None


class LogBackend(QueueBackend):
    """A `QueueBackend` over a `Log`, of which every process keeps the state in memory.

    A thread of its own has the log. It follows what other processes append, and appends what waits together
    as one; it sees what others append within milliseconds. Clones share the thread and its memory.

    A backend is this, with `from_url`, `open_log`, and the attributes `scheme` and `durability`. Where
    several processes may use the log, it adds "processes" to its capabilities.

    Args:
        url: The store's address, without a password.
        clock: Another source of time than the store's own.
        busy_timeout: Seconds after which a call fails that others keep from the log.
        place: What names the store in this process, where it is not the url: handles on one place wake each
            other at once.
    """

    capabilities = frozenset({"event_loops"})

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        busy_timeout: float = BUSY_TIMEOUT,
        place: str | None = None,
    ) -> None:
        self.url = url
        self._clock: Clock = clock or SteadyClock()
        self._busy_timeout = busy_timeout
        self._topics = _topics.setdefault(place or url, Topics())
        self._shared = _Shared()
        self._writer: LogWriter | None = None
        self._is_closed = False
        self._generation = generation()

    @abstractmethod
    def open_log(self, *, create: bool) -> Log:
        """Return the log, opened in this thread, which alone will use it.

        Args:
            create: Whether it may be made if it is not there; not where it was there already.

        Raises:
            SchemaError, StoreCorrupt: See `QueueBackend.open`; nothing was written.
            StorageError, OSError: It cannot be opened.
        """

    async def open(self) -> None:
        """Create the store, or check that it is one, and read it; again does nothing.

        Raises:
            SchemaError, StoreCorrupt, StorageError: See `open_log`.
        """
        if self._is_closed:
            raise QueueClosed(self.url)
        if self._writer is None:
            self._writer = self._start_writer()
        await self._read(lambda _: None)
        self._shared.was_open = True

    async def aclose(self) -> None:
        """Finish the calls under way, and let go of the log with the last clone; again does nothing."""
        self._is_closed = True
        writer = self._writer
        if writer is None or writer.is_inherited:
            return
        self._topics.bump_all()
        with self._clock.hold():
            await writer.leave(self)

    def clone(self) -> Self:
        """Return another handle on the same store, which shares thread and memory with this one."""
        twin = copy.copy(self)
        vars(twin).update(_writer=None, _is_closed=False)
        return twin

    def now(self) -> int:
        """Return the store's time."""
        return self._clock.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Store new tasks, all or none."""
        clock = self._clock
        return await self._write(lambda state: state.insert(records, clock.now(), limit))

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Give ready tasks to a worker."""
        clock, topics = self._clock, self._topics
        return await self._write(
            lambda state: state.claim(request, clock.now(), topics.mark),
            lambda state, claimed: state.give_back(claimed, clock.now()),
        )

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Replace tasks whose version is as expected."""
        clock = self._clock
        return await self._write(lambda state: state.swap(changes, clock.now()))

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Swap, then claim, in one step."""
        clock, topics = self._clock, self._topics

        def turn(state: LoggedState) -> tuple[list[Swapped], Claimed]:
            now = clock.now()
            return state.swap(changes, now), state.claim(request, now, topics.mark)

        return await self._write(turn, lambda state, turned: state.give_back(turned[1], clock.now()))

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Renew leases."""
        clock = self._clock
        return await self._write(lambda state: state.extend(leases, us, clock.now()))

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Return tasks by id."""
        return await self._read(lambda state: state.get(ids, payload=payload))

    async def find(self, query: Query) -> list[Record]:
        """Return a page of the tasks that match."""
        return await self._read(lambda state: state.find(query))

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks there are by (lane, status)."""
        return await self._read(lambda state: state.count())

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Append to the journal of a task in progress under this lease."""
        return await self._write(lambda state: state.append(task_id, lease, entries))

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Return journal entries after a number."""
        return await self._read(lambda state: state.read(task_id, after, limit))

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Delete terminal tasks."""
        return await self._write(lambda state: state.delete(targets))

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Wait for a change of the topic; one of another process is seen within milliseconds."""
        with self._open_writer().watching():
            mark = await self._topics.wait(topic, mark, timeout, self._clock)
        self._open_writer()
        return mark

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Note that a worker is here."""
        clock = self._clock
        await self._write(lambda state: state.announce(worker, data, us, clock.now()))

    async def workers(self) -> list[Present]:
        """Return the workers that are here."""
        clock = self._clock
        return await self._read(lambda state: state.workers(clock.now()))

    async def _write(
        self, step: Callable[[LoggedState], T], undo: Callable[[LoggedState, T], None] | None = None
    ) -> T:
        with self._clock.hold():
            return await self._open_writer().take(step, undo=undo)

    async def _read(self, step: Callable[[LoggedState], T]) -> T:
        with self._clock.hold():
            return await self._open_writer().take(step, writes=False)

    def _open_writer(self) -> LogWriter:
        if self._is_closed:
            raise QueueClosed(self.url)
        if self._writer is None:
            raise StorageError(self.url, "it is not open. Await open() first.")
        if self._writer.is_inherited:
            raise StorageError(self.url, _FORKED)
        if self._writer.is_ended:  # it could not go on
            self._writer = self._start_writer()
        return self._writer

    def _start_writer(self) -> LogWriter:
        """Return the thread of this handle and its clones, with this handle counted in."""
        if self._generation != generation():
            self._shared, self._generation = _Shared(was_open=self._shared.was_open), generation()
        with self._shared.guard:
            writer = self._shared.writer
            if writer is None or not writer.join(self):
                writer = self._shared.writer = LogWriter(
                    url=self.url,
                    topics=self._topics,
                    clock=self._clock,
                    patience=self._busy_timeout,
                    create=not self._shared.was_open,
                )
                writer.join(self)
                writer.start()
        return writer
