"""`QueueState` in SQL: the same steps on a connection, each a part of the transaction it is called in."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Final

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
    Swapped,
    TaskStatus,
    lifecycle,
    rewritten,
    topics_of,
)
from jotty.core.queue.record import change
from jotty.errors import LeaseLost, QueueFull, TaskNotFound

from .rows import COLUMNS, TAILS, Row, claimed_tail, head_of, new_tail, row_of
from .searches import LIVE_SQL, MOST, PICK, SOONEST, search
from .transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Tables"]

_WIDTH: Final = len(COLUMNS)
_HEAD: Final = ", ".join(f"t.{name}" for name in COLUMNS)
_HEADS: Final = f"SELECT {_HEAD}, NULL, o.data"
_WHOLE: Final = f"SELECT {_HEAD}, p.data, o.data"
_JOIN_OUTCOME: Final = "LEFT JOIN outcomes o ON o.task = t.seq"
_JOIN_BOTH: Final = f"{_JOIN_OUTCOME} LEFT JOIN payloads p ON p.task = t.seq"
_BY_ID: Final = f"{_HEADS} FROM tasks t {_JOIN_OUTCOME} WHERE t.id = ?"
_BY_SEQ: Final = f"{_HEADS} FROM tasks t {_JOIN_OUTCOME} WHERE t.seq = ?"
_WHOLE_BY_ID: Final = f"{_WHOLE} FROM tasks t {_JOIN_BOTH} WHERE t.id = ?"
_PICKED: Final = f"{_WHOLE} FROM ({PICK}) k CROSS JOIN tasks t ON t.seq = k.seq {_JOIN_BOTH}"
_OWNER: Final = f"SELECT id FROM tasks WHERE key = ? AND {LIVE_SQL}"  # noqa: S608 - of constants
_TO_DELETE: Final = "SELECT seq, version, lane, status, tags FROM tasks WHERE id = ?"
_PARENT: Final = "SELECT seq, status FROM tasks WHERE id = ?"
_HOLDER: Final = (
    "SELECT seq, status, lease, coalesce((SELECT max(number) FROM journal WHERE task = seq), 0)"
    " FROM tasks WHERE id = ?"
)
_OUTCOME: Final = "SELECT data FROM outcomes WHERE task = ?"
_INSERT: Final = f"INSERT INTO tasks ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * _WIDTH)})"  # noqa: S608 - of constants
# by the length of the tail
_UPDATES: Final = {
    _WIDTH - start: f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in COLUMNS[start:])}"  # noqa: S608 - of constants
    " WHERE seq = ? AND version = ? AND id = ?"
    for start in TAILS
}
_CLAIM: Final = _UPDATES[_WIDTH - TAILS[0]]
_PAYLOADS: Final = "INSERT INTO payloads VALUES (?, ?)"
_OUTCOMES: Final = "INSERT OR REPLACE INTO outcomes VALUES (?, ?)"
_EDGES: Final = "INSERT INTO edges VALUES (?, ?)"
_TAGS: Final = "INSERT INTO tags VALUES (?, ?)"
_ENTRY: Final = (
    # not SELECT in place of VALUES, for which SQLite would fill a temporary table first
    "INSERT INTO journal VALUES (?1, 1 + coalesce((SELECT max(number) FROM journal WHERE task = ?1), 0), ?2)"
)
_ENTRIES: Final = "SELECT number, data FROM journal WHERE task = ? AND number > ? ORDER BY number LIMIT ?"
_DELETE: Final = (
    "DELETE FROM tasks WHERE seq = ?",
    "DELETE FROM payloads WHERE task = ?",
    "DELETE FROM outcomes WHERE task = ?",
    "DELETE FROM journal WHERE task = ?",
    "DELETE FROM edges WHERE parent = ?",
    "DELETE FROM edges WHERE child = ?",
)
_MOST_AHEAD: Final = 128
_STATUS: Final = {status.value: status for status in TaskStatus}


@attrs.define
class _Plan:
    """What an insert is about to write.

    Attributes:
        records: The new tasks by id.
        aliases: For each id of the call the id that stands for it: its own, or that of the key's owner.
        keys: Who has a key, among the new tasks.
        edges: Parent and child, by seq.
    """

    records: dict[str, Record] = attrs.field(factory=dict)
    aliases: dict[str, str] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=dict)
    edges: list[tuple[int, int]] = attrs.field(factory=list)


class Tables(Transaction):
    """The steps of `QueueBackend`, as its docstrings say; each reads the store's time itself.

    A step that raises one of jotty's errors has written nothing.
    """

    _edges_known: bool | None
    _ready: list[Record]
    _ready_in: tuple[str, ...]
    _asked: int

    def begin(self, kind: str = "IMMEDIATE") -> None:
        """See `Transaction.begin`."""
        super().begin(kind)
        self._edges_known = None
        self._forget_ready()

    def insert(self, records: Sequence[Record], limit: int | None = None) -> list[Record]:
        """See `QueueBackend.insert`."""
        now = self.now()
        if not any(map(_is_tied, records)):
            return self._insert_plain(records, limit, now)
        plan = _Plan()
        for record in records:
            self._plan(record, plan, now)
        self._check_room(plan.records.values(), limit)
        self._add(list(plan.records.values()), plan.edges)
        stored = [plan.aliases[record.head.id] for record in records]
        return [plan.records.get(task_id) or self._known(task_id) for task_id in stored]

    def _insert_plain(self, records: Sequence[Record], limit: int | None, now: int) -> list[Record]:
        """Insert tasks that neither a key nor a dependency ties to others."""
        new = [
            Record(lifecycle.inserted(one.head, seq=seq, now=now, depends_on=()), one.payload, one.outcome)
            for seq, one in enumerate(records, start=self.last_seq() + 1)
        ]
        self._check_room(new, limit)
        self._add(new, ())
        return new

    def _check_room(self, new: Iterable[Record], limit: int | None) -> None:
        if limit is None:
            return
        more = sum(record.head.status in LIVE for record in new)
        if more and self._live() + more > limit:
            raise QueueFull(limit)

    def claim(self, request: ClaimRequest, mark: int) -> Claimed:
        """See `QueueBackend.claim`."""
        now = self.now()
        picked = self._pick(request, now)
        records = [self._claimed(old, request, now) for old in picked]
        if records:
            self.later(_CLAIM, map(_claimed_row, records, picked))
        is_full = len(records) >= request.limit > 0
        return Claimed(records, mark, None if is_full else self._next_at(request.lanes))

    def give_back(self, claimed: Claimed) -> None:
        """Release what a claim took whose caller is gone, and who still has it."""
        now = self.now()
        for record in claimed.records:
            now_stored = self._find(record.head.id, _BY_ID)
            if now_stored and lifecycle.is_same_claim(now_stored.head, record.head):
                head = now_stored.head
                self.swap([change(head, lifecycle.released(head, now))])

    def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """See `QueueBackend.swap`."""
        if changes:
            self._forget_ready()
        if self.is_late(_INSERT) or self.is_late(_CLAIM):
            self.write_late()
        now = self.now()
        return [self._swap(change, now) for change in changes]

    def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """See `QueueBackend.extend`."""
        now = self.now()
        return [self._extend(task_id, lease, us, now) for task_id, lease in leases]

    def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        """See `QueueBackend.get`."""
        return [self._find(task_id, _WHOLE_BY_ID if payload else _BY_ID) for task_id in ids]

    def find(self, query: Query) -> list[Record]:
        """See `QueueBackend.find`."""
        if any(one is not None and not _storable(one) for one in (query.lane, query.tag, query.key)):
            return []
        source, rest, values = search(query)
        selected, joined = (_WHOLE, _JOIN_BOTH) if query.payload else (_HEADS, _JOIN_OUTCOME)
        return [_record_of(row) for row in self.ask(f"{selected} FROM {source} {joined} {rest}", values)]

    def count(self) -> dict[tuple[str, TaskStatus], int]:
        """See `QueueBackend.count`."""
        rows = self.ask("SELECT lane, status, number FROM counts WHERE number <> 0")
        return {(lane, _STATUS[status]): number for lane, status, number in rows}

    def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """See `QueueBackend.append`."""
        found = self.ask(_HOLDER, (_storable(task_id),)).fetchone()
        if found is None or found[1:3] != (TaskStatus.IN_PROGRESS, lease):
            raise LeaseLost(task_id, lease)
        seq, _, _, last = found
        self.later(_ENTRY, [(seq, entry) for entry in entries])
        self.touched((f"task:{task_id}",))
        return int(last + len(entries))

    def read(self, task_id: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `QueueBackend.read`."""
        found = self.ask(_PARENT, (_storable(task_id),)).fetchone()
        if found is None:
            return []
        return self.ask(_ENTRIES, (found[0], min(after, MOST), min(limit, MOST))).fetchall()

    def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """See `QueueBackend.delete`."""
        return [self._delete(task_id, version) for task_id, version in targets]

    def announce(self, worker: str, data: bytes, us: int) -> None:
        """See `QueueBackend.announce`."""
        now = self.now()
        self.execute("DELETE FROM workers WHERE until <= ? OR worker = ?", (now, worker))
        if us:
            self.execute("INSERT INTO workers VALUES (?, ?, ?)", (worker, now + us, data))

    def workers(self) -> list[Present]:
        """See `QueueBackend.workers`."""
        rows = self.ask("SELECT worker, data, until FROM workers WHERE until > ?", (self.now(),))
        return [Present(*row) for row in rows]

    # Reading

    def _find(self, task_id: str, question: str) -> Record | None:
        row = self.ask(question, (_storable(task_id),)).fetchone()
        return None if row is None else _record_of(row)

    def _known(self, task_id: str) -> Record:
        return _record_of(self.ask(_WHOLE_BY_ID, (task_id,)).fetchone())

    def _owner(self, key: str) -> str | None:
        """Return the id of the live task that has a key."""
        found = self.ask(_OWNER, (key,)).fetchone()
        return None if found is None else str(found[0])

    def _live(self) -> int:
        query = f"SELECT sum(number) FROM counts WHERE {LIVE_SQL}"  # noqa: S608 - of constants
        stored: int | None = self.execute(query).fetchone()[0]
        return (stored or 0) + sum(number for (_, one), number in self.moves.items() if _STATUS[one] in LIVE)

    def _pick(self, request: ClaimRequest, now: int) -> list[Record]:
        """Return the tasks to claim, in the order of C13."""
        if request.limit == 0:
            return []
        if request.lanes != self._ready_in:
            self._forget_ready()
            self._ready_in = request.lanes
        limit = min(request.limit, MOST)
        if len(self._ready) < limit:
            # callers who claim at the same time, one task each, are served with few questions
            self._asked = max(limit, min(2 * self._asked, _MOST_AHEAD))
            self._ready = self._ask_ready(request.lanes, now, self._asked)
        picked, self._ready = self._ready[:limit], self._ready[limit:]
        return picked

    def _ask_ready(self, lanes: Iterable[str], now: int, limit: int) -> list[Record]:
        rows = [row for lane in dict.fromkeys(lanes) for row in self.ask(_PICKED, (lane, now, limit))]
        return sorted(map(_record_of, rows), key=_in_line)[:limit]

    def _forget_ready(self) -> None:
        """Look again at the next claim: what was found may not stand first in line any more."""
        self._ready_in, self._ready = (), []
        self._asked = 0

    def _next_at(self, lanes: Iterable[str]) -> int | None:
        rows = (self.ask(SOONEST, (lane,)) for lane in dict.fromkeys(lanes))
        return min((instant for (instant,) in chain.from_iterable(rows)), default=None)

    # Inserting

    def _plan(self, record: Record, plan: _Plan, now: int) -> None:
        head = record.head
        key = head.key if head.status in LIVE else None
        owner = (plan.keys.get(key) or self._owner(key)) if key else None
        plan.aliases[head.id] = owner or head.id
        if owner:
            return
        depends_on = tuple(dict.fromkeys(plan.aliases.get(one, one) for one in head.depends_on))
        parents = [self._parent(one, plan.records) for one in depends_on]
        for parent, (seq, _) in zip(depends_on, parents, strict=True):
            if not seq:
                raise TaskNotFound(parent)
        head = lifecycle.inserted(
            head, seq=self.last_seq() + len(plan.records) + 1, now=now, depends_on=depends_on
        )
        head, edges = _watched(head, parents)
        plan.edges += edges
        plan.records[head.id] = Record(head, record.payload, record.outcome)
        if key:
            plan.keys[key] = head.id

    def _parent(self, task_id: str, planned: Mapping[str, Record]) -> tuple[int, TaskStatus | None]:
        """Return seq and status of a dependency; 0 and None for one that is not there."""
        if task_id in planned:
            head = planned[task_id].head
            return head.seq, head.status
        found = self.ask(_PARENT, (_storable(task_id),)).fetchone()
        return (found[0], _STATUS[found[1]]) if found else (0, None)

    def _add(self, records: Sequence[Record], edges: Sequence[tuple[int, int]]) -> None:
        self._forget_ready()
        heads = [record.head for record in records]
        for head in heads:
            self.moves[head.lane, head.status] += 1
            self.touched(topics_of(head))
        self.take_seqs(len(heads))
        self.later(_INSERT, map(row_of, heads))
        self.later(_PAYLOADS, [(one.head.seq, one.payload) for one in records if one.payload is not None])
        if outcomes := [(one.head.seq, one.outcome) for one in records if one.outcome is not None]:
            self.later(_OUTCOMES, outcomes)
        if edges:
            self._write_edges(edges)
        if tagged := [(tag, head.seq) for head in heads if head.tags for tag in dict.fromkeys(head.tags)]:
            self.later(_TAGS, tagged)

    # Rewriting

    def _claimed(self, old: Record, request: ClaimRequest, now: int) -> Record:
        head = lifecycle.claimed(old.head, worker=request.worker, now=now, lease_us=request.lease_us)
        self._count(head, head.lane, old.head.status)
        self.touched(topics_of(head))
        return Record(head, old.payload, old.outcome)

    def _swap(self, change: Change, now: int) -> Swapped:
        head, outcome = change.record.head, change.record.outcome
        old, is_watched = change.before, lifecycle.needs_edges(head)
        if old is None or is_watched or (head.key and _takes_key(head, old)):
            refused, old = self._standing(change)
            if old is None:
                return refused
        if not head.run_at:
            head = rewritten(head, run_at=now)
        if is_watched:
            head = self._watch(head)
        if not self._rewrite(head, old):
            return self._outdated(head.id)
        self._count(head, old.lane, old.status)
        if outcome is None:
            found = self.ask(_OUTCOME, (old.seq,)).fetchone()
            outcome = found and found[0]
        else:
            self.later(_OUTCOMES, ((old.seq, outcome),))
        if change.entries:
            self.later(_ENTRY, [(old.seq, entry) for entry in change.entries])
        self.touched(topics_of(head))
        fired = self._fire_children(head) if head.status.is_terminal and self._has_edges() else ()
        return Swapped(Outcome.OK, Record(head, None, outcome), fired)

    def _standing(self, change: Change) -> tuple[Swapped, Head | None]:
        """Return the head that a change replaces, or why it cannot be made."""
        head = change.record.head
        record = self._find(head.id, _BY_ID)
        if record is None or record.head.version != change.expected:
            return self._outdated(head.id), None
        owner = self._owner(head.key) if head.key and head.status in LIVE else None
        if owner and owner != head.id:
            return Swapped(Outcome.KEY_TAKEN, self._find(owner, _BY_ID)), None
        return Swapped(Outcome.OK, record), record.head

    def _outdated(self, task_id: str) -> Swapped:
        record = self._find(task_id, _BY_ID)
        return Swapped(Outcome.STALE if record else Outcome.GONE, record)

    def _extend(self, task_id: str, lease: int, us: int, now: int) -> Record | None:
        record = self._find(task_id, _BY_ID)
        if record is None or not _is_held(record.head, lease):
            return None
        head = lifecycle.extended(record.head, now=now, lease_us=us)
        self._rewrite(head, record.head)
        return Record(head, None, record.outcome)

    def _rewrite(self, head: Head, old: Head) -> bool:
        """Write what is new in a head over the old one; False if that is not in the store any more."""
        tail = new_tail(head, old)
        written = self.execute(_UPDATES[len(tail)], (*tail, old.seq, old.version, old.id))
        return written.rowcount == 1

    def _count(self, head: Head, old_lane: str, old_status: TaskStatus) -> None:
        if old_status is not head.status or old_lane != head.lane:
            self.moves[old_lane, old_status] -= 1
            self.moves[head.lane, head.status] += 1

    def _delete(self, task_id: str, version: int) -> bool:
        found = self.ask(_TO_DELETE, (_storable(task_id),)).fetchone()
        if found is None or found[1] != version or _STATUS[found[3]] in LIVE:
            return False
        seq, _, lane, status, tags = found
        for statement in _DELETE:
            self.execute(statement, (seq,))
        for tag in json.loads(tags or "[]"):
            self.execute("DELETE FROM tags WHERE tag = ? AND task = ?", (tag, seq))
        self.moves[lane, status] -= 1
        self.touched((f"task:{task_id}",))
        return True

    # Edges

    def _watch(self, head: Head) -> Head:
        """Record anew the edges of a task that is blocked."""
        parents = [found for one in head.depends_on if (found := self._parent(one, {}))[0]]
        head, edges = _watched(head, parents)
        self.execute("DELETE FROM edges WHERE child = ?", (head.seq,))
        self._write_edges(edges)
        return head

    def _write_edges(self, edges: Sequence[tuple[int, int]]) -> None:
        self._edges_known = None
        self.later(_EDGES, edges)

    def _has_edges(self) -> bool:
        """Whether there is any edge at all: most stores have none."""
        if self._edges_known is None:
            self._edges_known = self.ask("SELECT 1 FROM edges LIMIT 1").fetchone() is not None
        return self._edges_known

    def _fire_children(self, parent: Head) -> tuple[str, ...]:
        children = self.ask("SELECT child FROM edges WHERE parent = ?", (parent.seq,)).fetchall()
        if children:
            self.execute("DELETE FROM edges WHERE parent = ?", (parent.seq,))
        return tuple(fired for (seq,) in children if (fired := self._fire(seq, parent)))

    def _fire(self, seq: int, parent: Head) -> str | None:
        head = _record_of(self.ask(_BY_SEQ, (seq,)).fetchone()).head
        if not lifecycle.needs_edges(head):
            return None
        if parent.status is TaskStatus.COMPLETED:
            waits = self.ask("SELECT 1 FROM edges WHERE child = ? LIMIT 1", (seq,)).fetchone()
            if waits:
                return None
        self._rewrite(lifecycle.fired(head), head)
        self.touched((f"task:{head.id}",))
        return head.id


