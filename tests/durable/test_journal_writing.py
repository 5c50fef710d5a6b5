"""The writer of a run's journal: each entry once, in order, and a flush returns when it is stored."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jotty import TaskQueue
from jotty.core.orchestration.journaling import GROUP_SECONDS, JournalWriters
from jotty.errors import LeaseLost, StorageError
from jotty.testing import BackendProxy, VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jotty import Task
    from jotty.core.orchestration.journaling import JournalWriter

T = TypeVar("T")
LOOPS = ("asyncio", "trio")
TIMES = st.sampled_from((0.0, 0.01, 0.02, 0.05, 0.3))


@attrs.frozen
class Answer:
    """What a store makes of an append: how long it takes before and after, and whether it then fails."""

    before: float = 0.0
    after: float = 0.0
    failure: str = "none"


class Moody(BackendProxy):
    """A store whose appends take their time, fail, or lose their answers."""

    def __init__(self, clock: VirtualClock, answers: Sequence[Answer]) -> None:
        super().__init__(MemoryBackend(clock=clock))
        self.groups: list[int] = []
        self._clock = clock
        self._answers = iter(answers)

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        answer = next(self._answers, Answer())
        await self._clock.sleep(answer.before)
        if answer.failure == "refused":
            raise StorageError(self.url, "not now")
        number = await super().append(task_id, lease, entries)
        self.groups.append(len(entries))
        await self._clock.sleep(answer.after)
        if answer.failure == "unheard":
            raise StorageError(self.url, "the answer was lost")
        return number


@attrs.define
class Desk:
    """A task of which a worker writes the journal."""

    clock: VirtualClock
    store: Moody
    queue: TaskQueue
    task: Task
    writer: JournalWriter
    scope: anyio.CancelScope
    told: list[int] = attrs.field(factory=list)

    def tell(self) -> None:
        """Note the next number."""
        self.told.append(len(self.told))
        self.writer.note("told", number=self.told[-1])

    async def stored(self) -> list[int]:
        """Return the numbers in the journal."""
        entries = self.queue.events(self.task.id, follow=False)
        return [entry.data["number"] async for entry in entries if entry.kind == "told"]

    async def flush(self) -> None:
        """Flush, and make sure that what was told before is stored then."""
        told = list(self.told)
        await self.writer.flush()
        assert told == (await self.stored())[: len(told)]


async def with_desk(answers: Sequence[Answer], work: Callable[[Desk], Awaitable[T]]) -> T | None:
    """Do some work while the writers write on; None if its run ended meanwhile."""
    clock = VirtualClock()
    store = Moody(clock, answers)
    queue = TaskQueue(store, clock=clock)
    await queue.enqueue("g")
    (task,) = await queue.claim(worker="w", lease_timeout=1e6)
    writers = JournalWriters(queue, clock, Random(0))
    done: T | None = None
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(writers.write_on)
        with anyio.CancelScope() as scope, writers.writer(task, scope) as writer:
            done = await work(Desk(clock, store, queue, task, writer, scope))
        group.cancel_scope.cancel()
    return done


ANSWERS = st.lists(
    st.builds(Answer, TIMES, TIMES, st.sampled_from(("none", "none", "none", "refused", "unheard"))),
    max_size=12,
)
DEEDS = st.one_of(
    st.tuples(st.just("tell"), st.integers(1, 3)),
    st.tuples(st.just("wait"), TIMES),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("flush within"), TIMES),
)


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=200, deadline=None)
@given(answers=ANSWERS, branches=st.lists(st.lists(DEEDS, max_size=8), min_size=1, max_size=4))
@example(  # who looks what became of a group is cancelled halfway
    answers=[Answer(after=0.01)],
    branches=[
        [
            *([("flush", 0)] * 2),
            *[("wait", 0.0), ("tell", 1), ("flush within", 0.01), ("flush within", 0.0), ("flush", 0)],
        ],
        [("wait", 0.0), ("tell", 1), ("flush", 0)],
        [("flush", 0)] * 6,
    ],
)
@example(  # a flush that was about less is successful, the other is not
    answers=[Answer(), Answer(after=0.01), Answer(failure="refused")],
    branches=[
        [("flush", 0), ("wait", 0.0), ("flush", 0), ("flush", 0)],
        [("flush", 0), ("wait", 0.0), ("tell", 1)],
        [("flush", 0), ("tell", 1), ("flush", 0), ("flush within", 0.01), ("tell", 1), ("flush", 0)],
    ],
)
def test_whatever_is_flushed_cancelled_or_refused_each_entry_is_written_once_and_in_order(
    loop: str, answers: list[Answer], branches: list[list[Any]]
) -> None:
    async def work(desk: Desk) -> None:
        async with anyio.create_task_group() as group:
            for deeds in branches:
                group.start_soon(branch, desk, deeds)
        await desk.flush()
        assert desk.told == await desk.stored()

    async def branch(desk: Desk, deeds: list[Any]) -> None:
        for what, measure in deeds:
            if what == "tell":
                for _ in range(measure):
                    desk.tell()
            elif what == "wait":
                await desk.clock.sleep(measure)
            elif what == "flush":
                await desk.flush()
            else:
                with desk.clock.timeout(measure):
                    await desk.flush()

    anyio.run(with_desk, answers, work, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=100, deadline=None)
@given(answers=ANSWERS, numbers=st.lists(st.integers(1, 80), min_size=1, max_size=5))
def test_what_was_not_written_is_handed_out_to_be_stored_with_the_result(
    loop: str, answers: list[Answer], numbers: list[int]
) -> None:
    async def work(desk: Desk) -> None:
        for number in numbers:
            for _ in range(number):
                desk.tell()
            with desk.clock.timeout(0.01):
                await desk.flush()
        rest = await desk.writer.rest()
        stored = await desk.stored()

        assert len(desk.told) == len(stored) + len(rest)
        assert desk.told[: len(stored)] == stored

    anyio.run(with_desk, [*answers, Answer(before=9.0)], work, backend=loop)


@pytest.mark.anyio
class TestGroups:
    """How much is written at a time, and when."""

    async def test_all_that_wait_for_a_group_go_on_together_with_one_more_group(self) -> None:
        async def work(desk: Desk) -> list[int]:
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    desk.tell()
                    group.start_soon(desk.flush)
                    await desk.clock.sleep(0.001)
            return desk.store.groups

        assert await with_desk([Answer(before=0.02), Answer(before=0.02)], work) == [1, 4]

    async def test_who_waits_for_a_group_whose_writer_is_cancelled_writes_it(self) -> None:
        async def work(desk: Desk) -> list[int]:
            desk.tell()
            async with anyio.create_task_group() as patient, anyio.create_task_group() as hurried:
                hurried.start_soon(desk.flush)
                await desk.clock.sleep(0.001)
                patient.start_soon(desk.flush)
                await desk.clock.sleep(0.001)
                hurried.cancel_scope.cancel()
            return desk.store.groups

        assert await with_desk([Answer(before=9.0)], work) == [1]

    async def test_what_a_cancelled_flush_leaves_is_written_though_nothing_else_comes(self) -> None:
        async def work(desk: Desk) -> list[int]:
            desk.tell()
            with desk.clock.timeout(2 * GROUP_SECONDS):
                await desk.writer.flush()
            await desk.clock.sleep(2 * GROUP_SECONDS)
            return await desk.stored()

        assert await with_desk([Answer(before=9.0)], work) == [0]

    async def test_what_comes_while_a_group_is_written_is_written_though_nothing_else_comes(self) -> None:
        async def work(desk: Desk) -> list[int]:
            async with anyio.create_task_group() as group:
                desk.tell()
                group.start_soon(desk.flush)
                await desk.clock.sleep(0.001)
                desk.tell()
            await desk.clock.sleep(2 * GROUP_SECONDS)
            return await desk.stored()

        assert await with_desk([Answer(before=4 * GROUP_SECONDS)], work) == [0, 1]

    async def test_all_who_wait_for_a_store_that_does_not_answer_go_on_when_it_does(self) -> None:
        async def work(desk: Desk) -> list[int]:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    desk.tell()
                    group.start_soon(desk.flush)
            return desk.store.groups

        assert await with_desk([Answer(failure="refused")] * 5, work) == [3]

    async def test_many_entries_are_written_at_once_few_within_the_time_of_a_group(self) -> None:
        async def work(desk: Desk) -> list[float]:
            taken = []
            for number in (64, 63):
                began = desk.clock.now()
                for _ in range(number):
                    desk.tell()
                while len(await desk.stored()) < len(desk.told):
                    await desk.clock.sleep(0.001)
                taken.append((desk.clock.now() - began) / 1e6)
            return taken

        at_once, soon = await with_desk([], work) or []

        assert at_once <= 0.002
        assert GROUP_SECONDS - 0.002 <= soon <= GROUP_SECONDS + 0.002

    async def test_a_lost_lease_ends_the_run_where_it_flushes(self) -> None:
        course: list[Any] = []

        async def work(desk: Desk) -> None:
            desk.tell()
            await desk.queue.release(desk.task)
            try:
                await desk.writer.flush()
                course.append("went on")
            finally:
                course.append(type(desk.writer.error))

        await with_desk([], work)

        assert course == [LeaseLost]
