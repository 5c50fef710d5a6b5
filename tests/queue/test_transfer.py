from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jotty.core.queue import (
    MICROSECONDS,
    Head,
    Imported,
    NewTask,
    QueueBackend,
    Ref,
    RetryLater,
    RetryPolicy,
    Task,
    TaskQueue,
    TaskStatus,
    export_tasks,
    import_tasks,
    open_queue,
    transfer,
)
from jotty.core.queue.task import from_microseconds
from jotty.errors import InvalidState, LeaseLost, PayloadError, QueueError, QueueFull, StorageError
from jotty.testing import VirtualClock
from jotty.testing.conformance.interposed import InterposedBackend
from jotty.testing.strategies import contexts, goals, json_values
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

pytestmark = pytest.mark.anyio

S = TaskStatus
Document = dict[str, Any]
LANES = ("a", "b")
HOUR = 3600 * MICROSECONDS


# Lives of a store, to be exported at any time


@st.composite
def new_tasks(draw: st.DrawFn) -> tuple[NewTask, list[int]]:
    """A new task, and how far before it those stand that it depends on."""
    new = NewTask(
        draw(goals()),
        draw(contexts()),
        priority=draw(st.integers(1, 5)),
        lane=draw(st.sampled_from(LANES)),
        delay=draw(st.sampled_from([None, None, 5])),
        key=draw(st.sampled_from([None, None, "k", "l"])),
        on_dependency=draw(st.sampled_from(["fail", "cancel", "run"])),
        max_attempts=draw(st.integers(1, 3)),
        retry=draw(st.sampled_from([RetryPolicy(), RetryPolicy(delay=0.5, factor=3, jitter=0)])),
        timeout=draw(st.sampled_from([None, 2.5])),
        status=draw(st.sampled_from([S.PENDING, S.PENDING, S.PENDING, S.BACKLOG, S.SUGGESTED])),
        tags=draw(st.sampled_from([(), ("x",), ("x", "y")])),
        metadata=draw(st.sampled_from([None, {"by": "me"}])),
        headers=draw(st.sampled_from([None, {"traceparent": "00"}])),
    )
    return new, draw(st.sampled_from([[], [], [1], [2], [1, 3]]))


some = st.integers(0, 20)  # a task, modulo how many there are
moves = st.one_of(
    st.tuples(st.just("enqueue"), new_tasks()),
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(
        st.just("settle"), some, st.sampled_from(["complete", "fail", "give up", "later"]), json_values()
    ),
    st.tuples(
        st.just("settle"), some, st.sampled_from(["release", "park", "park until", "record"]), json_values()
    ),
    st.tuples(st.just("ask"), some, st.sampled_from(["cancel", "retry", "accept", "answer", "delete"])),
    st.tuples(st.just("pass"), st.sampled_from([1, 20, 40])),
)
lives = st.lists(moves, min_size=3, max_size=25)


