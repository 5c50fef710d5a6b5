"""SQLite and file backend do as the memory backend does: same calls, same answers, same store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    MICROSECONDS,
    Change,
    Claimed,
    ClaimRequest,
    Head,
    Query,
    QueueBackend,
    Record,
    RetryLater,
    RetryPolicy,
    Swapped,
    TaskStatus,
    lifecycle,
)
from jotty.errors import InvalidState, JottyError
from jotty.testing import VirtualClock
from jotty_backends.file import FileBackend
from jotty_backends.memory import MemoryBackend
from jotty_backends.sqlite import SQLiteBackend
from jotty_backends.sqlite.schema import connect
from jotty_backends.sqlite.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

S = TaskStatus
LANES = ("a", "b", "c")
KEYS = ("k", "l")
TAGS = ("x", "y", "z")
SECOND = MICROSECONDS


# What may be called

at_some = st.integers(0, 30)  # a task, modulo how many there are
lanes = st.sampled_from(["a", "a", "abc", "cab", "bc"])
data = st.binary(max_size=3)
rarely = st.sampled_from([0] * 9 + [1])
at_hand = st.booleans()  # whether a change brings the head that it replaces


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A new task; each dependency is so many places before it in the list of all, or nobody for 0."""
    depends_on = draw(st.sampled_from([()] * 7 + [(1,), (2,), (1, 2), (1, 3), (2, 4, 6), (1, 2, 3), (0, 1)]))
    return {
        "priority": draw(st.sampled_from([2, 3, 3, 5])),
        "lane": draw(st.sampled_from(["a", "a", "a", "b", "c"])),
        "status": draw(
            st.sampled_from([S.BLOCKED if depends_on else S.PENDING] * 6 + [S.BACKLOG, S.SUGGESTED])
        ),
        "key": draw(st.sampled_from([None, None, None, *KEYS])),
        "tags": draw(st.sampled_from([(), ("x",), ("y", "x"), ("z",)])),
        "depends_on": depends_on,
        "on_dependency": draw(st.sampled_from(["fail", "cancel", "run"])),
        "run_at": draw(st.sampled_from([0, 0, 0, 0, 1])),
        "max_attempts": draw(st.integers(1, 3)),
        "retry": draw(st.sampled_from([RetryPolicy(), RetryPolicy(delay=0.5, jitter=0)])),
        "timeout": draw(st.none() | st.integers(1, 10)),
        "payload": draw(data),
    }


def _examined(head: Head, parents: Sequence[Head | None], now: int) -> Head | None:
    verdict = lifecycle.examine(head, parents, now)
    return verdict.head if verdict else None


MOVES: dict[str, Callable[[Head, Sequence[Head | None], int], Head | None]] = {
    "complete": lambda head, _, now: lifecycle.completed(head, now),
    "fail": lambda head, _, now: lifecycle.failed(head, now, retry=True, delay=None, random=Random(1)),
    "give up": lambda head, _, now: lifecycle.failed(head, now, retry=False, delay=None, random=Random(1)),
    "postpone": lambda head, _, now: lifecycle.postponed(head, now, RetryLater(1)),
    "release": lambda head, _, now: lifecycle.released(head, now),
    "park": lambda head, _, now: lifecycle.parked(head, now, awaiting=("q", "r"), until=now + 2 * SECOND),
    "answer": lambda head, _, __: lifecycle.answered(head, "q"),
    "cancel": lambda head, _, now: lifecycle.cancelled(head, now),
    "accept": lambda head, parents, _: lifecycle.accepted(head, parents, run=True),
    "reprioritise": lambda head, _, __: lifecycle.reprioritised(head, 1),
    "retry": lambda head, parents, _: lifecycle.retried(head, parents),
    "examine": _examined,
}
TERMINAL = {S.COMPLETED, S.FAILED, S.CANCELLED}
FROM = {
    **{name: {S.IN_PROGRESS} for name in ("complete", "fail", "give up", "postpone", "release", "park")},
    "accept": {S.SUGGESTED, S.BACKLOG},
    "retry": {S.FAILED, S.CANCELLED},
}

