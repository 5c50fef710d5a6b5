"""`QueueState` that tells what it changes, in lines that make another one follow, and can take it back."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from jotty.core.queue import lifecycle
from jotty.core.queue.backend import Present, Record
from jotty.core.queue.record import change
from jotty.core.queue.state import QueueState
from jotty.core.queue.topics import topics_of

from .contents import Contents, InlineContents
from .entries import bytes_of, entry_of, head_of, json_of, line_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jotty.core.queue.backend import Claimed
    from jotty.core.queue.task import Head

__all__ = ["LoggedState"]


class LoggedState(QueueState):
    """A queue's state in one process, which follows that of the others.

    What the steps of `QueueState` change is gathered until `changes` and `settle`, or `take_back`. A line is
    one of these, by what it holds:

    - `task`: a head, whole, with the notes of its contents, which replaces the one before;
    - `of`: the id of a task whose contents alone have changed;
    - `deleted`: the id of a task;
    - `worker`: one that is present `until`, with its `data`;
    - `anchor`: see `SteadyClock`;
    - `seq`: the last one given out, which begins a snapshot.

    Args:
        contents: Where payloads, outcomes and journals are kept.

    Attributes:
        contents: As above.
        anchor: The last anchor that stood in the log.
        seen: The store's time when the last line was written; None before the first.
    """

    def __init__(self, contents: Contents | None = None) -> None:
        super().__init__()
        self.contents = contents or InlineContents()
        self.anchor: str | None = None
        self.seen: int | None = None
        self._notes: dict[str, Any] = {}
        self._is_firing = False
        self._lines: list[str] = []
        self._touched: list[tuple[str, ...]] = []
        self._undo: list[Callable[[], object]] = []

    @property
    def size(self) -> int:
        """How many tasks there are."""
        return len(self._heads)

    # Gathering

    def mark(self) -> tuple[int, int]:
        """Return a point to `take_back` to."""
        return len(self._undo), len(self._lines)

    def take_back(self, mark: tuple[int, int] = (0, 0)) -> None:
        """Undo what was changed since that point, or since `settle`."""
        undos, lines = mark
        while len(self._undo) > undos:
            self._undo.pop()()
        del self._lines[lines:], self._touched[lines:]
        self._notes, self._is_firing = {}, False

    def changes(self, now: int) -> list[str]:
        """Return what was changed since `settle`, as lines, with the store's time."""
        return [f'{{"at":{now},{line[1:]}' for line in self._lines]

    def settle(self) -> list[str]:
        """Return the topics of what was changed, which now is for good."""
        topics = list(dict.fromkeys(topic for touched in self._touched for topic in touched))
        self._lines.clear()
        self._touched.clear()
        self._undo.clear()
        return topics

    def give_back(self, claimed: Claimed, now: int) -> None:
        """Release what a claim took whose caller is gone, and who still has it."""
        for record in claimed.records:
            head = self._heads.get(record.head.id)
            if head and lifecycle.is_same_claim(head, record.head):
                self.swap([change(head, lifecycle.released(head, now))], now)

    def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """See `QueueBackend.append`."""
        last = super().append(task_id, lease, entries)
        if entries:
            self._tell({"of": task_id, **self._take_notes()}, (f"task:{task_id}",))
        return last

    def read(self, task_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """See `QueueBackend.read`."""
        head = self._heads.get(task_id)
        return self.contents.entries(head, after, limit) if head else []

    def announce(self, worker: str, data: bytes, us: int, now: int) -> None:
        """See `QueueBackend.announce`."""
        self._undo.append(partial(setattr, self, "_workers", self._workers))
        super().announce(worker, data, us, now)
        self._tell({"worker": worker, "until": now + us if us else 0, "data": text_of(data)}, ())

    def anchored(self, anchor: str) -> None:
        """Give the store's time another anchor."""
        self._undo.append(partial(setattr, self, "anchor", self.anchor))
        self.anchor = anchor
        self._tell({"anchor": anchor}, ())

    def _tell(self, entry: dict[str, Any], topics: tuple[str, ...]) -> None:
        self._lines.append(line_of(entry))
        self._touched.append(topics)

    def _take_notes(self) -> dict[str, Any]:
        notes, self._notes = self._notes, {}
        return notes

    def _keep(
        self,
        head: Head,
        *,
        payload: bytes | None = None,
        outcome: bytes | None = None,
        entries: Sequence[bytes] = (),
    ) -> None:
        is_new = head.id not in self._heads
        if is_new or outcome is not None or entries:
            self._notes = self.contents.keep(head, payload, outcome, entries, self._undo, is_new=is_new)

    def _last_entry(self, head: Head) -> int:
        return self.contents.last_entry(head)

    def _record(self, task_id: str, *, payload: bool = True) -> Record:
        head = self._heads[task_id]
        return Record(head, self.contents.payload(head) if payload else None, self.contents.outcome(head))

    def _put(self, head: Head) -> None:
        self._undo.append(partial(self._put_back, self._heads.get(head.id), head.id))
        super()._put(head)
        entry = {"task": json_of(head), **self._take_notes()}
        if self._is_firing:
            entry["fired"] = True
        self._tell(entry, topics_of(head))

    def _put_back(self, old: Head | None, task_id: str) -> None:
        if old is not None:
            super()._put(old)
            return
        head = self._heads[task_id]
        self._remove(head)
        self._seq = head.seq - 1

    def _fire(self, child: Head) -> None:
        self._is_firing = True
        super()._fire(child)
        self._is_firing = False

    def _forget(self, head: Head) -> None:
        self.contents.forget(head, self._undo)
        self._undo.append(partial(self._bring_back, head, self._parents.get(head.id)))
        self._tell({"deleted": head.id}, (f"task:{head.id}",))

    def _bring_back(self, head: Head, parents: set[str] | None) -> None:
        super()._put(head)
        if parents is not None:
            self._parents[head.id] = parents

    def _link(self, head: Head) -> None:
        before = self._parents.get(head.id)
        super()._link(head)
        added = self._parents[head.id] - (before or set())
        self._undo.append(partial(self._untie, head.id, before, added))

    def _untie(self, child_id: str, before: set[str] | None, added: set[str]) -> None:
        for parent_id in added:
            del self._children[parent_id][child_id]
        if before is None:
            self._parents.pop(child_id, None)
        else:
            self._parents[child_id] = before

    def _unlink(self, parent: Head) -> list[Head]:
        before = self._children.get(parent.id)
        blocked = super()._unlink(parent)
        if before:
            self._undo.append(partial(self._put_back_children, parent.id, before, blocked))
        return blocked

    def _put_back_children(self, parent_id: str, before: dict[str, None], blocked: list[Head]) -> None:
        self._children[parent_id] = before
        for child in blocked:
            self._parents[child.id].add(parent_id)

    # Following

    def apply(self, line: str) -> tuple[str, ...]:
        """Take in a line that another wrote, and return the topics that have changed.

        Raises:
            KeyError, TypeError, ValueError: It is no line of a queue's log.
        """
        entry = entry_of(line)
        self.seen = entry.get("at", self.seen)
        if "task" in entry:
            return self._follow(head_of(entry["task"]), entry)
        if "of" in entry:
            head = self._heads.get(entry["of"])
            if head is not None:
                self.contents.learn(head, entry)
            return (f"task:{entry['of']}",)
        if "deleted" in entry:
            return self._follow_deletion(entry["deleted"])
        if "worker" in entry:
            self._follow_worker(Present(entry["worker"], bytes_of(entry["data"]), entry["until"]))
            return ()
        self.anchor = entry.get("anchor", self.anchor)
        self._seq = max(self._seq, entry.get("seq", 0))
        return ()

    def _follow(self, head: Head, entry: dict[str, Any]) -> tuple[str, ...]:
        if "edges" in entry:
            self._tie(head.id, set(entry["edges"]))
        elif lifecycle.needs_edges(head) and "fired" not in entry:
            super()._link(head)
        self.contents.learn(head, entry)
        super()._put(head)
        if head.status.is_terminal:
            super()._unlink(head)
        return topics_of(head)

    def _follow_worker(self, worker: Present) -> None:
        present = {one.worker: one for one in self.workers(self.seen or 0)}
        self._workers = {**present, worker.worker: worker}

    def _follow_deletion(self, task_id: str) -> tuple[str, ...]:
        head = self._heads.get(task_id)
        if head is not None:
            self.contents.forget(head, [])
            self._remove(head)
        return (f"task:{task_id}",)

    # Snapshots

    def snapshot(self, now: int) -> Iterator[str]:
        """Return lines from which a state that knows nothing comes to be like this one is at this moment."""
        heads = sorted(self._heads.values(), key=attrgetter("seq"))  # children after their parents
        first: dict[str, Any] = {"at": now, "seq": self._seq}
        if self.anchor is not None:
            first["anchor"] = self.anchor
        return self._snapshot(first, heads, self._edges(), self.workers(now), self.contents.notes())

    def _snapshot(
        self,
        first: dict[str, Any],
        heads: Sequence[Head],
        edges: Mapping[str, list[str]],
        workers: Sequence[Present],
        notes: Callable[[Head], dict[str, Any]],
    ) -> Iterator[str]:
        yield line_of(first)
        for head in heads:
            entry = {"task": json_of(head), **notes(head)}
            if head.id in edges:
                entry["edges"] = edges[head.id]
            yield line_of(entry)
        for one in workers:
            yield line_of({"worker": one.worker, "until": one.until, "data": text_of(one.data)})

    def _edges(self) -> dict[str, list[str]]:
        """Return the edges of blocked tasks, where they do not follow from the heads.

        That is so where a task that one depends on has ended and was retried since.
        """
        heads = (self._heads[child_id] for child_id in self._parents if child_id in self._heads)
        return {
            head.id: sorted(self._parents[head.id])
            for head in heads
            if lifecycle.needs_edges(head) and self._parents[head.id] != self._live_parents(head)
        }

    def sweep(self) -> Iterator[None]:
        """Have what belongs to no task removed, a little at each step."""
        return self.contents.sweep(self._seq, self._heads_between)

    def _heads_between(self, first: int, last: int) -> list[Head]:
        places = slice(bisect_left(self._by_seq, (first,)), bisect_left(self._by_seq, (last,)))
        return [self._heads[task_id] for _, task_id in self._by_seq[places]]
