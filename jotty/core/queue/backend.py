"""The seam to a store: what a backend author writes. Storage with compare-and-swap, and no policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .clock import Clock
    from .task import Head, TaskStatus

__all__ = [
    "Change",
    "ClaimRequest",
    "Claimed",
    "Durability",
    "Migration",
    "Outcome",
    "Present",
    "Query",
    "QueueBackend",
    "Record",
    "Swapped",
]

Durability = Literal["none", "process", "power"]


@attrs.frozen
class Record:
    """A task as a backend sees it.

    Attributes:
        head: What policy rewrites.
        payload: Goal, context and the like as opaque bytes; None where not asked for, or where it stays.
        outcome: Result and error as opaque bytes; None where there is none, or where it stays.
    """

    head: Head
    payload: bytes | None = None
    outcome: bytes | None = None


@attrs.frozen
class Change:
    """A compare-and-swap of one task.

    Attributes:
        expected: The version that must be in the store.
        record: What to put there. `head.version` is one more than expected; `head.run_at` 0 means now.
        entries: Journal entries to append in the same atomic step.
        before: The head of that version, where the caller has it: a backend need not read it then, but
            compares the versions all the same.
    """

    expected: int
    record: Record
    entries: Sequence[bytes] = ()
    before: Head | None = None


class Outcome(StrEnum):
    """How a swap ended."""

    OK = "ok"
    STALE = "stale"
    KEY_TAKEN = "key_taken"
    GONE = "gone"


@attrs.frozen
class Swapped:
    """What a swap did.

    Attributes:
        outcome: OK, or why nothing was changed: another version, another live task with the key, no task.
        record: What is in the store now, without its payload; None if the task is gone. With KEY_TAKEN, the
            task that has the key.
        fired: Ids of blocked tasks at which policy must look because of this change.
    """

    outcome: Outcome
    record: Record | None
    fired: tuple[str, ...] = ()


@attrs.frozen
class ClaimRequest:
    """What a worker asks for.

    Attributes:
        lanes: The lanes to take from.
        limit: How many tasks at most; 0 asks only for `mark` and `next_at`.
        worker: Who asks.
        lease_us: How long the leases last, in microseconds.
    """

    lanes: tuple[str, ...]
    limit: int
    worker: str
    lease_us: int


@attrs.frozen
class Claimed:
    """What a claim gave.

    Attributes:
        records: The tasks, with payload and outcome, in the order of C13.
        mark: For `wait`: changes after this claim have a greater mark, in any lane.
        next_at: If fewer than `limit` were there: the soonest run_at in these lanes or due in the store, in
            microseconds (it may be past); None if there is neither, or the limit was reached.
    """

    records: list[Record]
    mark: int
    next_at: int | None


@attrs.frozen(kw_only=True)
class Query:
    """Which tasks to find; every condition that is not None must hold.

    Attributes:
        statuses: In one of these states.
        lane: In this lane.
        tag: With this tag.
        key: With this key.
        due_before: Due at or before this instant; the order is then (due, seq), else it is seq.
        finished_before: Finished before this instant; the order is then the store's own.
        after_seq: With a greater seq: to read page by page. Not together with due_before.
        limit: The most tasks to return.
        payload: Whether to read payloads and outcomes.
    """

    statuses: Collection[TaskStatus] | None = None
    lane: str | None = None
    tag: str | None = None
    key: str | None = None
    due_before: int | None = None
    finished_before: int | None = None
    after_seq: int = 0
    limit: int = 1000
    payload: bool = False

    def matches(self, head: Head) -> bool:
        """Whether a head fulfils every condition; for backends that filter in Python."""
        return (
            head.seq > self.after_seq
            and (self.statuses is None or head.status in self.statuses)
            and (self.lane is None or head.lane == self.lane)
            and (self.tag is None or self.tag in head.tags)
            and (self.key is None or head.key == self.key)
            and (self.due_before is None or (head.due is not None and head.due <= self.due_before))
            and (self.finished_before is None or 0 < head.finished_at < self.finished_before)
        )


@attrs.frozen
class Present:
    """A worker that has announced itself.

    Attributes:
        worker: Its name.
        data: What it tells of itself, as opaque bytes.
        until: When it must have announced itself again, in microseconds.
    """

    worker: str
    data: bytes
    until: int


@attrs.frozen
class Migration:
    """What it takes, or took, to bring a store to the schema that its backend knows.

    Attributes:
        found: The schema's version as it was found.
        wanted: The version that the backend knows.
        steps: What is to be done, or was done, in words; empty where there was nothing to do.
    """

    found: int
    wanted: int
    steps: tuple[str, ...] = ()


class QueueBackend(ABC):
    """Storage for tasks and their journals.

    Every call but `wait` is one atomic step: a concurrent caller, in this process or another, sees all of
    it or nothing, and so does who opens the store after a crash. A call that raises changed nothing, but for
    a `StorageError` whose outcome is unknown. Cancelling a call leaves the whole effect or none, and the
    handle usable; a cancelled claim gives back what it took (`lifecycle.released`). A driver's exception
    leaves as `StorageError`, `from` the driver's.

    One handle serves one event loop at a time; `clone` gives one for another thread.

    Attributes:
        scheme: The URL scheme, which is also the name of the entry point.
        options: The query parameters that the URL may have, each with what turns its text into a value.
        durability: What a returned write survives: nothing ("none"), kill -9 of every process ("process"),
            loss of power ("power").
        capabilities: Named abilities, as the conformance kit knows them.
        points: Named points (see `jotty.core.queue.points`) that the usual calls on a new store all come by:
            at each of them the conformance kit kills a process.
        url: The store's address, without a password.
    """

    scheme: ClassVar[str]
    options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    capabilities: ClassVar[frozenset[str]] = frozenset()
    points: ClassVar[Sequence[str]] = ()
    durability: Durability
    url: str

    @classmethod
    @abstractmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> QueueBackend:
        """Make a handle, without opening the store.

        Args:
            location: What stands between the scheme's colon and the question mark.
            clock: Another source of time than the store's own, for tests.
            options: The parsed query parameters.

        Raises:
            ValueError: The location names no store of this kind.
        """

    @abstractmethod
    async def open(self) -> None:
        """Create the store, or check that it has the schema that this backend knows.

        Raises:
            SchemaError: It has another; nothing was written.
            StoreCorrupt: It is damaged; nothing was written.
        """

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        """Bring an older store to the schema that this backend knows; called instead of `open`, and alone.

        This default has nothing to bring up to date. All or nothing: a crash leaves the older store.

        Args:
            dry_run: Whether only to tell what would be done.

        Raises:
            SchemaError: The store has a newer schema, or is another program's; nothing was written.
            StorageError: There is no store, or others use it.
        """
        del dry_run
        await self.open()
        return Migration(1, 1)

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the calls under way and let go of the store; calling it again does nothing."""

    @abstractmethod
    def clone(self) -> QueueBackend:
        """Return a second handle on the store, not yet open, to be used in another thread."""

    @abstractmethod
    def now(self) -> int:
        """Return the store's time in microseconds: an estimate, for backoff and `examine`."""

    @abstractmethod
    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        """Store new tasks, all or none, and return them as stored, in the same order.

        Sets `seq`, an unset `created_at` and `run_at`, and for blocked tasks their edges and `due`
        (see `lifecycle.inserted`, `needs_edges`, `is_fired_by`). A task whose key a live task has, in the
        store or earlier in the list, is not stored: that one is returned in its place, and takes its place
        in the `depends_on` of later items.

        Raises:
            QueueFull: More than `limit` tasks would be live.
            TaskNotFound: One depends on an id that is neither in the store nor earlier in the list.
        """

    @abstractmethod
    async def claim(self, request: ClaimRequest) -> Claimed:
        """Give ready tasks to a worker, in the order of C13 (see `lifecycle.claimed`).

        The clock is read inside the critical section.
        """

    @abstractmethod
    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Replace tasks whose version is as expected; the whole batch is one atomic step.

        An id stands in a batch at most once. A swap that makes a task terminal frees its key and removes its
        outgoing edges; each blocked child with no edge left, or whose parent did not complete, is `fired`.
        One that makes or leaves a task blocked records its edges as `insert` does.
        """

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Swap, then claim: a worker's fast path, one atomic step where the backend can.

        A stale change never stops the claim. This default makes two calls.
        """
        swapped = await self.swap(changes) if changes else []
        return swapped, await self.claim(request)

    @abstractmethod
    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Renew leases (id, lease) by a duration in microseconds (see `lifecycle.extended`).

        None stands for one that is no longer held.
        """

    @abstractmethod
    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """Return tasks by id, None for one that is not there."""

    @abstractmethod
    async def find(self, query: Query) -> list[Record]:
        """Return a page of the tasks that match."""

    @abstractmethod
    async def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """Return how many tasks there are by (lane, status), without zeros."""

    @abstractmethod
    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Append to the journal of a task in progress under this lease, and return the last number.

        Raises:
            LeaseLost: The lease is not the current one, or the task is not in progress.
        """

    @abstractmethod
    async def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Return journal entries after a number, in order; empty for an unknown task."""

    @abstractmethod
    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Delete terminal tasks (id, version) with journal and edges; False where nothing was deleted."""

    @abstractmethod
    async def wait(self, topic: str, mark: int, timeout: float) -> int:
        """Return the current mark once the topic has changed since `mark`, or after `timeout` seconds.

        Topics are "lane:x" (a task of lane x became pending), "task:id" (it or its journal was written) and
        "worker:x" (a task that worker x runs is asked to stop); `topics_of` gives those of a head. It
        returns at once if the topic has changed already, and may return early, so that no wake-up is lost.
        A mark of -1 returns at once with the current mark.
        """

    async def announce(self, worker: str, data: bytes, us: int) -> None:
        """Note that a worker is here, and what it tells of itself, for so many microseconds; 0 takes it off.

        This default notes nothing: then nobody can list the workers, and nothing else is amiss.
        """
        del worker, data, us

    async def workers(self) -> list[Present]:
        """Return the workers that have announced themselves and whose time is not up, by name."""
        return []
