"""`SQLiteBackend`, and the `SQLiteTaskQueue` over it."""

from __future__ import annotations

import os
import sqlite3
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote

from anyio import to_thread

from jotty.core.queue import (
    MAX_PAYLOAD,
    Change,
    Claimed,
    ClaimRequest,
    Clock,
    Durability,
    Migration,
    Present,
    Query,
    QueueBackend,
    Record,
    SteadyClock,
    Swapped,
    TaskQueue,
    Topics,
    check_seconds,
)
from jotty.errors import QueueClosed, StorageError
from jotty_backends.url_options import OPTIONS, as_durability

from .forks import REMEDY
from .library import tell_of_wal_reset_bug
from .migrations import migrate
from .schema import connect, storage_error
from .tables import Tables
from .transaction import anchor
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from jotty.core.queue import Random, TaskStatus
    from jotty_backends.file_lock import FileLock

__all__ = ["SQLiteBackend", "SQLiteTaskQueue"]

T = TypeVar("T")
BUSY_TIMEOUT: Final = 5.0
FEW: Final = 4  # tasks; with those, it takes longer to hand a step to another thread than to take it
MANY: Final = 1000

# Handles on one file in this process find each other here, and wake each other at once.
_topics: weakref.WeakValueDictionary[str, Topics] = weakref.WeakValueDictionary()