class World:
    """A store that is lived in."""

    def __init__(self, queue: TaskQueue, clock: VirtualClock) -> None:
        self.queue, self.clock = queue, clock
        self._ids: list[str] = []
        self._held: list[Task] = []

    async def live(self, life: Sequence[tuple[Any, ...]]) -> None:
        for name, *arguments in life:
            with suppress(QueueError):
                await getattr(self, f"do_{name}")(*arguments)
        await self.queue.reap()

    async def give_back(self) -> None:
        """Release all that is in progress."""
        for task in self._held:
            with suppress(LeaseLost):
                await self.queue.release(task)
        await self.queue.reap()

    async def do_enqueue(self, spec: tuple[NewTask, list[int]]) -> None:
        new, before = spec
        parents = [self._ids[-at] for at in before if at <= len(self._ids)]
        (task,) = await self.queue.enqueue_many([attrs.evolve(new, depends_on=parents)])
        self._ids.append(task.id)

    async def do_claim(self, limit: int) -> None:
        self._held += await self.queue.claim(worker="w", lanes=LANES, limit=limit)

    async def do_settle(self, at: int, how: str, value: Any) -> None:
        if not self._held:
            return
        task = self._held[at % len(self._held)]
        settle: dict[str, Callable[[], Awaitable[object]]] = {
            "complete": lambda: self.queue.complete(task, value),
            "fail": lambda: self.queue.fail(task, ValueError("no\nuse")),
            "give up": lambda: self.queue.fail(task, "no use", retry=False),
            "later": lambda: self.queue.fail(task, RetryLater(3)),
            "release": lambda: self.queue.release(task),
            "park": lambda: self.queue.park(task, ["q"]),
            "park until": lambda: self.queue.park(
                task, ["q"], until=from_microseconds(self.clock.now() + HOUR)
            ),
            "record": lambda: self.queue.record(task, [{"kind": "step", "value": value}] * 2),
        }
        await settle[how]()

    async def do_ask(self, at: int, what: str) -> None:
        if not self._ids:
            return
        task_id = self._ids[at % len(self._ids)]
        ask: dict[str, Callable[[], Awaitable[object]]] = {
            "cancel": lambda: self.queue.cancel(task_id),
            "retry": lambda: self.queue.retry(task_id),
            "accept": lambda: self.queue.accept(task_id),
            "answer": lambda: self.queue.answer(task_id, "q", [None, -0.0]),
            "delete": lambda: self.queue.delete(task_id),
        }
        await ask[what]()

    async def do_pass(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.queue.reap()


async def documents(queue: TaskQueue) -> list[Document]:
    return [document async for document in export_tasks(queue)]


async def contents(queue: TaskQueue) -> list[Document]:
    """Return all there is to tell of the tasks, but for how often each was written."""
    found = await documents(queue)
    for document in found:
        del document["head"]["version"]
    return found


async def lived_in(clock: VirtualClock, life: Sequence[tuple[Any, ...]]) -> World:
    world = World(open_queue("memory:", clock=clock, random=Random(1)), clock)
    await world.live(life)
    return world


def by_id(found: Sequence[Document]) -> list[Document]:
    return sorted(found, key=lambda document: str(document["head"]["id"]))


def killed_at(backend: QueueBackend, at: int, *, is_before: bool) -> TaskQueue:
    """Return a queue that fails just before, or just after, it writes for so many times."""
    interposed, left = InterposedBackend(backend), [at]

    async def fail_in_time() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError(backend.url, "killed.")

    around = interposed.before if is_before else interposed.after
    around |= dict.fromkeys(("insert", "swap"), fail_in_time)
    return TaskQueue(interposed)


on_each_loop = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@settings(max_examples=60, deadline=None)
@given(life=lives)
@on_each_loop
def test_an_imported_store_is_the_exported_one_with_what_was_in_progress_given_back(
    loop: str, life: list[tuple[Any, ...]]
) -> None:
    async def travel(directory: str) -> None:
        world = await lived_in(VirtualClock(), life)
        lines = [json.dumps(document) for document in await documents(world.queue)]
        await world.give_back()
        expected = await contents(world.queue)
        for url in (f"sqlite:///{directory}/store.db", f"file:///{directory}/store", "memory:"):
            async with open_queue(url, clock=world.clock) as store:
                done = await import_tasks(store, lines)
                found = await contents(store)

                assert Imported(len(expected), 0) == done
                assert expected == found
                assert await world.queue.backend.count() == await store.backend.count()
                lines = [json.dumps(document) for document in await documents(store)]

    with tempfile.TemporaryDirectory() as directory:
        anyio.run(travel, directory, backend=loop)


@settings(max_examples=60, deadline=None)
@given(life=lives, data=st.data())
@on_each_loop
def test_the_lines_may_come_in_any_order(loop: str, life: list[tuple[Any, ...]], data: st.DataObject) -> None:
    async def travel() -> None:
        world = await lived_in(VirtualClock(), life)
        lines = await documents(world.queue)
        shuffled = data.draw(st.permutations(lines))
        await world.give_back()
        async with open_queue("memory:", clock=world.clock) as store:
            done = await import_tasks(store, shuffled)

            assert Imported(len(lines), 0) == done
            assert by_id(await contents(world.queue)) == by_id(await contents(store))

    anyio.run(travel, backend=loop)


@settings(max_examples=80, deadline=None)
@given(life=lives, at=st.integers(0, 15), is_before=st.booleans(), at_once=st.integers(1, 4))
@on_each_loop
def test_an_import_that_was_killed_anywhere_is_completed_by_the_next(
    loop: str, life: list[tuple[Any, ...]], at: int, *, is_before: bool, at_once: int
) -> None:
    async def travel() -> None:
        world = await lived_in(VirtualClock(), life)
        lines = await documents(world.queue)
        await world.give_back()
        inner = MemoryBackend(clock=world.clock)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transfer, "WRITTEN_AT_ONCE", at_once)
            with suppress(StorageError):
                await import_tasks(killed_at(inner, at, is_before=is_before), lines)
            async with TaskQueue(inner, clock=world.clock) as store:
                await import_tasks(store, lines)
                again = await import_tasks(store, lines)
                await store.reap()

                assert Imported(0, len(lines)) == again
                assert by_id(await contents(world.queue)) == by_id(await contents(store))

    anyio.run(travel, backend=loop)