def _watched(
    head: Head, parents: Sequence[tuple[int, TaskStatus | None]]
) -> tuple[Head, list[tuple[int, int]]]:
    """Return the head, due at once if nothing holds it, and the edges to its live parents."""
    if not lifecycle.needs_edges(head):
        return head, []
    if lifecycle.is_fired_by(head, [status for _, status in parents if status]):
        head = rewritten(head, due=0)
    return head, [(seq, head.seq) for seq, status in parents if status in LIVE]


def _in_line(record: Record) -> tuple[int, int, int]:
    return record.head.priority, record.head.run_at, record.head.seq


def _is_tied(record: Record) -> bool:
    """Whether a new task has to do with others."""
    return bool(record.head.key or record.head.depends_on or lifecycle.needs_edges(record.head))


def _claimed_row(record: Record, old: Record) -> Row:
    return (*claimed_tail(record.head), old.head.seq, old.head.version, old.head.id)


def _takes_key(head: Head, old: Head) -> bool:
    """Whether a task that has a key comes back to life: another may have it by now."""
    return head.status in LIVE and old.status not in LIVE


def _record_of(row: Row) -> Record:
    return Record(head_of(row), row[_WIDTH], row[_WIDTH + 1])


def _is_held(head: Head, lease: int) -> bool:
    return head.status is TaskStatus.IN_PROGRESS and head.lease == lease


def _storable(name: str) -> str:
    """Return a name that can be asked for; what is no text, or cannot be encoded, is in no store."""
    is_storable = isinstance(name, str) and (name.isascii() or _is_encodable(name))
    return name if is_storable else ""


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
