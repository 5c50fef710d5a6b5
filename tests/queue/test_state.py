from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from jotty.core.queue import (
    Change,
    ClaimRequest,
    Head,
    Outcome,
    Present,
    Query,
    QueueState,
    Record,
    TaskStatus,
    lifecycle,
)
from jotty.core.queue.log.state import LoggedState
from jotty.errors import InvalidState, LeaseLost, QueueFull, TaskNotFound
from jotty.testing.moves import LIVE, TERMINAL

S = TaskStatus
LANES = ("a", "b")
LIMIT = 12

new_heads = st.builds(
    Head,
    id=st.just(""),
    priority=st.integers(1, 5),
    lane=st.sampled_from(LANES),
    key=st.sampled_from([None, None, "k", "l"]),
    run_at=st.sampled_from([0, 0, 5, 20]),
    status=st.sampled_from([S.PENDING, S.PENDING, S.BACKLOG]),
    max_attempts=st.integers(1, 2),
)


class StateMachine(RuleBasedStateMachine):
    """`QueueState` beside the heads it has returned and a plain set of edges."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.state = QueueState()
        self.heads: dict[str, Head] = {}
        self.edges: dict[str, set[str]] = {}
        self.journals: Counter[str] = Counter()
        self.seq = 0
        self.now = 1

    def live(self) -> list[Head]:
        return [head for head in self.heads.values() if head.status in LIVE]

    def stored(self, record: Record) -> None:
        """Take note of what was written, and judge the edges and the due of a blocked task."""
        head = record.head
        self.heads[head.id] = head
        if lifecycle.needs_edges(head):
            parents = [self.heads[one] for one in head.depends_on if one in self.heads]
            self.edges[head.id] = {parent.id for parent in parents if parent.status in LIVE}
            is_fired = lifecycle.is_fired_by(head, [parent.status for parent in parents])
            assert (0 if is_fired else None) == head.due

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=ids, batch=st.lists(new_heads, min_size=1, max_size=3), parents=st.lists(ids, max_size=2))
    def insert(self, batch: list[Head], parents: list[str]) -> Any:
        numbered = [attrs.evolve(head, id=f"{self.seq}.{at}.{self.now}") for at, head in enumerate(batch)]
        depends_on = tuple(dict.fromkeys(parents))
        if depends_on:
            numbered[-1] = attrs.evolve(numbered[-1], depends_on=depends_on, status=S.BLOCKED)
        keys = {head.key: head.id for head in self.live() if head.key}
        fresh = []
        for head in numbered:
            if head.key not in keys:
                fresh.append(head.id)
            if head.key:
                keys.setdefault(head.key, head.id)
        records = [Record(head, head.id.encode()) for head in numbered]
        if not all(one in self.heads for one in depends_on) and numbered[-1].id in fresh:
            with pytest.raises(TaskNotFound):
                self.state.insert(records, self.now, LIMIT)
            return multiple()
        if len(self.live()) + len(fresh) > LIMIT:
            with pytest.raises(QueueFull):
                self.state.insert(records, self.now, LIMIT)
            return multiple()
        stored = self.state.insert(records, self.now, LIMIT)

        assert [head.id if head.id in fresh else keys[head.key or ""] for head in numbered] == [
            record.head.id for record in stored
        ]
        for record in stored:
            if record.head.id in fresh and record.head.id not in self.heads:
                self.seq += 1
                assert (self.seq, self.now) == (record.head.seq, record.head.created_at)
                self.stored(record)
        return multiple(*fresh)

    @rule(lanes=st.sampled_from([("a",), ("b",), ("b", "a"), ("c",)]), limit=st.integers(0, 4))
    def claim(self, lanes: tuple[str, ...], limit: int) -> None:
        pending = [head for head in self.live() if head.status is S.PENDING and head.lane in lanes]
        ready = [head for head in pending if head.run_at <= self.now]
        expected = sorted(ready, key=lambda head: (head.priority, head.run_at, head.seq))[:limit]
        claimed = self.state.claim(ClaimRequest(lanes, limit, "w", 15), self.now, mark=7)

        assert [lifecycle.claimed(head, worker="w", now=self.now, lease_us=15) for head in expected] == [
            record.head for record in claimed.records
        ]
        assert [head.id.encode() for head in expected] == [record.payload for record in claimed.records]
        for record in claimed.records:
            self.heads[record.head.id] = record.head
        waiting = [head.run_at for head in pending if head.id not in {one.id for one in expected}]
        due = [head.due for head in self.heads.values() if head.due is not None]
        is_full = len(expected) >= limit > 0
        assert (7, None if is_full else min(waiting + due, default=None)) == (claimed.mark, claimed.next_at)

    @rule(task_id=ids, data=st.data(), entries=st.integers(0, 2), is_stale=st.booleans())
    def swap(self, task_id: str, data: st.DataObject, entries: int, *, is_stale: bool) -> None:
        head = self.heads.get(task_id)
        if head is None:
            (gone,) = self.state.swap([Change(1, Record(Head(id=task_id)))], self.now)
            assert Outcome.GONE is gone.outcome
            return
        if (moved := self._moved(head, data)) is None:
            return
        change = Change(head.version - is_stale, Record(moved, None, b"out"), [b"entry"] * entries)
        (swapped,) = self.state.swap([change], self.now)
        holder = next((one for one in self.live() if one.key and one.key == moved.key), None)
        if is_stale:
            assert (Outcome.STALE, head) == (swapped.outcome, swapped.record and swapped.record.head)
        elif moved.status in LIVE and holder and holder.id != task_id:
            assert (Outcome.KEY_TAKEN, holder) == (swapped.outcome, swapped.record and swapped.record.head)
        else:
            assert Outcome.OK is swapped.outcome
            assert swapped.record is not None
            self.stored(swapped.record)
            self.journals[task_id] += entries
            self._check_fired(self.heads[task_id], swapped.fired)

    def _moved(self, head: Head, data: st.DataObject) -> Head | None:
        parents = [self.heads.get(one) for one in head.depends_on]
        moves: dict[str, Any] = {
            "cancelled": lambda: lifecycle.cancelled(head, self.now),
            "accepted": lambda: lifecycle.accepted(head, parents, run=True),
            "retried": lambda: lifecycle.retried(head, parents),
            "reprioritised": lambda: lifecycle.reprioritised(head, data.draw(st.integers(1, 5))),
            "examined": lambda: getattr(lifecycle.examine(head, parents, self.now), "head", None),
        }
        if head.status is S.IN_PROGRESS:
            moves |= {
                "completed": lambda: lifecycle.completed(head, self.now),
                "failed": lambda: lifecycle.failed(
                    head, self.now, retry=data.draw(st.booleans()), delay=1e-5, random=Random(0)
                ),
                "released": lambda: lifecycle.released(head, self.now),
                "parked": lambda: lifecycle.parked(head, self.now, awaiting=["q"], until=self.now + 9),
            }
        try:
            moved: Head | None = moves[data.draw(st.sampled_from(sorted(moves)))]()
        except InvalidState:
            return None
        return moved

    def _check_fired(self, parent: Head, fired: tuple[str, ...]) -> None:
        expected = set()
        for child_id, edges in self.edges.items():
            child = self.heads.get(child_id)
            if parent.status in TERMINAL and parent.id in edges and child and lifecycle.needs_edges(child):
                edges.discard(parent.id)
                if parent.status is not S.COMPLETED or not edges:
                    expected.add(child_id)
                    self.heads[child_id] = lifecycle.fired(child)

        assert expected == set(fired)

    @rule(task_id=ids, lease=st.integers(0, 3), us=st.integers(1, 40))
    def extend(self, task_id: str, lease: int, us: int) -> None:
        head = self.heads.get(task_id)
        (record,) = self.state.extend([(task_id, lease)], us, self.now)
        if head and head.status is S.IN_PROGRESS and head.lease == lease:
            self.heads[task_id] = lifecycle.extended(head, now=self.now, lease_us=us)
            assert self.heads[task_id] == (record and record.head)
        else:
            assert record is None

    @rule(task_id=ids, lease=st.integers(0, 3))
    def append(self, task_id: str, lease: int) -> None:
        head = self.heads.get(task_id)
        if head and head.status is S.IN_PROGRESS and head.lease == lease:
            self.journals[task_id] += 2
            assert self.journals[task_id] == self.state.append(task_id, lease, [b"entry"] * 2)
        else:
            with pytest.raises(LeaseLost):
                self.state.append(task_id, lease, [b"entry"])

    @rule(task_id=ids, is_stale=st.booleans())
    def delete(self, task_id: str, *, is_stale: bool) -> None:
        head = self.heads.get(task_id)
        expected = bool(head and head.status in TERMINAL and not is_stale)

        assert [expected] == self.state.delete([(task_id, head.version - is_stale if head else 1)])
        if expected:
            del self.heads[task_id]
            self.edges.pop(task_id, None)
            self.journals.pop(task_id, None)

    @invariant()
    def every_task_is_there_once_in_order(self) -> None:
        found = [record.head for record in self.state.find(Query())]

        assert sorted(self.heads.values(), key=lambda head: head.seq) == found
        assert found == [record.head if record else None for record in self.state.get([h.id for h in found])]

    @invariant()
    def counts_equal_a_recount(self) -> None:
        recount = Counter((head.lane, head.status) for head in self.heads.values())

        assert dict(recount) == dict(self.state.count())

    @invariant()
    def searches_find_what_matches(self) -> None:
        due = [head for head in self.heads.values() if head.due is not None and head.due <= self.now]
        over = [head for head in self.heads.values() if 0 < head.finished_at < self.now]

        assert sorted(due, key=lambda head: (head.due, head.seq)) == self._find(due_before=self.now)
        over.sort(key=lambda head: (head.finished_at, head.seq))
        assert over == self._find(finished_before=self.now)
        for key in "kl":
            with_key = [head for head in self.heads.values() if head.key == key]
            assert {head.id for head in with_key} == {head.id for head in self._find(key=key)}
            live = [head for head in with_key if head.status in LIVE]
            assert live == self._find(key=key, statuses=LIVE)
            assert len(live) <= 1, "C9"

    @invariant()
    def journals_are_numbered_without_holes(self) -> None:
        for task_id in self.heads:
            numbers = [number for number, _ in self.state.read(task_id)]
            assert list(range(1, self.journals[task_id] + 1)) == numbers

    def _find(self, **conditions: Any) -> list[Head]:
        return [record.head for record in self.state.find(Query(**conditions))]


TestState = StateMachine.TestCase
TestState.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def image(state: LoggedState, now: int) -> dict[str, Any]:
    """Return all that a state is made of, but for what it will find to be out of date."""
    heads, notes = state._heads, state.contents.notes()
    blocked = [head for head in heads.values() if lifecycle.needs_edges(head)]
    return {
        "heads": heads.copy(),
        "contents": {task_id: notes(head) for task_id, head in heads.items()},
        "keys": state._keys.copy(),
        "counts": dict(state.count()),
        "live": state._live,
        "seq": (state._seq, state._by_seq.copy()),
        "finished": [record.head.id for record in state.find(Query(finished_before=now + 1))],
        "parents": {head.id: set(state._parents[head.id]) for head in blocked},
        "children": {
            head.id: {parent for parent, children in state._children.items() if head.id in children}
            for head in blocked
        },
        "workers": state.workers(now),
        "anchor": state.anchor,
    }


class LoggedStateMachine(StateMachine):
    """The same of a state that is logged, beside one that follows it by its lines alone."""

    ids = StateMachine.ids
    logged: LoggedState

    def __init__(self) -> None:
        super().__init__()
        self.state = self.logged = LoggedState()
        self.follower = LoggedState()

    @rule(worker=st.sampled_from("vw"), us=st.sampled_from([0, 5, 50]))
    def announce(self, worker: str, us: int) -> None:
        self.logged.announce(worker, b"\xff", us, self.now)
        if us:
            self.logged.anchored(f"boot {us}")

    @rule(one=ids, other=ids, batch=st.lists(new_heads, max_size=2), data=st.data())
    def change_and_take_back(self, one: str, other: str, batch: list[Head], data: st.DataObject) -> None:
        self.logged.settle()
        before = image(self.logged, self.now)
        self.logged.announce("u", b"", 9, self.now)
        heads = [attrs.evolve(head, id=f"{at}") for at, head in enumerate(batch)]
        blocked = Head(id="blocked", status=S.BLOCKED, depends_on=tuple({one, other} & self.heads.keys()))
        self.logged.insert([Record(head, b"x") for head in (*heads, blocked)], self.now)
        mark, middle = self.logged.mark(), image(self.logged, self.now)
        claimed = self.logged.claim(ClaimRequest(LANES, 2, "u", 9), self.now)
        for record in claimed.records:
            self.logged.extend([(record.head.id, record.head.lease)], 99, self.now)
            self.logged.append(record.head.id, record.head.lease, [b"entry"])
        for head in (self.logged._heads.get(one), self.logged._heads.get(other)):
            if head and (moved := self._moved(head, data)):
                change = Change(head.version, Record(moved, None, b"other"), [b"entry"])
                self.logged.swap([change], self.now)
                self.logged.delete([(moved.id, moved.version)])
        self.logged.take_back(mark)
        self.logged.find(Query(due_before=self.now))

        assert middle == image(self.logged, self.now)
        self.logged.take_back()

        assert before == image(self.logged, self.now)
        assert [] == self.logged.changes(self.now)

    @invariant()
    def who_follows_comes_to_be_the_same(self) -> None:
        for line in self.logged.changes(self.now):
            self.follower.apply(line)
        self.logged.settle()

        assert image(self.logged, self.now) == image(self.follower, self.now)

    @invariant()
    def who_reads_a_snapshot_comes_to_be_the_same(self) -> None:
        reader = LoggedState()
        for line in self.logged.snapshot(self.now):
            reader.apply(line)

        assert image(self.logged, self.now) == image(reader, self.now)
        assert self.now == (reader.seen or self.now)


TestLoggedState = LoggedStateMachine.TestCase
TestLoggedState.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_finished_tasks_are_found_in_the_order_of_their_ends_however_they_came() -> None:
    state = QueueState()
    ended = [Head(id=str(end), status=S.COMPLETED, finished_at=end) for end in (50, 20, 90, 10)]
    state.insert([Record(head) for head in ended], 100)
    found = [record.head.id for record in state.find(Query(finished_before=60))]
    state.insert([Record(Head(id="5", status=S.FAILED, finished_at=5))], 100)
    again = [record.head.id for record in state.find(Query(finished_before=60, limit=2))]

    assert ["10", "20", "50"] == found
    assert ["5", "10"] == again


def test_a_task_that_comes_back_with_another_seq_is_found_once() -> None:
    """As where a group of calls is taken back, and they are made again one by one."""
    state = LoggedState()
    heads = [Head(id="parent"), Head(id="child", status=S.BLOCKED, due=0), Head(id="waiting", run_at=5)]
    state.insert([Record(head) for head in heads], 10)
    state.take_back()

    assert {} == state._parents
    state.insert([Record(head) for head in reversed(heads)], 10)
    due = [record.head.id for record in state.find(Query(due_before=10))]
    ready = [entry for entry in state._ready["default", 3] if state._is_ready_entry(entry, 3)]
    claimed = state.claim(ClaimRequest(("default",), 5, "w", 9), 10)

    assert ["child"] == due
    assert 2 == len(ready)
    assert ["waiting", "parent"] == [record.head.id for record in claimed.records]


def test_an_id_that_is_there_already_is_refused() -> None:
    state = QueueState()
    state.insert([Record(Head(id="a"))], 1)
    for batch in (["a"], ["b", "b"]):
        with pytest.raises(ValueError, match="already"):
            state.insert([Record(Head(id=one)) for one in batch], 1)

    assert 1 == sum(state.count().values())


def test_a_worker_is_listed_until_its_time_is_up() -> None:
    state = QueueState()
    state.announce("w", b"w", 10, now=100)
    state.announce("v", b"old", 5, now=100)
    state.announce("v", b"v", 20, now=101)
    listed = [state.workers(now) for now in (109, 110)]
    state.announce("v", b"", 0, now=110)

    assert [["v", "w"], ["v"]] == [[one.worker for one in each] for each in listed]
    assert Present("v", b"v", 121) == listed[0][0]
    assert [] == state.workers(110)


def test_claims_stay_right_when_stale_entries_pile_up() -> None:
    state = QueueState()
    (record,) = state.insert([Record(Head(id="a"))], 1)
    state.insert([Record(Head(id="b", priority=2))], 1)
    head = record.head
    for number in range(1000):
        head = attrs.evolve(head, run_at=2000 - number, due=3000 - number, version=head.version + 1)
        state.swap([Change(head.version - 1, Record(head))], 1)
    request = ClaimRequest(("default",), 1, "w", 10)
    claimed = [state.claim(request, now) for now in (1000, 1001)]

    assert [["b"], ["a"]] == [[one.head.id for one in each.records] for each in claimed]
    assert ["b", "a"] == [one.head.id for one in state.find(Query(due_before=5000))]


def test_a_parent_may_stand_in_the_same_batch() -> None:
    state = QueueState()
    stored = state.insert(
        [Record(Head(id="a")), Record(Head(id="b", status=S.BLOCKED, depends_on=("a",)))], 1
    )

    assert [None, None] == [record.head.due for record in stored]
    with pytest.raises(TaskNotFound) as caught:
        state.insert([Record(Head(id="c", depends_on=("d",))), Record(Head(id="d"))], 1)
    assert "d" == caught.value.task_id