# What an export is


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def queue(clock: VirtualClock) -> AsyncIterator[TaskQueue]:
    async with open_queue("memory:", clock=clock) as opened:
        yield opened


@pytest.fixture
async def other(clock: VirtualClock) -> AsyncIterator[TaskQueue]:
    async with open_queue("memory:", clock=clock) as opened:
        yield opened


async def test_an_exported_task_has_all_that_belongs_to_it(queue: TaskQueue) -> None:
    task = await queue.enqueue("Write", {"n": 1}, key="k", tags=["t"], metadata={"m": 2}, timeout=1.5)
    (held,) = await queue.claim(worker="w")
    await queue.record(held, [{"kind": "step", "value": [1.0]}])
    await queue.complete(held, {"r": None})

    (found,) = await documents(queue)

    assert 1 == found["jotty"]
    assert ("Write", {"n": 1}, {"m": 2}, {}) == tuple(
        found[name] for name in ("goal", "context", "metadata", "headers")
    )
    assert ({"r": None}, None) == (found["result"], found["error"])
    assert [{"kind": "step", "value": [1.0]}, "end"] == [found["journal"][0], found["journal"][1]["kind"]]
    head = {"id": task.id, "status": "completed", "key": "k", "tags": ["t"], "lease": 1, "timeout": 1_500_000}
    assert head == {name: found["head"][name] for name in head}
    assert {"seq", "lease_until"} == {field.name for field in attrs.fields(Head)} - set(found["head"])


async def test_only_what_fulfils_every_condition_is_exported(queue: TaskQueue) -> None:
    for lane in ("a", "b"):
        for status in ("pending", "backlog", "suggested"):
            await queue.enqueue(lane + status, lane=lane, status=status, tags=[status], key=lane + status)

    async def exported(**conditions: Any) -> list[str]:
        return [document["goal"] async for document in export_tasks(queue, **conditions)]

    assert ["abacklog", "asuggested"] == await exported(lane="a", statuses=["suggested", S.BACKLOG])
    assert ["apending", "bpending"] == await exported(tag="pending")
    assert ["bpending"] == await exported(key="bpending")
    assert [] == await exported(statuses=[])
    with pytest.raises(ValueError, match="dreaming"):
        export_tasks(queue, statuses=["dreaming"])
    with pytest.raises(ValueError, match="lane"):
        export_tasks(queue, lane="")


async def test_head_and_journal_of_an_exported_task_are_of_one_instant() -> None:
    interposed = InterposedBackend(MemoryBackend())
    queue = TaskQueue(interposed)
    await queue.enqueue("g")
    (task,) = await queue.claim(worker="w")

    async def complete() -> None:
        interposed.after.clear()
        await queue.complete(task, "done")

    interposed.after["read"] = complete
    (found,) = await documents(queue)

    assert "completed" == found["head"]["status"]
    assert ["end"] == [entry["kind"] for entry in found["journal"]]


async def test_a_task_that_is_deleted_meanwhile_is_passed_over() -> None:
    interposed = InterposedBackend(MemoryBackend())
    queue = TaskQueue(interposed)
    task = await queue.enqueue("a")
    await queue.enqueue("b")
    await queue.cancel(task.id)

    async def delete() -> None:
        interposed.after.clear()
        await queue.delete(task.id)

    interposed.after["find"] = delete

    assert ["b"] == [document["goal"] for document in await documents(queue)]


# What an import does


async def test_a_task_that_is_there_is_left_as_it_is(queue: TaskQueue, other: TaskQueue) -> None:
    task = await queue.enqueue("g")
    lines = await documents(queue)
    await import_tasks(other, lines)
    await other.cancel(task.id)

    again = await import_tasks(other, [*lines, *lines])

    assert Imported(0, 2) == again
    assert [S.CANCELLED] == [task.status async for task in other.tasks()]