OFTEN = ["complete"] * 6 + ["fail", "give up", "examine", "examine", "examine", "cancel", "retry"]

moves = st.tuples(
    at_some,
    st.sampled_from(OFTEN + sorted(MOVES)),
    st.none() | data,
    st.lists(data, max_size=2),
    rarely,
    at_hand,
)
claims = st.tuples(
    lanes, st.sampled_from([0, 1, 2, 4, 9]), st.sampled_from(["v", "w"]), st.sampled_from([1, 10])
)
queries = st.builds(
    Query,
    statuses=st.none() | st.lists(st.sampled_from(list(S)), max_size=3, unique=True),
    lane=st.none() | st.sampled_from(LANES),
    tag=st.none() | st.sampled_from(TAGS),
    key=st.none() | st.sampled_from(KEYS),
    finished_before=st.none() | st.sampled_from([0, 3, 2**60]),
    after_seq=st.sampled_from([0, 0, 1, 3, 2**70]),
    limit=st.sampled_from([1, 3, 2**70]),
    payload=st.booleans(),
)
inserts = st.tuples(
    st.just("insert"), st.lists(specs(), min_size=1, max_size=5), st.sampled_from([None, None, 5, 15])
)
claiming = st.tuples(st.just("claim"), claims)
swaps = st.tuples(st.just("swap"), st.lists(moves, min_size=1, max_size=4))
calls = st.one_of(
    *[inserts] * 4,
    *[claiming] * 3,
    *[swaps] * 5,
    st.tuples(st.just("turn"), st.lists(moves, max_size=4), claims),
    st.tuples(st.just("extend"), st.lists(st.tuples(at_some, rarely), max_size=3)),
    st.tuples(st.just("append"), at_some, rarely, st.lists(data, max_size=3)),
    st.tuples(st.just("delete"), st.lists(st.tuples(at_some, rarely), max_size=4)),
    st.tuples(st.just("find"), queries),
    st.tuples(st.just("due")),
    st.tuples(st.just("get"), st.lists(at_some, max_size=3), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([1, 3])),
)


