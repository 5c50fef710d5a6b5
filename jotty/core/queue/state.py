"""The whole store as plain data structures in memory: one atomic step a call, no I/O, no lock.

A backend on top of it adds the lock, the clock and, where there is one, the log (see `LoggedState`).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from jotty.errors import LeaseLost, QueueFull, TaskNotFound

from . import lifecycle
from .backend import Change, Claimed, ClaimRequest, Outcome, Present, Query, Record, Swapped
from .task import LIVE, Head, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = ["QueueState"]

PRIORITIES: Final = range(1, 6)
MIN_COMPACTED: Final = 64  # below this, stale heap entries are not worth a rebuild

Entry = tuple[int, int, str]  # of a heap: when, seq and id


class QueueState:
    """Tasks and journals, with the indexes that make every call cost what it touches.

    Heaps hold stale entries beside the true ones; one is true while the head it names says the same.
    """

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}
        self._payloads: dict[str, bytes] = {}
        self._outcomes: dict[str, bytes] = {}
        self._journals: dict[str, list[bytes]] = {}
        self._keys: dict[str, str] = {}
        self._counts: Counter[tuple[str, TaskStatus]] = Counter()
        self._live = 0
        self._seq = 0
        self._by_seq: list[tuple[int, str]] = []
        self._ready: dict[tuple[str, int], list[Entry]] = {}
        self._due: list[Entry] = []
        self._ended: list[Entry] = []
        self._children: dict[str, dict[str, None]] = {}
        self._parents: dict[str, set[str]] = {}
        self._workers: dict[str, Present] = {}

    def insert(self, records: Sequence[Record], now: int, limit: int | None = None) -> list[Record]:
        """See `QueueBackend.insert`."""
        aliases: dict[str, str] = {}
        planned: dict[str, Record] = {}
        keys: dict[str, str] = {}
        for record in records:
            head = record.head
            key = head.key if head.status in LIVE else None
            stored = self._keys.get(key) or keys.get(key) if key else None
            if stored is None:
                self._plan(record, now, aliases, planned)
                stored = head.id
                if key:
                    keys[key] = head.id
            aliases[head.id] = stored
        if limit is not None:
            more = sum(record.head.status in LIVE for record in planned.values())
            if more and self._live + more > limit:
                raise QueueFull(limit)
        for record in planned.values():
            self._add(record)
        return [self._record(aliases[record.head.id]) for record in records]

    def claim(self, request: ClaimRequest, now: int, mark: int = 0) -> Claimed:
        """See `QueueBackend.claim`."""
        records: list[Record] = []
        lanes = set(request.lanes)
        for priority in PRIORITIES:
            while len(records) < request.limit and (soonest := self._soonest(lanes, priority)) is not None:
                (run_at, _, task_id), lane = soonest
                if run_at > now:
                    break
                heapq.heappop(self._ready[lane, priority])
                head = self._heads[task_id]
                self._put(lifecycle.claimed(head, worker=request.worker, now=now, lease_us=request.lease_us))
                records.append(self._record(task_id))
        is_full = len(records) >= request.limit > 0
        return Claimed(records, mark, None if is_full else self._next_at(lanes))

    def swap(self, changes: Sequence[Change], now: int) -> list[Swapped]:
        """See `QueueBackend.swap`."""
        return [self._swap(change, now) for change in changes]

    def extend(self, leases: Sequence[tuple[str, int]], us: int, now: int) -> list[Record | None]:
        """See `QueueBackend.extend`."""
        return [self._extend(task_id, lease, us, now) for task_id, lease in leases]

    def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """See `QueueBackend.get`."""
        return [self._record(task_id, payload=payload) if task_id in self._heads else None for task_id in ids]

    def find(self, query: Query) -> list[Record]:
        """See `QueueBackend.find`."""
        found: list[Record] = []
        for head in self._candidates(query):
            if len(found) >= query.limit:
                break
            if query.matches(head):
                found.append(self._record(head.id, payload=query.payload))
        return found

    def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """See `QueueBackend.count`."""
        return {where: number for where, number in self._counts.items() if number}

    def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """See `QueueBackend.append`."""
        head = self._heads.get(task_id)
        if head is None or not _is_held(head, lease):
            raise LeaseLost(task_id, lease)
        self._keep(head, entries=entries)
        return self._last_entry(head)

    def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """See `QueueBackend.read`."""
        entries = self._journals.get(task_id, [])[after : after + limit]
        return list(enumerate(entries, start=after + 1))

    def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """See `QueueBackend.delete`."""
        return [self._delete(task_id, version) for task_id, version in targets]

    def announce(self, worker: str, data: bytes, us: int, now: int) -> None:
        """See `QueueBackend.announce`."""
        self._workers = {one.worker: one for one in self.workers(now) if one.worker != worker}
        if us:
            self._workers[worker] = Present(worker, data, now + us)

    def workers(self, now: int) -> list[Present]:
        """See `QueueBackend.workers`."""
        return [one for _, one in sorted(self._workers.items()) if one.until > now]

    # The steps of the above

    def _plan(self, record: Record, now: int, aliases: dict[str, str], planned: dict[str, Record]) -> None:
        head = record.head
        if head.id in self._heads or head.id in planned:
            raise ValueError(f"There is a task with the id {head.id!r} already.")
        depends_on = head.depends_on
        if depends_on:
            depends_on = tuple(dict.fromkeys(aliases.get(one, one) for one in depends_on))
        for parent in depends_on:
            if parent not in self._heads and parent not in planned:
                raise TaskNotFound(parent)
        seq = self._seq + len(planned) + 1
        head = lifecycle.inserted(head, seq=seq, now=now, depends_on=depends_on)
        planned[head.id] = Record(head, record.payload, record.outcome)

    def _add(self, record: Record) -> None:
        head = self._watch(record.head)
        self._keep(head, payload=record.payload, outcome=record.outcome)
        self._put(head)

    def _swap(self, change: Change, now: int) -> Swapped:
        head = change.record.head
        old = self._heads.get(head.id)
        if old is None:
            return Swapped(Outcome.GONE, None)
        if old.version != change.expected:
            return Swapped(Outcome.STALE, self._record(head.id, payload=False))
        owner = self._keys.get(head.key, head.id) if head.key and head.status in LIVE else head.id
        if owner != head.id:
            return Swapped(Outcome.KEY_TAKEN, self._record(owner, payload=False))
        if not head.run_at:
            head = attrs.evolve(head, run_at=now)
        head = self._watch(head)
        self._keep(head, outcome=change.record.outcome, entries=change.entries)
        self._put(head)
        fired = self._fire_children(head) if head.id in self._children and head.status.is_terminal else ()
        return Swapped(Outcome.OK, self._record(head.id, payload=False), fired)

    def _extend(self, task_id: str, lease: int, us: int, now: int) -> Record | None:
        head = self._heads.get(task_id)
        if head is None or not _is_held(head, lease):
            return None
        self._put(lifecycle.extended(head, now=now, lease_us=us))
        return self._record(task_id, payload=False)

    def _delete(self, task_id: str, version: int) -> bool:
        head = self._heads.get(task_id)
        if head is None or head.version != version or head.status in LIVE:
            return False
        self._forget(head)
        self._remove(head)
        return True

    # What a task has beside its head

    def _keep(
        self,
        head: Head,
        *,
        payload: bytes | None = None,
        outcome: bytes | None = None,
        entries: Sequence[bytes] = (),
    ) -> None:
        """Take in what comes with a head that is about to be put."""
        if payload is not None:
            self._payloads[head.id] = payload
        if outcome is not None:
            self._outcomes[head.id] = outcome
        if entries:
            self._journals.setdefault(head.id, []).extend(entries)

    def _last_entry(self, head: Head) -> int:
        return len(self._journals.get(head.id, ()))

    def _forget(self, head: Head) -> None:
        for store in (self._payloads, self._outcomes, self._journals):
            store.pop(head.id, None)

    def _record(self, task_id: str, *, payload: bool = True) -> Record:
        if not payload:
            return Record(self._heads[task_id], None, self._outcomes.get(task_id))
        return Record(self._heads[task_id], self._payloads.get(task_id), self._outcomes.get(task_id))

    # Edges

    def _watch(self, head: Head) -> Head:
        """Record the edges of a task that is blocked, and have policy look at it if nothing holds it."""
        if not lifecycle.needs_edges(head):
            return head
        self._link(head)
        states = [self._heads[one].status for one in head.depends_on if one in self._heads]
        return attrs.evolve(head, due=0) if lifecycle.is_fired_by(head, states) else head

    def _link(self, head: Head) -> None:
        """Record an edge from each live task that a blocked one depends on."""
        self._tie(head.id, self._live_parents(head))

    def _live_parents(self, head: Head) -> set[str]:
        return {one for one in head.depends_on if (parent := self._heads.get(one)) and parent.status in LIVE}

    def _tie(self, child_id: str, parents: set[str]) -> None:
        for parent_id in parents:
            self._children.setdefault(parent_id, {})[child_id] = None
        self._parents[child_id] = parents

    def _unlink(self, parent: Head) -> list[Head]:
        """Remove the edges from a task that is over, and return the blocked tasks that they led to."""
        children = [self._heads[one] for one in self._children.pop(parent.id, ()) if one in self._heads]
        blocked = [child for child in children if lifecycle.needs_edges(child)]
        for child in blocked:
            self._parents[child.id].discard(parent.id)
        return blocked

    def _fire_children(self, parent: Head) -> tuple[str, ...]:
        fired = []
        for child in self._unlink(parent):
            if parent.status is not TaskStatus.COMPLETED or not self._parents[child.id]:
                self._fire(child)
                fired.append(child.id)
        return tuple(fired)

    def _fire(self, child: Head) -> None:
        self._put(lifecycle.fired(child))

    # Indexes

    def _put(self, head: Head) -> None:
        """Write a head, and what follows from it for the indexes."""
        old = self._heads.get(head.id)
        self._heads[head.id] = head
        if old is None:
            self._enter(head)
        if old is None or old.status is not head.status or old.lane != head.lane:
            self._move(old, head)
        if head.status is TaskStatus.PENDING and not (old and _line(old) == _line(head)):
            self._push_ready(head)
        if head.due is not None and (old is None or old.due != head.due):
            self._push_due(head.due, head)
        if head.status not in LIVE and not (old and _end(old) == _end(head)):
            self._push_ended(head)

    def _push_ready(self, head: Head) -> None:
        heap = self._ready.get((head.lane, head.priority))
        if heap is None:
            heap = self._ready[head.lane, head.priority] = []
        heapq.heappush(heap, (head.run_at, head.seq, head.id))
        if _is_worn(heap, self._live):
            _drop_stale(heap, partial(self._is_ready_entry, priority=head.priority))

    def _push_due(self, due: int, head: Head) -> None:
        heapq.heappush(self._due, (due, head.seq, head.id))
        if _is_worn(self._due, self._live):
            _drop_stale(self._due, self._is_due_entry)

    def _push_ended(self, head: Head) -> None:
        heapq.heappush(self._ended, (head.finished_at, head.seq, head.id))
        if _is_worn(self._ended, len(self._heads) - self._live):
            _drop_stale(self._ended, self._is_ended_entry)

    def _enter(self, head: Head) -> None:
        """Give a new task its place in the order of enqueue."""
        self._seq = max(self._seq, head.seq)
        if not self._by_seq or self._by_seq[-1][0] < head.seq:
            self._by_seq.append((head.seq, head.id))
        else:  # one that comes back
            insort(self._by_seq, (head.seq, head.id))

    def _move(self, old: Head | None, head: Head) -> None:
        if old is not None:
            self._counts[old.lane, old.status] -= 1
        self._counts[head.lane, head.status] += 1
        was_live, is_live = old is not None and old.status in LIVE, head.status in LIVE
        self._live += is_live - was_live
        if head.key and is_live:
            self._keys[head.key] = head.id
        elif head.key and was_live and self._keys.get(head.key) == head.id:
            del self._keys[head.key]

    def _remove(self, head: Head) -> None:
        """Take a task out of the indexes."""
        del self._heads[head.id]
        del self._by_seq[bisect_right(self._by_seq, (head.seq,))]
        self._counts[head.lane, head.status] -= 1
        self._children.pop(head.id, None)
        self._parents.pop(head.id, None)
        if head.status not in LIVE:
            return
        self._live -= 1
        if head.key and self._keys.get(head.key) == head.id:
            del self._keys[head.key]

    def _soonest(self, lanes: Collection[str], priority: int) -> tuple[Entry, str] | None:
        """Return (run_at, seq, id) and lane of the first pending task of a priority, ready or not."""
        soonest = None
        for lane in lanes:
            top = self._top(lane, priority)
            if top is not None and (soonest is None or top < soonest[0]):
                soonest = top, lane
        return soonest

    def _top(self, lane: str, priority: int) -> Entry | None:
        heap = self._ready.get((lane, priority))
        while heap:
            if self._is_ready_entry(heap[0], priority):
                return heap[0]
            heapq.heappop(heap)
        return None

    def _is_ready_entry(self, entry: Entry, priority: int) -> bool:
        head = self._heads.get(entry[2])
        if head is None or head.status is not TaskStatus.PENDING:
            return False
        return head.run_at == entry[0] and head.seq == entry[1] and head.priority == priority

    def _next_at(self, lanes: Collection[str]) -> int | None:
        soonest = [found[0][0] for priority in PRIORITIES if (found := self._soonest(lanes, priority))]
        self._trim_due()
        if self._due:
            soonest.append(self._due[0][0])
        return min(soonest, default=None)

    def _trim_due(self) -> None:
        while self._due and not self._is_due_entry(self._due[0]):
            heapq.heappop(self._due)

    def _is_due_entry(self, entry: Entry) -> bool:
        head = self._heads.get(entry[2])
        return head is not None and head.due == entry[0] and head.seq == entry[1]

    def _is_ended_entry(self, entry: Entry) -> bool:
        head = self._heads.get(entry[2])
        return head is not None and head.status not in LIVE and (head.finished_at, head.seq) == entry[:2]

    def _candidates(self, query: Query) -> Iterator[Head]:
        """Return heads in the query's order, as few as its most selective condition allows."""
        if query.due_before is not None:
            return self._due_until(query.due_before)
        if query.key is not None and query.statuses is not None and LIVE.issuperset(query.statuses):
            owner = self._keys.get(query.key)
            return iter([self._heads[owner]] if owner else [])
        if query.finished_before is not None and not query.after_seq:
            return self._finished_until(query.finished_before)
        start = bisect_right(self._by_seq, (query.after_seq + 1,))
        return (self._heads[self._by_seq[at][1]] for at in range(start, len(self._by_seq)))

    def _due_until(self, instant: int) -> Iterator[Head]:
        entries = []
        while self._due and self._due[0][0] <= instant:
            entries.append(heapq.heappop(self._due))
        true = [entry for entry in dict.fromkeys(entries) if self._is_due_entry(entry)]
        for entry in true:
            heapq.heappush(self._due, entry)
        return (self._heads[task_id] for _, _, task_id in true)

    def _finished_until(self, instant: int) -> Iterator[Head]:
        """Walk the finished tasks from the one that ended first."""
        while self._ended and not self._is_ended_entry(self._ended[0]):
            heapq.heappop(self._ended)
        last = None
        for entry in _in_order(self._ended):
            if entry[0] >= instant:
                return
            if entry != last and self._is_ended_entry(entry):
                yield self._heads[entry[2]]
            last = entry


def _is_worn(heap: list[Entry], number: int) -> bool:
    """Whether stale entries outnumber those that can be true."""
    return len(heap) > 2 * number + MIN_COMPACTED


def _drop_stale(heap: list[Entry], is_true: Callable[[Entry], bool]) -> None:
    heap[:] = sorted(filter(is_true, set(heap)))


def _in_order(heap: list[Entry]) -> Iterator[Entry]:
    """Walk a heap from its least entry on, and leave it as it is."""
    next_ones = [(heap[0], 0)] if heap else []
    while next_ones:
        entry, at = heapq.heappop(next_ones)
        yield entry
        for child in range(2 * at + 1, min(2 * at + 3, len(heap))):
            heapq.heappush(next_ones, (heap[child], child))


def _line(head: Head) -> tuple[TaskStatus, int, int]:
    """Where a head stands in the lines of ready tasks."""
    return head.status, head.priority, head.run_at


def _end(head: Head) -> int | None:
    """When a task ended; None while it is live."""
    return None if head.status in LIVE else head.finished_at


def _is_held(head: Head, lease: int) -> bool:
    return head.status is TaskStatus.IN_PROGRESS and head.lease == lease