async def test_a_line_that_comes_twice_is_imported_once(queue: TaskQueue, other: TaskQueue) -> None:
    await queue.enqueue("g")
    lines = await documents(queue)

    assert Imported(1, 1) == await import_tasks(other, lines * 2)
    assert await contents(queue) == await contents(other)


async def test_who_held_a_task_in_the_other_store_cannot_write_to_it(
    queue: TaskQueue, other: TaskQueue
) -> None:
    await queue.enqueue("g")
    (held,) = await queue.claim(worker="w")
    await import_tasks(other, export_tasks(queue))
    renewed = [task for _ in range(3) for task in await queue.heartbeat([held]) if task]

    for task in (held, *renewed):
        with pytest.raises(LeaseLost):
            await other.complete(task)
    (taken,) = await other.claim(worker="v")
    for task in (held, *renewed):
        with pytest.raises(LeaseLost):
            await other.complete(task)
    assert (held.lease + 1, held.attempt) == (taken.lease, taken.attempt)


async def test_a_task_whose_worker_was_lost_is_still_to_run_alone(
    queue: TaskQueue, other: TaskQueue, clock: VirtualClock
) -> None:
    await queue.enqueue("g")
    await queue.claim(worker="w", lease_timeout=1)
    await clock.advance(2)
    await queue.reap()
    await queue.claim(worker="w")
    await import_tasks(other, export_tasks(queue))

    (task,) = await other.claim(worker="v")

    assert task.isolated
    assert (3, 2) == (task.lease, task.attempt)


async def test_a_running_task_whose_cancel_was_requested_is_cancelled(
    queue: TaskQueue, other: TaskQueue
) -> None:
    task = await queue.enqueue("g")
    child = await queue.enqueue("h", depends_on=[task.id])
    await queue.claim(worker="w")
    await queue.cancel(task.id)

    await import_tasks(other, export_tasks(queue))

    assert [S.CANCELLED, S.FAILED] == [each.status async for each in other.tasks()]
    assert ["call", "end"] == [entry.kind async for entry in other.events(task.id)]
    assert ["end"] == [entry.kind async for entry in other.events(child.id)]


async def test_a_child_goes_on_waiting_and_is_woken_in_the_new_store(
    queue: TaskQueue, other: TaskQueue
) -> None:
    parent = await queue.enqueue("a")
    child = await queue.enqueue("b", depends_on=[parent.id])
    await import_tasks(other, reversed(await documents(queue)))

    before = await other.get(child.id)
    (claimed,) = await other.claim(worker="w", limit=2)
    await other.complete(claimed)
    after = await other.get(child.id)

    assert parent.id == claimed.id
    assert before
    assert after
    assert [S.BLOCKED, S.PENDING] == [before.status, after.status]


async def test_a_ready_task_waits_if_what_it_depends_on_was_exported_before_its_end(
    queue: TaskQueue, other: TaskQueue
) -> None:
    parent = await queue.enqueue("a")
    child = await queue.enqueue("b", depends_on=[parent.id])
    lines = await documents(queue)
    (claimed,) = await queue.claim(worker="w")
    await queue.complete(claimed)
    lines[1] = (await documents(queue))[1]

    await import_tasks(other, lines)

    assert "pending" == lines[1]["head"]["status"]
    assert [parent.id] == [task.id for task in await other.claim(worker="w", limit=2)]
    assert S.BLOCKED is (await other.get(child.id) or claimed).status


async def test_a_dependency_that_was_deleted_before_the_export_had_completed(
    queue: TaskQueue, other: TaskQueue
) -> None:
    done = await queue.enqueue("a")
    waiting = await queue.enqueue("b")
    child = await queue.enqueue("c", depends_on=[done.id, waiting.id])
    (claimed,) = await queue.claim(worker="w")
    await queue.complete(claimed)
    await queue.delete(done.id)
    lines = await documents(queue)
    await import_tasks(other, lines)

    (claimed,) = await other.claim(worker="w", limit=2)
    await other.complete(claimed)

    assert [done.id] == lines[1]["gone"]
    assert waiting.id == claimed.id
    assert [child.id] == [task.id for task in await other.claim(worker="w")]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_task_that_depends_on_an_unknown_one_is_refused_and_not_written(
    queue: TaskQueue, other: TaskQueue, *, dry_run: bool
) -> None:
    parent = await queue.enqueue("a")
    await queue.enqueue("b", depends_on=[parent.id])
    await queue.enqueue("c")
    lines = (await documents(queue))[1:]

    with pytest.raises(PayloadError) as refused:
        await import_tasks(other, lines, dry_run=dry_run)
    written = [task.goal async for task in other.tasks()]
    await import_tasks(other, export_tasks(queue))

    assert "line 1: head['depends_on']" == refused.value.path
    assert parent.id in str(refused.value)
    assert ([] if dry_run else ["c"]) == written
    assert {"a", "b", "c"} == {task.goal async for task in other.tasks()}