class SQLiteBackend(QueueBackend):
    """A `QueueBackend` in a SQLite file, for any number of processes of one machine.

    A thread of its own has the connection, and commits what waits together as one transaction. At level
    "process" it lends the connection to the event loop for a few brief calls: the loop does them sooner than
    it hands them over. Beside the file stands a lock file, named like it with `-lock` at the end, which makes
    the processes take turns. All are readable by their owner alone. The directory must exist; a symbolic link
    is refused. A forked child is refused the file if its parent had it open: SQLite would lose what the child
    writes.

    Args:
        path: The database file, created at `open`; relative to the working directory of this moment.
        durability: What a returned write survives: "process" (kill -9 of every process) or "power" (loss of
            power as well, at the price of an fsync for each group of writes).
        busy_timeout: Seconds after which a call fails that others keep from the database.
        create: Whether to make the file if there is none; else that is a StorageError.
        clock: Another source of time than the store's own.

    Raises:
        ValueError: An argument is wrong.
    """

    scheme = "sqlite"
    options = OPTIONS
    capabilities = frozenset({"event_loops", "files", "processes"})
    points = tuple(
        f"sqlite.{effect}.{side}"
        for effect in ("begin", "commit", "create", "make")
        for side in ("before", "after")
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        busy_timeout: float = BUSY_TIMEOUT,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        named = os.fspath(path)
        if not named or named == ":memory:" or "\0" in named:
            raise ValueError(f"path must name a file, not {named!r}. For a queue in memory, use 'memory:'.")
        if named.startswith("sqlite:"):
            raise ValueError(f"path must be a path, not the URL {named!r}. Pass the URL to open_queue().")
        check_seconds("busy_timeout", busy_timeout)
        self.durability = as_durability(durability)
        self.url = f"sqlite:///{quote(named)}"
        self._path = str(Path(named).absolute())
        self._busy_timeout = busy_timeout
        self._create = create
        self._clock: Clock = clock or SteadyClock()
        self._topics = _topics.setdefault(os.path.realpath(self._path), Topics())
        self._writer: Writer | None = None
        self._is_closed = False

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> SQLiteBackend:
        """Make a handle on `///relative.db` or `////absolute.db`; percent-encoding is undone."""
        path = unquote(location.removeprefix("///"))
        if not location.startswith("///") or not path:
            raise ValueError(
                f"sqlite:{location} names no file. Write sqlite:///relative.db or sqlite:////absolute.db."
            )
        return cls(path, clock=clock, **options)

    async def open(self) -> None:
        """Create the store, or check that it is one; again does nothing.

        Raises:
            SchemaError: The file is of another version, or of another program; nothing was written.
            StoreCorrupt: The file is no database or a damaged one; nothing was written.
            StorageError: Its directory is missing, it is a symbolic link, or the system refuses it.
        """
        if self._is_closed:
            raise QueueClosed(self.url)
        if self._writer is None or self._writer.is_ended:
            writer = self._start_writer(create=self._create)
        else:
            writer = self._open_writer()
        with self._clock.hold():
            await writer.take(lambda _: None, writes=False)

    async def aclose(self) -> None:
        """Finish the calls under way, end the thread and close the file; again does nothing."""
        self._is_closed = True
        writer = self._writer
        if writer is None or writer.is_inherited:
            return
        self._topics.bump_all()
        with self._clock.hold():
            await writer.aclose()

    def clone(self) -> SQLiteBackend:
        """Return another handle on the same file, with a connection and a thread of its own."""
        twin = SQLiteBackend(
            self._path,
            durability=self.durability,
            busy_timeout=self._busy_timeout,
            create=self._create and self._writer is None,
            clock=self._clock,
        )
        twin.url = self.url
        return twin

    def now(self) -> int:
        """Return the store's time."""
        return self._clock.now()

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Store new tasks, all or none."""
        return await self._write(lambda tables: tables.insert(records, limit), of=len(records))

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Give ready tasks to a worker."""
        topics = self._topics
        return await self._write(
            lambda tables: tables.claim(request, topics.mark),
            lambda tables, claimed: tables.give_back(claimed),
            of=request.limit,
        )

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Replace tasks whose version is as expected."""
        return await self._write(lambda tables: tables.swap(changes), of=len(changes))

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Swap, then claim, in one transaction."""
        topics = self._topics
        return await self._write(
            lambda tables: (tables.swap(changes), tables.claim(request, topics.mark)),
            lambda tables, turned: tables.give_back(turned[1]),
            of=len(changes) + request.limit,
        )

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Renew leases."""
        return await self._write(lambda tables: tables.extend(leases, us), of=len(leases))

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Return tasks by id."""
        return await self._read(lambda tables: tables.get(ids, payload=payload), of=len(ids))

    async def find(self, query: Query) -> list[Record]:
        """Return a page of the tasks that match."""
        return await self._read(lambda tables: tables.find(query))

    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks there are by (lane, status)."""
        return await self._read(lambda tables: tables.count())

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Append to the journal of a task in progress under this lease."""
        return await self._write(lambda tables: tables.append(task_id, lease, entries), of=1)

    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Return journal entries after a number."""
        return await self._read(lambda tables: tables.read(task_id, after, limit))

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Delete terminal tasks."""
        return await self._write(lambda tables: tables.delete(targets))

    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Wait for a change of the topic; one of another process is seen within milliseconds."""
        with self._open_writer().watching():
            mark = await self._topics.wait(topic, mark, timeout, self._clock)
        self._open_writer()
        return mark

    def _write(
        self,
        step: Callable[[Tables], T],
        undo: Callable[[Tables, T], None] | None = None,
        *,
        of: int = MANY,
    ) -> Awaitable[T]:
        """Have a step taken, which writes so many tasks."""
        return self._holding(self._open_writer().take(step, undo=undo, is_brief=of <= FEW))

    def _read(self, step: Callable[[Tables], T], *, of: int = MANY) -> Awaitable[T]:
        return self._holding(self._open_writer().take(step, writes=False, is_brief=of <= FEW))

    def _holding(self, call: Awaitable[T]) -> Awaitable[T]:
        """Return the call, which keeps virtual time still while the thread is at work."""
        return _held(call, self._clock) if self._clock.is_virtual else call

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Note that a worker is here."""
        await self._write(lambda tables: tables.announce(worker, data, us))

    async def workers(self) -> list[Present]:
        """Return the workers that are here."""
        return await self._read(lambda tables: tables.workers())

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        """Bring an older store to this version; nobody else may have it open."""
        if self._is_closed:
            raise QueueClosed(self.url)
        step = partial(migrate, self._path, self.url, dry_run=dry_run, patience=self._busy_timeout)
        try:
            with self._clock.hold():
                return await to_thread.run_sync(step)
        except (sqlite3.Error, OSError) as refusal:
            raise storage_error(self.url, refusal) from refusal

    def _start_writer(self, *, create: bool) -> Writer:
        # the thread must not refer to this handle, which would then live for ever if it is not closed
        open_tables = partial(
            _open_tables,
            self._path,
            self.url,
            durability=self.durability,
            patience=self._busy_timeout,
            create=create,
            clock=self._clock,
        )
        self._writer = Writer(
            open_tables,
            url=self.url,
            path=self._path,
            topics=self._topics,
            patience=self._busy_timeout,
            lends=self.durability == "process",
        )
        weakref.finalize(self, self._writer.stop).atexit = False
        return self._writer

    def _open_writer(self) -> Writer:
        if self._is_closed:
            raise QueueClosed(self.url)
        if self._writer is None:
            raise StorageError(self.url, "it is not open. Await open() first.")
        if self._writer.is_inherited:
            raise StorageError(self.url, f"this handle was opened before a fork. {REMEDY}")
        if self._writer.is_ended:  # it could not go on; the store that it had must still be there
            return self._start_writer(create=False)
        return self._writer


async def _held(call: Awaitable[T], clock: Clock) -> T:
    with clock.hold():
        return await call


def _open_tables(
    path: str,
    url: str,
    news: Callable[[], None],
    *,
    durability: Durability,
    patience: float,
    create: bool,
    clock: Clock,
) -> tuple[Tables, FileLock]:
    """Open the store; called in the writer's thread."""
    tell_of_wal_reset_bug()
    connection, lock = connect(path, url, news, durability=durability, patience=patience, create=create)
    try:
        if isinstance(clock, SteadyClock):
            anchor(clock, connection)
        # from here on the patience is the writer's, who serves readers meanwhile
        connection.execute("PRAGMA busy_timeout = 50")
    except BaseException:
        connection.close()
        lock.close()
        raise
    return Tables(connection, clock.now), lock


class SQLiteTaskQueue(TaskQueue):
    """A `TaskQueue` in a SQLite file, shared by any number of processes of one machine.

    Args:
        db_path: The database file, created at first use.
        durability: What a returned write survives: "process" (kill -9) or "power" (loss of power as well).
        clock: Another source of time, for tests.
        random: Where ids and jitter come from.
        max_size: The most live tasks; None for no bound.
        max_payload: The most bytes of JSON a task, a result or a journal entry may have.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "tasks.db",
        *,
        durability: Durability = "process",
        clock: Clock | None = None,
        random: Random | None = None,
        max_size: int | None = None,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        super().__init__(
            SQLiteBackend(db_path, durability=durability, clock=clock),
            clock=clock,
            random=random,
            max_size=max_size,
            max_payload=max_payload,
        )