class Pair:
    """Two backends on one clock, which must answer alike."""

    def __init__(self, memory: QueueBackend, other: QueueBackend, clock: VirtualClock) -> None:
        self.memory, self.other, self.clock = memory, other, clock
        self.ids: list[str] = []

    async def both(self, call: Callable[[QueueBackend], Any]) -> Any:
        expected, actual = await _answer(call(self.memory)), await _answer(call(self.other))

        assert expected == actual
        return expected

    async def heads(self) -> list[Head]:
        """The heads of all tasks, as the memory backend has them."""
        return [record.head for record in await self.memory.find(Query(limit=10_000))]

    async def some(self, at: int, fitting: Callable[[Head], bool] = lambda _: True) -> Head:
        """One of the tasks, if there is any one that fits; `at` tells which."""
        heads = await self.heads()
        heads = [head for head in heads if fitting(head)] or heads
        return heads[at % len(heads)] if heads else Head(id="nobody", seq=1)

    async def run(self, call: tuple[Any, ...]) -> None:
        await getattr(self, f"do_{call[0]}")(*call[1:])

    async def do_insert(self, new: list[dict[str, Any]], limit: int | None) -> None:
        there = [head.id for head in await self.heads()]
        records = []
        for spec in new:
            records.append(self._record(spec, there))
            there.append(records[-1].head.id)
        await self.both(lambda backend: backend.insert(records, limit=limit))

    def _record(self, spec: dict[str, Any], there: Sequence[str]) -> Record:
        self.ids.append(f"task-{len(self.ids):03}")
        parents = tuple(there[-at] if at else "nobody" for at in spec["depends_on"] if at <= len(there))
        run_at = self.clock.now() + spec["run_at"] * SECOND if spec["run_at"] else 0
        head = {**spec, "id": self.ids[-1], "depends_on": parents, "run_at": run_at}
        payload = head.pop("payload")
        return Record(Head(**head), payload)

    async def do_claim(self, claim: tuple[Any, ...]) -> None:
        await self.both(lambda backend: backend.claim(_request(*claim)))

    async def do_swap(self, moved: list[tuple[Any, ...]]) -> None:
        changes = await self._changes(moved)
        await self.both(lambda backend: backend.swap(changes))

    async def do_turn(self, moved: list[tuple[Any, ...]], claim: tuple[Any, ...]) -> None:
        changes = await self._changes(moved)
        await self.both(lambda backend: backend.turn(changes, _request(*claim)))

    async def _changes(self, moved: list[tuple[Any, ...]]) -> list[Change]:
        changes: dict[str, Change] = {}
        for at, name, outcome, entries, stale, is_at_hand in moved:
            head = await self.some(at, lambda head, name=name: self._may(head, name))  # type: ignore[misc]
            after = await self._moved(head, name)
            if after is not None:
                record = Record(after, None, outcome)
                before = attrs.evolve(head, version=head.version - stale) if is_at_hand else None
                changes[head.id] = Change(head.version - stale, record, entries, before)
        return list(changes.values())

    def _may(self, head: Head, name: str) -> bool:
        if name == "examine":
            return head.due is not None and head.due <= self.clock.now()
        return head.status in FROM.get(name, set(S) - TERMINAL)

    async def _moved(self, head: Head, name: str) -> Head | None:
        if not self._may(head, name):
            return None
        parents = await self.memory.get(head.depends_on)
        try:
            return MOVES[name](
                head, [parent.head if parent else None for parent in parents], self.clock.now()
            )
        except InvalidState:
            return None

    async def do_extend(self, leases: list[tuple[int, int]]) -> None:
        heads = [(await self.some(at, _is_held), stale) for at, stale in leases]
        held = [(head.id, head.lease - stale) for head, stale in heads]
        await self.both(lambda backend: backend.extend(held, 7 * SECOND))

    async def do_append(self, at: int, stale: int, entries: list[bytes]) -> None:
        head = await self.some(at, _is_held)
        await self.both(lambda backend: backend.append(head.id, head.lease - stale, entries))

    async def do_delete(self, targets: list[tuple[int, int]]) -> None:
        heads = [(await self.some(at, lambda head: head.status in TERMINAL), stale) for at, stale in targets]
        versions = [(head.id, head.version - stale) for head, stale in heads]
        await self.both(lambda backend: backend.delete(versions))

    async def do_find(self, query: Query) -> None:
        if query.finished_before == 3:
            query = attrs.evolve(query, finished_before=self.clock.now() - SECOND)
        if query.finished_before is not None and not query.after_seq:
            # in the store's own order
            query = attrs.evolve(query, limit=10_000)
            await self.both(lambda backend: _sorted(backend.find(query)))
        else:
            await self.both(lambda backend: backend.find(query))

    async def do_due(self) -> None:
        query = Query(due_before=self.clock.now(), limit=3)
        await self.both(lambda backend: backend.find(query))

    async def do_get(self, places: list[int], payload: bool) -> None:  # noqa: FBT001 - drawn
        ids = [(await self.some(at)).id for at in places]
        await self.both(lambda backend: backend.get([*ids, "nobody", "\ud800"], payload=payload))

    async def do_pass(self, seconds: int) -> None:
        await self.clock.advance(seconds)

    async def compare(self) -> None:
        """All that can be read of the two stores is alike."""
        await self.both(lambda backend: backend.get(self.ids))
        await self.both(lambda backend: backend.count())
        await self.both(lambda backend: backend.find(Query(limit=10_000, payload=True)))
        await self.both(lambda backend: backend.find(Query(due_before=2**60, limit=10_000)))
        await self.both(lambda backend: backend.claim(_request(LANES, 0, "w", 1)))
        for tag in TAGS:
            await self.both(lambda backend, tag=tag: backend.find(Query(tag=tag)))  # type: ignore[misc]
        for task_id in self.ids:
            await self.both(lambda backend, task_id=task_id: backend.read(task_id))  # type: ignore[misc]
            await self.both(lambda backend, task_id=task_id: backend.read(task_id, 1, 1))  # type: ignore[misc]