async def test_a_task_in_the_store_may_be_depended_on(queue: TaskQueue, other: TaskQueue) -> None:
    parent = await queue.enqueue("a")
    lines = await documents(queue)
    await queue.enqueue("b", depends_on=[parent.id])
    await import_tasks(other, lines)

    done = await import_tasks(other, (await documents(queue))[1:])

    assert Imported(1, 0) == done


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_task_with_the_key_of_a_live_one_is_refused_until_that_one_is_over(
    queue: TaskQueue, other: TaskQueue, *, dry_run: bool
) -> None:
    await queue.enqueue("a", key="k")
    owner = await other.enqueue("b", key="k")

    with pytest.raises(PayloadError) as refused:
        await import_tasks(other, export_tasks(queue), dry_run=dry_run)
    written = [task.goal async for task in other.tasks()]
    await other.cancel(owner.id)
    done = await import_tasks(other, export_tasks(queue), dry_run=dry_run)

    assert "line 1: head['key']" == refused.value.path
    assert owner.id in str(refused.value)
    assert ["b"] == written
    assert Imported(1, 0) == done


async def test_a_key_that_is_taken_while_the_task_is_imported_is_refused(queue: TaskQueue) -> None:
    interposed = InterposedBackend(MemoryBackend())
    other = TaskQueue(interposed)
    await queue.enqueue("a", key="k")

    async def enqueue() -> None:
        interposed.before.clear()
        await other.enqueue("b", key="k")

    interposed.before["insert"] = enqueue
    with pytest.raises(PayloadError, match="live task"):
        await import_tasks(other, export_tasks(queue))

    assert ["b"] == [task.goal async for task in other.tasks()]


@pytest.mark.parametrize("at_once", [2, 100])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_that_are_refused_keep_none_out_but_those_that_depend_on_them(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject, at_once: int
) -> None:
    monkeypatch.setattr(transfer, "WRITTEN_AT_ONCE", at_once)
    fates = data.draw(st.lists(st.sampled_from(["good", "good", "broken", "taken"]), min_size=1, max_size=8))
    parents = [
        data.draw(st.lists(st.integers(0, at - 1), max_size=2, unique=True)) if at else []
        for at in range(len(fates))
    ]
    order = data.draw(st.permutations(range(len(fates))))
    dry_run = data.draw(st.booleans())

    async def run() -> tuple[Imported, list[PayloadError], set[Any]]:
        queue, other = TaskQueue(MemoryBackend()), TaskQueue(MemoryBackend())
        new = [NewTask(at, key=str(at), depends_on=[Ref(one) for one in parents[at]]) for at in every]
        await queue.enqueue_many(new)
        await other.enqueue_many([NewTask("owner", key=str(at)) for at in every if fates[at] == "taken"])
        lines: list[Any] = await documents(queue)
        told: list[PayloadError] = []
        done = await import_tasks(
            other,
            ["{broken" if fates[at] == "broken" else lines[at] for at in order],
            dry_run=dry_run,
            on_refused=told.append,
        )
        return done, told, {task.goal async for task in other.tasks()} - {"owner"}

    every = range(len(fates))
    done, told, goals = anyio.run(run)

    good: set[int] = set()
    for at in every:
        if fates[at] == "good" and good.issuperset(parents[at]):
            good.add(at)
    bad = {f"line {number}" for number, at in enumerate(order, start=1) if at not in good}
    assert Imported(len(good), 0, len(bad)) == done
    assert sorted(bad) == sorted(refused.path.partition(":")[0] for refused in told)
    assert (set() if dry_run else good) == goals


