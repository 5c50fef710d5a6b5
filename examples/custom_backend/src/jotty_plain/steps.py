"""Each call of `QueueBackend` as a step on plain dicts: no I/O, no lock, and no policy, which is `lifecycle`.

Rows are never changed but replaced, and a step works on a copy of the dict of them: one that raises, or that
cannot be saved, is thrown away, and has not happened. Every search looks at all rows; a real store has an
index for each.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import (
    LIVE,
    Change,
    Claimed,
    ClaimRequest,
    Head,
    Outcome,
    Present,
    Query,
    Record,
    RetryPolicy,
    Swapped,
    TaskStatus,
    lifecycle,
)
from jotty.errors import LeaseLost, QueueFull, TaskNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Row", "Steps"]

_TUPLES = ("tags", "depends_on", "awaiting", "answered", "progress")


@attrs.frozen
class Row:
    """A task in the store. Bytes are opaque: they are saved as Latin-1, in which each byte is a character.

    Attributes:
        head: What policy rewrites.
        payload: Goal and context.
        outcome: Result or error.
        journal: The entries, of which the first has the number 1.
        waits_for: The edges: live tasks that this one, which is blocked, depends on.
        text: All of it as JSON, made once, as the whole file is written for each change of any row.
    """

    head: Head
    payload: bytes | None = None
    outcome: bytes | None = None
    journal: tuple[bytes, ...] = ()
    waits_for: frozenset[str] = frozenset()
    text: str = attrs.field(
        init=False,
        default=attrs.Factory(lambda row: _as_json(row), takes_self=True),  # noqa: PLW0108 - it stands below
    )

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Row:
        """Return the row that was saved as this."""
        fields = dict(told["head"])
        fields["status"] = TaskStatus(fields["status"])
        fields["retry"] = RetryPolicy(**fields["retry"])
        fields |= {name: tuple(fields[name]) for name in _TUPLES if fields[name] is not None}
        journal = tuple(entry.encode("latin-1") for entry in told["journal"])
        payload, outcome = _bytes(told["payload"]), _bytes(told["outcome"])
        return cls(Head(**fields), payload, outcome, journal, frozenset(told["waits_for"]))


def _as_json(row: Row) -> str:
    return json.dumps(
        {
            "head": attrs.asdict(row.head),
            "payload": _text(row.payload),
            "outcome": _text(row.outcome),
            "journal": [_text(entry) for entry in row.journal],
            "waits_for": sorted(row.waits_for),
        }
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("latin-1")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


class Steps:
    """The steps on a store at one instant.

    Args:
        rows: The tasks by id, in the order of enqueue; changed in place.
        seq: The last place in that order.
        present: The workers that have announced themselves, by name.
        now: The store's time, read while nobody else may write.
        mark: For `Claimed`.

    Attributes:
        written: The heads that were written.
    """

    def __init__(
        self, rows: dict[str, Row], seq: int, present: dict[str, Present], *, now: int, mark: int
    ) -> None:
        self.rows = rows
        self.seq = seq
        self.present = present
        self.now = now
        self.mark = mark
        self.written: list[Head] = []

    # New tasks

    def insert(self, records: Sequence[Record], limit: int | None) -> list[Record]:
        """See `QueueBackend.insert`."""
        before = self._live()
        stands_for: dict[str, str] = {}
        for record in records:
            owner = self._owner(record.head)
            stands_for[record.head.id] = owner or record.head.id
            if owner is None:
                self._add(record, stands_for)
        if limit is not None and self._live() > max(before, limit):
            raise QueueFull(limit)
        return [self._record(stands_for[record.head.id]) for record in records]

    def _add(self, record: Record, stands_for: Mapping[str, str]) -> None:
        head = record.head
        if head.id in self.rows:
            raise ValueError(f"There is a task with the id {head.id!r} already.")
        depends_on = tuple(dict.fromkeys(stands_for.get(one, one) for one in head.depends_on))
        for parent in depends_on:
            if parent not in self.rows:
                raise TaskNotFound(parent)
        self.seq += 1
        head = lifecycle.inserted(head, seq=self.seq, now=self.now, depends_on=depends_on)
        self._put(Row(head, record.payload, record.outcome))

    def _live(self) -> int:
        return sum(head.status in LIVE for head in self._heads())

    def _owner(self, head: Head) -> str | None:
        """Return the live task that has the key of this one, if there is one."""
        if head.key is None or head.status not in LIVE:
            return None
        same = (one.id for one in self._heads() if one.key == head.key and one.status in LIVE)
        return next(same, None)

    # Claims and leases

    def claim(self, request: ClaimRequest) -> Claimed:
        """See `QueueBackend.claim`."""
        waiting = [
            head for head in self._heads() if head.status is TaskStatus.PENDING and head.lane in request.lanes
        ]
        ready = [head for head in waiting if head.run_at <= self.now]
        ready.sort(key=lambda head: (head.priority, head.run_at, head.seq))
        taken = [head.id for head in ready[: request.limit]]
        for task_id in taken:
            head = self.rows[task_id].head
            claimed = lifecycle.claimed(head, worker=request.worker, now=self.now, lease_us=request.lease_us)
            self._rewrite(claimed)
        next_at = None
        if not 0 < request.limit <= len(taken):
            due = [head.due for head in self._heads() if head.due is not None]
            next_at = min([head.run_at for head in waiting if head.id not in taken] + due, default=None)
        return Claimed([self._record(task_id) for task_id in taken], self.mark, next_at)

    def give_back(self, claimed: Claimed) -> None:
        """Release what a claim took whose caller is gone."""
        for record in claimed.records:
            row = self.rows.get(record.head.id)
            if row is not None and lifecycle.is_same_claim(row.head, record.head):
                self._rewrite(lifecycle.released(row.head, self.now))

    def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """See `QueueBackend.extend`."""
        return [self._extend(task_id, lease, us) for task_id, lease in leases]

    def _extend(self, task_id: str, lease: int, us: int) -> Record | None:
        if not self._is_held(task_id, lease):
            return None
        self._rewrite(lifecycle.extended(self.rows[task_id].head, now=self.now, lease_us=us))
        return self._record(task_id, payload=False)

    def _is_held(self, task_id: str, lease: int) -> bool:
        row = self.rows.get(task_id)
        return row is not None and (row.head.status, row.head.lease) == (TaskStatus.IN_PROGRESS, lease)

    # Changes

    def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """See `QueueBackend.swap`."""
        return [self._swap(change) for change in changes]

    def _swap(self, change: Change) -> Swapped:
        new, row = change.record.head, self.rows.get(change.record.head.id)
        if row is None:
            return Swapped(Outcome.GONE, None)
        if row.head.version != change.expected:
            return Swapped(Outcome.STALE, self._record(new.id, payload=False))
        owner = self._owner(new)
        if owner is not None and owner != new.id:
            return Swapped(Outcome.KEY_TAKEN, self._record(owner, payload=False))
        if not new.run_at:
            new = attrs.evolve(new, run_at=self.now)
        outcome = row.outcome if change.record.outcome is None else change.record.outcome
        journal = (*row.journal, *change.entries)
        self._put(Row(new, row.payload, outcome, journal, row.waits_for))
        fired = () if new.status in LIVE else tuple(self._fire(new))
        return Swapped(Outcome.OK, self._record(new.id, payload=False), fired)

    def _fire(self, parent: Head) -> Iterator[str]:
        """Remove the edges from a task that is over; name those at which policy must look now."""
        for row in [row for row in self.rows.values() if parent.id in row.waits_for]:
            left = row.waits_for - {parent.id}
            is_free = not left or parent.status is not TaskStatus.COMPLETED
            is_fired = lifecycle.needs_edges(row.head) and is_free
            head = lifecycle.fired(row.head) if is_fired else row.head
            self._write(attrs.evolve(row, head=head, waits_for=left))
            if is_fired:
                yield head.id

    def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """See `QueueBackend.delete`."""
        return [self._delete(task_id, version) for task_id, version in targets]

    def _delete(self, task_id: str, version: int) -> bool:
        row = self.rows.get(task_id)
        if row is None or row.head.version != version or row.head.status in LIVE:
            return False
        del self.rows[task_id]
        return True

    # Journals

    def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """See `QueueBackend.append`."""
        if not self._is_held(task_id, lease):
            raise LeaseLost(task_id, lease)
        row = self.rows[task_id]
        journal = (*row.journal, *entries)
        self._write(attrs.evolve(row, journal=journal))
        return len(journal)

    def read(self, task_id: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `QueueBackend.read`."""
        journal = self.rows[task_id].journal if task_id in self.rows else ()
        return list(enumerate(journal[after : after + limit], start=after + 1))

    # Looking

    def get(self, ids: Sequence[str], *, payload: bool) -> list[Record | None]:
        """See `QueueBackend.get`."""
        return [self._record(one, payload=payload) if one in self.rows else None for one in ids]

    def find(self, query: Query) -> list[Record]:
        """See `QueueBackend.find`."""
        heads = [head for head in self._heads() if query.matches(head)]
        if query.due_before is not None:
            heads.sort(key=lambda head: (head.due or 0, head.seq))
        return [self._record(head.id, payload=query.payload) for head in heads[: query.limit]]

    def count(self) -> Mapping[tuple[str, TaskStatus], int]:
        """See `QueueBackend.count`."""
        return Counter((head.lane, head.status) for head in self._heads())

    # Workers

    def announce(self, worker: str, data: bytes, us: int) -> None:
        """See `QueueBackend.announce`."""
        self.present.pop(worker, None)
        if us:
            self.present[worker] = Present(worker, data, self.now + us)

    def workers(self) -> list[Present]:
        """See `QueueBackend.workers`."""
        return [one for _, one in sorted(self.present.items()) if one.until > self.now]

    # Rows

    def _heads(self) -> Iterator[Head]:
        return (row.head for row in self.rows.values())

    def _record(self, task_id: str, *, payload: bool = True) -> Record:
        row = self.rows[task_id]
        return Record(row.head, row.payload if payload else None, row.outcome)

    def _rewrite(self, head: Head) -> None:
        self._write(attrs.evolve(self.rows[head.id], head=head))

    def _put(self, row: Row) -> None:
        """Write a row, with the edges of a task that is blocked; policy looks at it if nothing holds it."""
        if lifecycle.needs_edges(row.head):
            parents = [self.rows[one].head for one in row.head.depends_on if one in self.rows]
            live = frozenset(parent.id for parent in parents if parent.status in LIVE)
            is_fired = lifecycle.is_fired_by(row.head, [parent.status for parent in parents])
            head = attrs.evolve(row.head, due=0) if is_fired else row.head
            row = attrs.evolve(row, head=head, waits_for=live)
        self._write(row)

    def _write(self, row: Row) -> None:
        self.rows[row.head.id] = row
        self.written.append(row.head)
