"""`LogBackend` over the simplest log there can be, as one who writes a backend would begin."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.core.queue import Durability, Head, Query, QueueBackend, Record
from jotty.core.queue.log import Log, LogRead
from jotty.core.queue.log_backend import LogBackend
from jotty.errors import QueueClosed, StorageError, StoreCorrupt
from jotty.testing import TaskQueueConformance, task_queue_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jotty.core.queue import Clock
    from jotty.testing import VirtualClock


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
async def test_a_lock_that_others_keep_ends_writes_in_time() -> None:
    place = Place()
    backend = ListBackend(place, busy_timeout=0.2)
    await backend.open()
    with place.lock, pytest.raises(StorageError, match="locked"):
        await backend.insert([new("a")])
    await backend.insert([new("b")])

    assert ["b"] == await ids(backend)
    await backend.aclose()