async def test_a_task_whose_key_was_taken_while_it_is_imported_keeps_none_out_but_its_children(
    queue: TaskQueue,
) -> None:
    interposed = InterposedBackend(MemoryBackend())
    other = TaskQueue(interposed)
    parent = await queue.enqueue("a", key="k")
    await queue.enqueue("child", depends_on=[parent.id])
    await queue.enqueue("c")

    async def enqueue() -> None:
        interposed.before.clear()
        await other.enqueue("b", key="k")

    interposed.before["insert"] = enqueue
    told: list[PayloadError] = []
    done = await import_tasks(other, export_tasks(queue), on_refused=told.append)
    ready = [task.goal for task in await other.claim(worker="w", limit=9)]

    assert Imported(1, 0, 2) == done
    assert ["line 1: head['key']", "line 2: head['depends_on']"] == [one.path for one in told]
    assert {"b", "c"} == set(ready)


async def test_what_is_wrong_with_a_line_is_said_by_its_own_number(other: TaskQueue) -> None:
    with pytest.raises(PayloadError) as refused:
        await import_tasks(other, ["", "{broken"])

    assert "line 2 is no JSON: Expecting property name enclosed in double quotes at column 2." == str(
        refused.value
    )


async def test_a_finished_task_keeps_the_key_that_a_live_one_has(queue: TaskQueue, other: TaskQueue) -> None:
    first = await queue.enqueue("a", key="k")
    await queue.cancel(first.id)
    second = await queue.enqueue("b", key="k")

    await import_tasks(other, export_tasks(queue))

    assert ["k", "k"] == [task.key async for task in other.tasks()]
    assert second.id == (await other.enqueue("c", key="k")).id


async def test_no_more_live_tasks_are_imported_than_the_store_may_hold(queue: TaskQueue) -> None:
    for goal in "abc":
        await queue.enqueue(goal)
    (task,) = await queue.claim(worker="w")
    await queue.complete(task)

    async with TaskQueue(MemoryBackend(), max_size=1) as small:
        with pytest.raises(QueueFull):
            await import_tasks(small, export_tasks(queue))
        assert [] == [task.goal async for task in small.tasks()]
    async with TaskQueue(MemoryBackend(), max_size=2) as enough:
        assert Imported(3, 0) == await import_tasks(enough, export_tasks(queue))


async def test_a_trial_counts_and_writes_nothing(queue: TaskQueue, other: TaskQueue) -> None:
    first = await queue.enqueue("a")
    await import_tasks(other, export_tasks(queue))
    await queue.enqueue("b", depends_on=[first.id])
    third = await queue.enqueue("c")
    await queue.enqueue("d", depends_on=[third.id])

    done = await import_tasks(other, reversed(await documents(queue)), dry_run=True)

    assert Imported(3, 1) == done
    assert ["a"] == [task.goal async for task in other.tasks()]


@pytest.mark.parametrize("status", ["pending", "cancelled"])
async def test_a_task_that_is_not_wholly_imported_is_taken_up_by_nobody(
    queue: TaskQueue, clock: VirtualClock, status: str
) -> None:
    task = await queue.enqueue("a")
    if status == "cancelled":
        await queue.cancel(task.id)
    backend = MemoryBackend(clock=clock)
    with pytest.raises(StorageError):
        await import_tasks(killed_at(backend, 1, is_before=True), export_tasks(queue))

    async with TaskQueue(backend, clock=clock) as store:
        assert [] == await store.claim(worker="w")
        assert 0 == await store.reap()
        for ask in (store.accept, store.retry):
            with pytest.raises(InvalidState):
                await ask(task.id)
        assert [] == await documents(store)
        assert Imported(1, 0) == await import_tasks(store, export_tasks(queue))
        assert status == (await store.get(task.id) or task).status


async def test_lines_are_taken_as_they_are_written_and_read_as_they_are_taken(
    queue: TaskQueue, other: TaskQueue
) -> None:
    await queue.enqueue_many([NewTask(number) for number in range(1000)])
    behind = []

    async def watched() -> AsyncIterator[Document]:
        number = 0
        async for document in export_tasks(queue):
            yield document
            number += 1
            behind.append(number - sum((await other.backend.count()).values()))

    done = await import_tasks(other, watched())

    assert Imported(1000, 0) == done
    assert max(behind) <= 100
    assert list(range(1000)) == [task.goal async for task in other.tasks()]


LINE: Document = {"jotty": 1, "head": {"id": "a"}, "goal": "g"}


async def test_a_line_needs_only_an_id_and_a_goal(other: TaskQueue) -> None:
    done = await import_tasks(other, ["", json.dumps(LINE), b" \n"])

    (task,) = await other.claim(worker="w")
    assert Imported(1, 0) == done
    assert ("a", "g", {}) == (task.id, task.goal, task.context)
    assert task.created_at