def _is_held(head: Head) -> bool:
    return head.status is S.IN_PROGRESS


def _request(lanes: Sequence[str], limit: int, worker: str, lease: int) -> ClaimRequest:
    return ClaimRequest(tuple(lanes), limit, worker, lease * SECOND)


async def _sorted(found: Awaitable[list[Record]]) -> list[Record]:
    return sorted(await found, key=lambda record: record.head.seq)


async def _answer(call: Any) -> Any:
    """What a call returns or raises, without what may differ: marks, and the order of what was fired."""
    try:
        answer = await call
    except JottyError as error:
        return type(error), vars(error)
    return _comparable(answer)


def _comparable(answer: Any) -> Any:
    if isinstance(answer, Claimed):
        return attrs.evolve(answer, mark=0)
    if isinstance(answer, Swapped):
        return attrs.evolve(answer, fired=tuple(sorted(answer.fired)))
    if isinstance(answer, (list, tuple)):
        return [_comparable(one) for one in answer]
    return answer


class InGroups(SQLiteBackend):
    """Up to nine calls that write are one transaction, as those of callers who wait together are."""

    async def open(self) -> None:
        connection, lock = connect(
            self._path, self.url, lambda: None, durability="process", patience=5, create=True
        )
        self._group, self._lock, self._calls = Tables(connection, self._clock.now), lock, 0
        self._group.begin()

    async def aclose(self) -> None:
        self._group.commit()
        self._group.close()
        self._lock.close()

    async def _write(self, step: Callable[[Tables], Any], undo: object = None, *, of: int = 0) -> Any:
        self._calls += 1
        if self._calls % 9 == 0:
            self._begin_anew()
        return step(self._group)

    async def _read(self, step: Callable[[Tables], Any], *, of: int = 0) -> Any:
        self._begin_anew()
        return step(self._group)

    def _begin_anew(self) -> None:
        self._group.commit()
        self._group.begin()


STORES: dict[str, Callable[[Path, VirtualClock], QueueBackend]] = {
    "sqlite": lambda path, clock: SQLiteBackend(path / "tasks.db", clock=clock),
    "sqlite, in groups": lambda path, clock: InGroups(path / "tasks.db", clock=clock),
    "file": lambda path, clock: FileBackend(path / "tasks", clock=clock),
}


async def _agree(made: list[tuple[Any, ...]], store: str, path: Path) -> None:
    clock = VirtualClock()
    memory, other = MemoryBackend(clock=clock), STORES[store](path, clock)
    await other.open()
    try:
        pair = Pair(memory, other, clock)
        for call in made:
            await pair.run(call)
        await pair.compare()
    finally:
        await other.aclose()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@given(made=st.lists(calls, min_size=20, max_size=40))
@settings(deadline=None, max_examples=80)
def test_the_same_calls_give_the_same_answers_and_the_same_store(
    loop: str, store: str, made: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(_agree, made, store, Path(directory), backend=loop)


PLAIN: dict[str, Any] = {
    "lane": "a",
    "status": S.PENDING,
    "key": None,
    "tags": (),
    "depends_on": (),
    "on_dependency": "fail",
    "run_at": 0,
    "max_attempts": 3,
    "retry": RetryPolicy(),
    "timeout": None,
    "payload": b"",
}
# What has to do with who is next in line, and nothing else
in_line = st.one_of(
    st.builds(
        lambda priority: ("insert", [PLAIN | {"priority": priority}], None), st.sampled_from([1, 2, 3, 4, 5])
    ),
    *[st.just(("claim", ("a", 1, "w", 10)))] * 3,
    st.builds(
        lambda at, name: ("swap", [(at, name, None, [], 0, True)]),
        at_some,
        st.sampled_from(["release", "cancel", "reprioritise"]),
    ),
)


@given(made=st.lists(in_line, min_size=20, max_size=40))
@settings(deadline=None)
def test_whoever_claims_in_a_group_gets_who_is_first_in_line_by_then(made: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(_agree, made, "sqlite, in groups", Path(directory))
