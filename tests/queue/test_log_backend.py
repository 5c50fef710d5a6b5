"""`LogBackend` over the simplest log there can be, as one who writes a backend would begin."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.core.queue import Durability, Head, Query, QueueBackend, Record, TaskStatus
from jotty.core.queue.log.contents import Contents, InlineContents
from jotty.core.queue.log.seam import Log, LogRead
from jotty.core.queue.log_backend import LogBackend
from jotty.errors import QueueClosed, StorageError, StoreCorrupt
from jotty.testing import TaskQueueConformance, VirtualClock, task_queue_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jotty.core.queue import Clock


class Place:
    """What many processes would share: lines, how often they were replaced by a snapshot, and a lock."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.generation = 0
        self.lock = threading.Lock()
        self.failure: Exception | None = None


class ListLog(Log):
    """A log in a list."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        if not self.place.lock.acquire(timeout=timeout):
            raise TimeoutError
        try:
            yield
        finally:
            self.place.lock.release()

    def read_since(self, position: Any) -> LogRead:
        generation, number = position or (None, 0)
        is_anew = generation != self.place.generation
        start = 0 if is_anew else number
        lines = self.place.lines[start : start + 3]
        return LogRead(lines, (self.place.generation, start + len(lines)), is_anew=is_anew)

    def append(self, lines: Sequence[str]) -> Any:
        if self.place.failure:
            raise self.place.failure
        self.place.lines.extend(lines)
        return self.place.generation, len(self.place.lines)

    def snapshot(self, lines: list[str], position: Any) -> Any:
        assert position == (self.place.generation, len(self.place.lines))
        self.place.lines, self.place.generation = lines, self.place.generation + 1
        return self.place.generation, len(lines)

    def is_long(self, lines: int, tasks: int) -> bool:
        return lines > 10 + 2 * tasks


class ListBackend(LogBackend):
    scheme = "list"
    durability: Durability = "none"

    def __init__(self, place: Place, *, clock: Clock | None = None, busy_timeout: float = 5) -> None:
        super().__init__("list:", clock=clock, busy_timeout=busy_timeout, place=f"list:{id(place)}")
        self.place = place

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> ListBackend:
        raise NotImplementedError

    def open_log(self, *, create: bool) -> Log:
        return ListLog(self.place)


class TestListLog(TaskQueueConformance):
    @pytest.fixture
    def open_backend(self, clock: VirtualClock) -> Callable[[], QueueBackend]:
        place = Place()
        return lambda: ListBackend(place, clock=clock)


def test_a_log_in_a_list_behaves_as_the_model() -> None:
    def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
        place = Place()
        return lambda: ListBackend(place, clock=clock)

    examples = settings(max_examples=50, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(task_queue_machine(new_store), settings=examples)


def new(task_id: str) -> Record:
    return Record(Head(id=task_id), b"{}")


async def ids(backend: QueueBackend) -> list[str]:
    return [record.head.id for record in await backend.find(Query())]


@pytest.mark.anyio
async def test_snapshots_bound_the_log_and_followers_read_on() -> None:
    place = Place()
    one, two = ListBackend(place), ListBackend(place)
    await one.open()
    await two.open()
    (stored,) = await one.insert([new("a")])
    for lease in range(100):
        handle = (one, two)[lease % 2]
        await handle.announce("w", b"x", 10**9)
    for _ in range(500):
        if len(place.lines) < 30:
            break
        await anyio.sleep(0.01)

    assert len(place.lines) < 30
    assert [stored] == await two.get(["a"]) == await one.get(["a"])
    assert place.generation > 3
    await one.aclose()
    await two.aclose()


@pytest.mark.anyio
async def test_what_could_not_be_appended_has_not_happened() -> None:
    place = Place()
    backend = ListBackend(place)
    await backend.open()
    await backend.insert([new("a")])
    place.failure = OSError("full")
    with pytest.raises(StorageError) as caught:
        await backend.insert([new("b")])
    listed = await ids(backend)
    place.failure = None
    (stored,) = await backend.insert([new("c")])
    await backend.aclose()

    assert place.failure is None
    assert isinstance(caught.value.__cause__, OSError)
    assert ["a"] == listed
    assert 2 == stored.head.seq


@pytest.mark.anyio
async def test_an_append_whose_answer_was_lost_is_found_by_reading() -> None:
    class Forgetful(ListLog):
        def append(self, lines: Sequence[str]) -> Any:
            super().append(lines)
            if "lost" in lines[0]:
                raise OSError("the connection was lost")
            return self.place.generation, len(self.place.lines)

    class ForgetfulBackend(ListBackend):
        def open_log(self, *, create: bool) -> Log:
            return Forgetful(self.place)

    backend = ForgetfulBackend(Place())
    await backend.open()
    with pytest.raises(StorageError):
        await backend.insert([new("lost")])

    assert ["lost"] == await ids(backend)
    (stored,) = await backend.insert([new("next")])

    assert 2 == stored.head.seq
    await backend.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "line", ["", "no json", "[]", "{}", '{"task":{}}', '{"task":{"id":"a","status":"x"}}']
)
async def test_a_line_that_tells_of_nothing_is_damage(line: str) -> None:
    place = Place()
    place.lines = [line]
    backend = ListBackend(place)
    if line == "{}":  # which a later version may have written
        await backend.open()
    else:
        with pytest.raises(StoreCorrupt):
            await backend.open()
    await backend.aclose()


@pytest.mark.anyio
async def test_a_log_that_could_not_be_opened_is_tried_again() -> None:
    class Shy(ListBackend):
        refusals = 2

        def open_log(self, *, create: bool) -> Log:
            assert create
            if self.refusals:
                self.refusals -= 1
                raise OSError("not now")
            return super().open_log(create=create)

    backend = Shy(Place())
    for _ in range(2):
        with pytest.raises(StorageError, match="not now"):
            await backend.open()
    await backend.open()

    assert [] == await ids(backend)
    await backend.aclose()
    with pytest.raises(QueueClosed):
        await backend.open()


@pytest.mark.anyio
async def test_what_was_deleted_while_a_log_is_first_read_is_not_there() -> None:
    """However many snapshots take the place of what has been read so far."""
    place = Place()
    writer = ListBackend(place)
    await writer.open()
    await writer.insert([Record(Head(id=f"{at}", status=TaskStatus.FAILED), b"{}") for at in range(9)])

    class Slow(ListLog):
        reads = 0

        def read_since(self, position: Any) -> LogRead:
            self.reads += 1
            if self.reads == 3:  # all are deleted, and a snapshot says so
                place.lines, place.generation = ['{"at":1,"seq":9}'], place.generation + 1
            return super().read_since(position)

    class SlowBackend(ListBackend):
        def open_log(self, *, create: bool) -> Log:
            return Slow(self.place)

    reader = SlowBackend(place)
    await reader.open()
    (stored,) = await reader.insert([new("next")])

    assert ["next"] == await ids(reader) == await ids(writer)
    assert 10 == stored.head.seq
    await reader.aclose()
    await writer.aclose()


@pytest.mark.anyio
async def test_contents_that_could_not_be_flushed_are_taken_back_and_nobody_is_told_otherwise() -> None:
    """Not even one of those who were to be written together."""

    class Refusing(InlineContents):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1
            if self.flushes == 1:
                raise OSError("the disk is broken")

    class RefusingLog(ListLog):
        def contents(self) -> Contents:
            return Refusing()

    class RefusingBackend(ListBackend):
        def open_log(self, *, create: bool) -> Log:
            return RefusingLog(self.place)

    # its anchor is there already, and is not what is refused
    backend = RefusingBackend(Place(), clock=VirtualClock())
    await backend.open()
    refusals: list[BaseException | None] = []

    async def insert(task_id: str) -> None:
        with pytest.raises(StorageError) as caught:
            await backend.insert([new(task_id)])
        refusals.append(caught.value.__cause__)

    async with anyio.create_task_group() as group:
        with backend.place.lock:
            group.start_soon(insert, "a")
            group.start_soon(insert, "b")
            await anyio.sleep(0.02)

    assert [OSError, OSError] == [type(one) for one in refusals]
    assert [] == await ids(backend)
    (stored,) = await backend.insert([new("c")])

    assert 1 == stored.head.seq
    await backend.aclose()


@pytest.mark.anyio
async def test_an_anchor_whose_fate_is_unknown_is_told_of_as_any_failure() -> None:
    class Forgetful(ListLog):
        def append(self, lines: Sequence[str]) -> Any:
            super().append(lines)
            raise OSError("the connection was lost")

    class ForgetfulBackend(ListBackend):
        def open_log(self, *, create: bool) -> Log:
            return Forgetful(self.place) if not self.place.lines else ListLog(self.place)

    backend = ForgetfulBackend(Place())
    with pytest.raises(StorageError) as caught:
        await backend.open()
    await backend.open()
    await backend.insert([new("b")])

    assert isinstance(caught.value.__cause__, OSError)
    assert ["b"] == await ids(backend)
    await backend.aclose()


@pytest.mark.anyio
async def test_a_log_that_is_worn_is_replaced_before_anything_is_appended() -> None:
    class Worn(ListLog):
        def is_worn(self) -> bool:
            return self.place.generation == 0

        def append(self, lines: Sequence[str]) -> Any:
            assert not self.is_worn()
            return super().append(lines)

    class WornBackend(ListBackend):
        def open_log(self, *, create: bool) -> Log:
            return Worn(self.place)

    backend = WornBackend(Place())
    await backend.open()
    await backend.insert([new("a")])

    assert ["a"] == await ids(backend)
    assert 1 == backend.place.generation
    await backend.aclose()


@pytest.mark.anyio
async def test_a_dropped_handle_may_be_collected_while_the_thread_is_at_work() -> None:
    """As the collector does it, wherever it pleases; here, in the middle of what nobody may interrupt."""
    backend = ListBackend(Place())
    await backend.open()
    twin = backend.clone()
    await twin.open()
    writer = backend._open_writer()
    with writer._guard:
        del twin
        gc.collect()

    assert 1 == len(writer._openers)
    await backend.insert([new("a")])
    await backend.aclose()


@pytest.mark.anyio
async def test_a_lock_that_others_keep_ends_writes_in_time() -> None:
    place = Place()
    backend = ListBackend(place, busy_timeout=0.2)
    await backend.open()
    with place.lock, pytest.raises(StorageError, match="locked"):
        await backend.insert([new("a")])
    await backend.insert([new("b")])

    assert ["b"] == await ids(backend)
    await backend.aclose()