async def test_a_finished_task_without_an_end_in_its_journal_is_given_one(other: TaskQueue) -> None:
    await import_tasks(other, [{**LINE, "head": {"id": "a", "status": "completed"}, "result": 7}])

    assert 7 == await other.result("a")
    assert [("end", "completed")] == [(each.kind, each.data["status"]) async for each in other.events("a")]


def line(**changes: Any) -> Document:
    return {**LINE, **changes}


def head(**changes: Any) -> Document:
    return {**LINE, "head": {**LINE["head"], **changes}}


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        ("{", "line 2"),
        ("7", "line 2"),
        ("{}", "line 2"),
        ('{"jotty": 1, "goal": NaN}', "line 2"),
        ('{"jotty": 1, "goal": ' + "[" * 100_000, "line 2"),
        (b"\xff", "line 2"),
        (None, "line 2"),
        (line(jotty=2), "line 2"),
        (line(jotty="1"), "line 2"),
        (line(more=1), "line 2"),
        (line(head=None), "line 2: head"),
        (line(head={"lane": "a"}), "line 2: head"),
        (head(colour="red"), "line 2: head['colour']"),
        (head(id=""), "line 2: head['id']"),
        (head(id=7), "line 2: head['id']"),
        (head(lane=" a"), "line 2: head['lane']"),
        (head(status="dreaming"), "line 2: head['status']"),
        (head(status="in_progress"), "line 2: head"),
        (head(priority=6), "line 2: head['priority']"),
        (head(priority=True), "line 2: head['priority']"),
        (head(key=""), "line 2: head['key']"),
        (head(tags="a"), "line 2: head['tags']"),
        (head(depends_on=[7]), "line 2: head['depends_on']"),
        (head(on_dependency="hope"), "line 2: head['on_dependency']"),
        (head(lease=-1), "line 2: head['lease']"),
        (head(created_at=1.5), "line 2: head['created_at']"),
        (head(max_attempts=0), "line 2: head['max_attempts']"),
        (head(retry={"speed": 1}), "line 2: head['retry']"),
        (head(retry={"delay": "1"}), "line 2: head['retry']"),
        (head(retry=[]), "line 2: head['retry']"),
        (head(timeout=0), "line 2: head['timeout']"),
        (head(isolated=1), "line 2: head['isolated']"),
        (head(progress=[1]), "line 2: head['progress']"),
        (head(version=0), "line 2: head['version']"),
        (line(goal=(1,)), "line 2: goal"),
        (line(goal={"a": [2**63]}), "line 2: goal['a'][0]"),
        (line(goal="x" * 2000), "line 2: goal"),
        (line(context=[]), "line 2: context"),
        (line(context={"a": {1: 2}}), "line 2: context['a']"),
        (line(headers={"a": 1}), "line 2: headers['a']"),
        (line(result={1}), "line 2: result"),
        (line(error="no"), "line 2: error"),
        (line(error={"type": "E", "message": "m", "traceback": ""}, result=1), "line 2: error"),
        (line(journal={}), "line 2: journal"),
        (line(journal=[{}]), "line 2: journal[0]"),
        (line(journal=[{"kind": "a"}, {"kind": 7}]), "line 2: journal[1]"),
        (line(journal=[{"kind": "a", "value": float("nan")}]), "line 2: journal[0]['value']"),
        (line(gone="a"), "line 2: gone"),
    ],
)
async def test_a_broken_line_is_refused_by_its_number_and_nothing_of_it_is_written(
    broken: Any, path: str
) -> None:
    async with TaskQueue(MemoryBackend(), max_payload=1000) as store:
        with pytest.raises(PayloadError) as refused:
            await import_tasks(store, [{**LINE, "head": {"id": "first"}}, broken])

        assert path == refused.value.path
        assert await store.get("a") is None


async def test_a_question_that_expires_does_so_in_the_new_store(
    queue: TaskQueue, other: TaskQueue, clock: VirtualClock
) -> None:
    await queue.enqueue("g")
    (held,) = await queue.claim(worker="w")
    await queue.park(held, ["q"], until=from_microseconds(clock.now() + HOUR))
    await import_tasks(other, export_tasks(queue))

    before = await other.claim(worker="v")
    await clock.advance(3600)

    assert [] == before
    assert [held.id] == [task.id for task in await other.claim(worker="v")]
