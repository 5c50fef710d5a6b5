"""Tasks taken out of a store, and into another: a backup, or a move to another backend."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.errors import PayloadError, StoreCorrupt

from . import journal, lifecycle, portable
from .backend import Change, Outcome, Query, QueueBackend, Record
from .cursor import Cursor
from .reaper import examine_all
from .task import LIVE, Head, TaskStatus, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .backend import Swapped
    from .portable import Arrival
    from .task_queue import TaskQueue

__all__ = ["Imported", "export_tasks", "import_tasks"]

READ_AT_ONCE: Final = 25  # tasks with all that belongs to them
WRITTEN_AT_ONCE: Final = 100
BYTES_AT_ONCE: Final = 4 * 1024 * 1024
ENTRIES_AT_ONCE: Final = 1000

# what a task waits for, or seems to have waited for, that is not wholly imported
_REST: Final = ("the rest of its import",)
# further than any task gets in the other store, so that no version there is ever this one's
_AHEAD: Final = 2**32


def export_tasks(
    queue: TaskQueue,
    *,
    statuses: Collection[TaskStatus | str] | None = None,
    lane: str | None = None,
    tag: str | None = None,
    key: str | None = None,
    on_damage: Callable[[StoreCorrupt], object] | None = None,
) -> Cursor[dict[str, Any]]:
    """Iterate over the tasks that fulfil every condition as JSON objects, in the order of enqueue.

    An object has all that belongs to a task: `jotty` (the format, 1), `head` (the fields of `Head`, but for
    those that only mean something in its store), `goal`, `context`, `metadata`, `headers`, `result`,
    `error`, `journal` (a list of objects), and `gone`: those of its dependencies that were deleted already.
    Instants and durations are microseconds.

    The store is read in small pages, and may be used meanwhile: each task is as it was at one instant, but
    not all at the same one. A task of which an import has yet to bring the rest is passed over. The iteration
    may be left at any time.

    Args:
        queue: Where they are.
        statuses: In one of these states; None for any.
        lane: In this lane.
        tag: With this tag.
        key: With this key.
        on_damage: Called with what is said of a task that is damaged, which is then passed over.

    Raises:
        StoreCorrupt: A task is damaged, and there is no `on_damage`; raised while iterating.
        ValueError: There is no such status, or a filter is no name.
    """
    for kind, name in (("lane", lane), ("tag", tag), ("key", key)):
        if name is not None:
            check_name(kind, name)
    states = None if statuses is None else frozenset(map(TaskStatus, statuses))
    query = Query(statuses=states, lane=lane, tag=tag, key=key, limit=READ_AT_ONCE)

    async def fetch() -> list[dict[str, Any]] | None:
        nonlocal query
        await queue.__aenter__()
        while page := await queue.backend.find(query):
            found = [told for record in page if (told := await _undamaged(queue, record.head, on_damage))]
            query = attrs.evolve(query, after_seq=page[-1].head.seq)
            if found:
                return found
        return None

    return Cursor(fetch)


async def _undamaged(
    queue: TaskQueue, head: Head, on_damage: Callable[[StoreCorrupt], object] | None
) -> dict[str, Any] | None:
    try:
        return await _document(queue, head)
    except StoreCorrupt as damage:
        if on_damage is None:
            raise
        on_damage(damage)
        return None


async def _document(queue: TaskQueue, head: Head) -> dict[str, Any] | None:
    """Return a task with its journal as they were at one instant; None if it is gone."""
    while True:
        entries = await _journal(queue.backend, head.id)
        parents = await queue.backend.get(head.depends_on, payload=False) if head.depends_on else []
        task = await queue.get(head.id)
        if task is None or _is_partial(task.head):
            return None
        if task.version == head.version:  # then nothing but appends can have come between
            gone = [one for one, parent in zip(head.depends_on, parents, strict=True) if parent is None]
            return portable.document(task, entries, gone)
        head = task.head


async def _journal(backend: QueueBackend, task_id: str) -> list[bytes]:
    entries: list[bytes] = []
    while page := await backend.read(task_id, len(entries), ENTRIES_AT_ONCE):
        entries += (entry for _, entry in page)
    return entries


@attrs.frozen
class Imported:
    """What an import did.

    Attributes:
        imported: How many tasks it stored.
        left: How many it left as they are, because the store has a task of that id.
        refused: How many lines it passed over, as `on_refused` was told.
    """

    imported: int
    left: int
    refused: int = 0


async def import_tasks(
    queue: TaskQueue,
    lines: AsyncIterable[str | bytes | dict[str, Any]] | Iterable[str | bytes | dict[str, Any]],
    *,
    dry_run: bool = False,
    on_refused: Callable[[PayloadError], object] | None = None,
) -> Imported:
    """Store exported tasks, each with its journal, as they were exported; a task that is there is left.

    Id, key, dependencies, state, attempts, journal and the number of the lease stay; so who held a task in
    the other store cannot write to it here. A task that was in progress is pending, its attempt given back.
    Each is written wholly or, where the import was killed, so that nobody takes it up, and that the next
    import of it completes it.

    The lines may come in any order; those that come before a task they depend on are kept in memory.

    Args:
        queue: Where to put them.
        lines: What `export_tasks` gave, or JSON of it; empty lines are passed over.
        dry_run: Whether only to check the lines, and count what would be done.
        on_refused: Called with what is wrong with a line that is then passed over, and so are those that
            depend on it; all others are imported.

    Raises:
        PayloadError: There is no `on_refused`, and a line is no exported task; or one depends on a task that
            is neither in the lines nor in the store, or has the key of a live task. `path` begins with its
            number. Nothing of it was written; others may have been, and are left by the next import.
        QueueFull: There are too many live tasks.
    """
    await queue.__aenter__()
    work = _Import(queue, dry_run=dry_run, on_refused=on_refused)
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            await work.take(line)
    else:
        for line in lines:
            await work.take(line)
    return await work.finish()


class _Import:
    """One import: what of it is known, what waits for a dependency, and what is to be written next."""

    def __init__(
        self, queue: TaskQueue, *, dry_run: bool, on_refused: Callable[[PayloadError], object] | None
    ) -> None:
        self._backend = queue.backend
        self._max_payload = queue.max_payload
        self._max_size = queue.max_size
        self._dry_run = dry_run
        self._on_refused = on_refused
        self._seen: set[str] = set()
        self._keys: dict[str, str] = {}
        self._waiting: dict[str, list[Arrival]] = {}
        self._ready: list[Arrival] = []
        self._size = 0
        self._number = 0
        self._imported = 0
        self._left = 0
        self._refused = 0
        self._refused_ids: set[str] = set()

    async def take(self, line: str | bytes | dict[str, Any]) -> None:
        """Take the next line.

        Raises:
            PayloadError: It is no exported task, and nobody wants to be told.
        """
        self._number += 1
        if isinstance(line, (str, bytes)) and not line.strip():
            return
        try:
            arrival = portable.parse(f"line {self._number}", line, self._max_payload)
        except PayloadError as wrong:
            self._refuse(wrong)
        else:
            await self._take(arrival)

    def _refuse(self, wrong: PayloadError, arrival: Arrival | None = None) -> None:
        if self._on_refused is None:
            raise wrong
        self._refused += 1
        if arrival is not None:
            self._seen.discard(arrival.head.id)
            self._refused_ids.add(arrival.head.id)
        self._on_refused(wrong)

    async def _take(self, first: Arrival) -> None:
        """Take a task, and those that have waited for it; write them when there are enough."""
        arrivals = [first]
        while arrivals:
            arrival = arrivals.pop()
            if arrival.head.id in self._seen:
                self._left += 1
            elif missing := await self._missing(arrival):
                await self._keep(arrival, missing)
            else:
                self._seen.add(arrival.head.id)
                self._refused_ids.discard(arrival.head.id)
                self._ready.append(arrival)
                self._size += arrival.size
                arrivals += reversed(self._waiting.pop(arrival.head.id, []))
            if len(self._ready) >= WRITTEN_AT_ONCE or self._size >= BYTES_AT_ONCE:
                await self._write()

    async def finish(self) -> Imported:
        """Write the rest, and tell what was done.

        Raises:
            PayloadError: A task waits in vain.
        """
        await self._write()
        in_vain = [(missing, one) for missing, arrivals in self._waiting.items() for one in arrivals]
        self._refused_ids.update(one.head.id for _, one in in_vain)
        for missing, arrival in in_vain:
            self._refuse(_waits_in_vain(arrival, missing, is_refused=missing in self._refused_ids))
        return Imported(self._imported, self._left, self._refused)

    async def _missing(self, arrival: Arrival) -> str | None:
        """Return a dependency that must come first."""
        ids = [one for one in arrival.head.depends_on if one not in self._seen and one not in arrival.gone]
        found = await self._backend.get(ids, payload=False) if ids else []
        return next((one for one, record in zip(ids, found, strict=True) if record is None), None)

    async def _keep(self, arrival: Arrival, missing: str) -> None:
        (record,) = await self._backend.get([arrival.head.id], payload=False)
        if record is None or _is_partial(record.head):
            self._waiting.setdefault(missing, []).append(arrival)
        else:
            self._left += 1

    async def _write(self) -> None:
        arrivals, self._ready, self._size = self._ready, [], 0
        found = await self._backend.get([one.head.id for one in arrivals], payload=False) if arrivals else []
        partial = {record.head.id: record.head for record in found if record and _is_partial(record.head)}
        new = [one for one, record in zip(arrivals, found, strict=True) if record is None]
        there = {record.head.id for record in found if record} - partial.keys()
        wanted = [one for one in arrivals if one.head.id not in there]
        self._left += len(there)
        wanted = [one for one in wanted if await self._is_allowed(one)]
        new = [one for one in new if one.head.id in self._seen]
        if self._dry_run or not wanted:
            self._imported += len(wanted)
        else:
            partial |= await self._begin(new)
            begun = [one for one in wanted if one.head.id in partial]
            await self._complete([one for one in begun if self._has_parents(one)], partial)

    def _has_parents(self, arrival: Arrival) -> bool:
        """Whether no task it depends on was refused; else it is, too."""
        refused = next((one for one in arrival.head.depends_on if one in self._refused_ids), None)
        if refused is None or refused in arrival.gone:
            return True
        self._refuse(_waits_in_vain(arrival, refused, is_refused=True), arrival)
        return False

    async def _is_allowed(self, arrival: Arrival) -> bool:
        """Whether nothing speaks against a task; what does is told."""
        if not self._has_parents(arrival):
            return False
        owner = await self._owner_of_key(arrival.head)
        if owner != arrival.head.id:
            self._refuse(_key_in_use(arrival, owner), arrival)
            return False
        return True

    async def _owner_of_key(self, head: Head) -> str:
        if not head.key or head.status not in LIVE:
            return head.id
        stored = await self._backend.find(Query(statuses=LIVE, key=head.key, limit=1))
        return self._keys.setdefault(head.key, stored[0].head.id if stored else head.id)

    async def _begin(self, arrivals: Sequence[Arrival]) -> dict[str, Head]:
        """Store tasks so that nobody takes them up yet, and return their heads by id."""
        now = self._backend.now()
        records = [Record(_partial(one.head, now), one.payload) for one in arrivals]
        stored = await self._backend.insert(records, limit=self._max_size) if records else []
        begun = {}
        for one, record in zip(arrivals, stored, strict=True):
            if record.head.id == one.head.id:
                begun[one.head.id] = record.head
            else:  # enqueued within the last milliseconds
                self._refuse(_key_in_use(one, record.head.id), one)
        return begun

    async def _complete(self, arrivals: Sequence[Arrival], partial: Mapping[str, Head]) -> None:
        """Put in the place of what stands in the store the tasks as they are to be, with their journals."""
        states = await self._states_of({one for each in arrivals for one in each.head.depends_on})
        now = self._backend.now()
        changes = []
        for one in arrivals:
            changes.append(_completion(one, partial[one.head.id], states, now))
            states[one.head.id] = changes[-1].record.head.status
        swapped = await self._backend.swap(changes)
        done = sum(one.outcome is Outcome.OK for one in swapped)
        self._imported += done
        self._left += len(swapped) - done
        await self._examine(swapped)

    async def _states_of(self, ids: Collection[str]) -> dict[str, TaskStatus]:
        found = await self._backend.get(list(ids), payload=False) if ids else []
        return {record.head.id: record.head.status for record in found if record}

    async def _examine(self, swapped: Sequence[Swapped]) -> None:
        """Have policy look at what has become due by being imported."""
        ids = [one for each in swapped for one in each.fired]
        ids += [one.record.head.id for one in swapped if one.record and one.record.head.due == 0]
        found = await self._backend.get(list(dict.fromkeys(ids)), payload=False) if ids else []
        await examine_all(self._backend, [record.head for record in found if record])


def _waits_in_vain(arrival: Arrival, missing: str, *, is_refused: bool) -> PayloadError:
    why = "which is neither in these lines nor in the store. Export it as well."
    if is_refused:
        why = "whose own line is refused. Mend that one first."
    return PayloadError(f"{arrival.place}: head['depends_on']", f"names {missing!r}, {why}")


def _key_in_use(arrival: Arrival, owner: str) -> PayloadError:
    problem = f"is {arrival.head.key!r}, which the live task {owner} has. Cancel that one first."
    return PayloadError(f"{arrival.place}: head['key']", problem)


def _partial(head: Head, now: int) -> Head:
    """Return the head of a task of which the rest is to come: nobody can claim, accept or retry it.

    Whether it is live, and so has its key, is as it will be.
    """
    is_over = head.status.is_terminal
    return Head(
        id=head.id,
        priority=head.priority,
        lane=head.lane,
        status=TaskStatus.COMPLETED if is_over else TaskStatus.BLOCKED,
        key=head.key,
        tags=head.tags,
        awaiting=_REST,
        run_at=head.run_at,
        created_at=head.created_at,
        finished_at=(head.finished_at or now) if is_over else 0,
        version=head.version + _AHEAD,
    )


def _is_partial(head: Head) -> bool:
    return head.awaiting == _REST and head.lease == 0


def _completion(arrival: Arrival, partial: Head, states: Mapping[str, TaskStatus], now: int) -> Change:
    """Return the swap that makes a task of what stands in the store what it was in the other one."""
    head, entries = arrival.head, arrival.entries
    if head.status is TaskStatus.IN_PROGRESS:
        head = lifecycle.released(head, now)
    if head.status is TaskStatus.PENDING and any(states.get(one) in LIVE for one in head.depends_on):
        # the two were not exported at one instant
        head = attrs.evolve(head, status=TaskStatus.BLOCKED)
    is_over = head.status.is_terminal
    waits = head.status is TaskStatus.BLOCKED and bool(head.awaiting)
    head = attrs.evolve(
        head,
        seq=partial.seq,
        created_at=partial.created_at,
        finished_at=(partial.finished_at or now) if is_over else 0,
        awaiting=head.awaiting if waits else (),
        due=head.due if waits else None,
        version=partial.version + 1,
    )
    if is_over and (not entries or journal.parse(0, entries[-1]).kind != "end"):
        entries = (*entries, journal.ended(head))
    return Change(partial.version, Record(head, None, arrival.outcome), entries)
