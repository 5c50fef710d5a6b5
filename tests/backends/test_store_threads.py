"""What every store with a thread of its own has: groups, a lock, waking, and how calls and handles end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty.core.queue import (
    MICROSECONDS,
    ClaimRequest,
    Head,
    Query,
    Record,
    SystemClock,
    TaskStatus,
    lifecycle,
)
from jotty.core.queue.record import change
from jotty.errors import QueueClosed, QueueFull, StorageError
from jotty.testing import VirtualClock
from jotty_backends.file import FileBackend
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

S = TaskStatus
ONE = ClaimRequest(("default",), 1, "w", 30 * MICROSECONDS)
DESCRIPTORS = Path("/proc/self/fd")
Backend = FileBackend | SQLiteBackend


@attrs.frozen
class Kind:
    """A kind of store.

    Attributes:
        backend: Its backend.
        name: That of its file or directory.
        lock: That of its lock file.
        taken: What an id raises that is there already.
    """

    backend: type[Backend]
    name: str
    lock: str
    taken: type[Exception]


KINDS = [
    Kind(FileBackend, "tasks", "tasks/lock", ValueError),
    Kind(SQLiteBackend, "tasks.db", "tasks.db-lock", StorageError),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.backend.scheme)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def path(tmp_path: Path, kind: Kind) -> Path:
    return tmp_path / kind.name


@pytest.fixture
async def backend(kind: Kind, path: Path) -> AsyncIterator[Backend]:
    made = kind.backend(path, busy_timeout=0.3)
    await made.open()
    yield made
    await made.aclose()


@pytest.fixture
def lock(kind: Kind, tmp_path: Path) -> Callable[[], FileLock]:
    """What gives the lock of the store, held as another process would hold it."""

    def locked() -> FileLock:
        made = FileLock(str(tmp_path / kind.lock), lambda: None)

        assert made.try_acquire()
        return made

    return locked


def comes(lock: FileLock) -> bool:
    """Whether a lock can be taken within some seconds."""
    deadline = time.monotonic() + 5
    while not lock.try_acquire() and time.monotonic() < deadline:
        time.sleep(0.005)
    return lock.try_acquire()


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


async def statuses(backend: Backend) -> dict[str, S]:
    return {record.head.id: record.head.status for record in await backend.find(Query())}


# Opening


async def test_calls_before_open_say_so(kind: Kind, path: Path) -> None:
    with pytest.raises(StorageError, match="not open"):
        await kind.backend(path).count()


async def test_many_open_at_once(kind: Kind, path: Path) -> None:
    handles = [kind.backend(path) for _ in range(8)]
    async with anyio.create_task_group() as group:
        for handle in handles:
            group.start_soon(handle.open)
    for at, handle in enumerate(handles):
        await handle.insert([new(f"task-{at}")])
    counts = [await handle.count() for handle in handles]
    for handle in handles:
        await handle.aclose()

    assert [{("default", S.PENDING): 8}] * 8 == counts


# Groups


async def test_one_refused_or_failing_call_spoils_no_other_of_its_group(
    backend: Backend, kind: Kind, lock: Callable[[], FileLock]
) -> None:
    others = lock()
    errors: list[type[Exception]] = []

    async def insert(*records: Record, limit: int | None = None) -> None:
        try:
            await backend.insert(records, limit=limit)
        except (QueueFull, kind.taken) as error:
            errors.append(type(error))

    async with anyio.create_task_group() as group:
        group.start_soon(insert, new("a"))
        group.start_soon(insert, new("b"), new("c"))
        await anyio.sleep(0.01)
        group.start_soon(lambda: insert(new("d"), new("e"), limit=4))
        group.start_soon(insert, new("f"), new("a"))  # an id that is there already
        await anyio.sleep(0.01)
        group.start_soon(lambda: insert(new("g"), limit=4))
        await anyio.sleep(0.01)
        others.close()

    assert Counter([QueueFull, kind.taken]) == Counter(errors)
    assert ["a", "b", "c", "g"] == sorted(await statuses(backend))
    assert [1, 2, 3, 4] == sorted(record.head.seq for record in await backend.find(Query()))
    assert {("default", S.PENDING): 4} == await backend.count()


# The lock


async def test_a_lock_that_others_keep_ends_writes_in_time_but_no_reads(
    backend: Backend, lock: Callable[[], FileLock]
) -> None:
    others = lock()
    began = time.monotonic()
    async with anyio.create_task_group() as group:

        async def insert() -> None:
            with pytest.raises(StorageError, match="locked"):
                await backend.insert([new("a")])

        group.start_soon(insert)
        await anyio.sleep(0.01)

        assert {} == await backend.count()
        assert time.monotonic() - began < 0.25
    assert 0.3 <= time.monotonic() - began < 2
    others.close()
    await backend.insert([new("b")])

    assert {"b": S.PENDING} == await statuses(backend)


async def test_a_write_gets_its_turn_when_others_are_done(
    backend: Backend, lock: Callable[[], FileLock]
) -> None:
    others = lock()
    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        await anyio.sleep(0.12)
        others.release()
    others.close()

    assert {"a": S.PENDING} == await statuses(backend)


@pytest.mark.parametrize("pause", [0, 0.1])
async def test_a_lock_that_comes_when_nobody_needs_it_is_passed_on(
    backend: Backend, lock: Callable[[], FileLock], pause: float
) -> None:
    """The write that asked for it was cancelled: an idle process must not keep the others out."""
    others = lock()
    with anyio.move_on_after(0.02):
        await backend.insert([new("a")])
    await anyio.sleep(pause)
    others.release()

    assert await anyio.to_thread.run_sync(comes, others)
    others.close()


# Waking


async def test_handles_in_one_process_wake_each_other_at_once(kind: Kind, path: Path) -> None:
    clock = VirtualClock()
    one, two = (kind.backend(path, clock=clock) for _ in range(2))
    await one.open()
    await two.open()
    async with clock.autojump():
        mark = (await one.claim(ONE)).mark
        async with anyio.create_task_group() as group:
            group.start_soon(one.wait, "lane:default", mark, 60)
            await two.insert([new("a")])

        assert VirtualClock().now() == clock.now()
    await one.aclose()
    await two.aclose()


async def test_nobody_is_looked_for_while_nobody_waits(backend: Backend) -> None:
    writer = backend._open_writer()
    with anyio.move_on_after(0.02):
        await backend.wait("lane:default", 10**9, 60)

    assert 0 == writer._watchers


# Cancellation


class GatedClock(SystemClock):
    """A clock that can keep the thread waiting in the middle of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_tell = threading.Event()
        self.may_tell.set()

    def now(self) -> int:
        self.is_asked.set()

        assert self.may_tell.wait(10)
        return super().now()

    async def wait_for_step(self) -> None:
        """Return when a step has begun and waits for the time."""
        await anyio.to_thread.run_sync(self.is_asked.wait, 10)


async def test_a_call_that_has_not_begun_is_withdrawn(backend: Backend, lock: Callable[[], FileLock]) -> None:
    others = lock()
    with anyio.move_on_after(0.02) as scope:
        await backend.insert([new("a")])
    others.close()
    await backend.insert([new("b")])

    assert scope.cancelled_caught
    assert {"b": S.PENDING} == await statuses(backend)


Gated = tuple[Backend, GatedClock]


@pytest.fixture
async def gated(kind: Kind, path: Path) -> AsyncIterator[Gated]:
    clock = GatedClock()
    made = kind.backend(path, clock=clock, durability="power")  # whose calls are all its thread's
    await made.open()
    yield made, clock
    await made.aclose()


async def cancelled_midway(gated: Gated, call: Callable[[], Awaitable[Any]]) -> bool:
    """Cancel a call when its step has begun; tell whether the cancellation came through."""
    _, clock = gated
    clock.is_asked.clear()
    clock.may_tell.clear()
    is_through = False

    async def body() -> None:
        nonlocal is_through
        try:
            await call()
        except anyio.get_cancelled_exc_class():
            is_through = True
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(body)
        await clock.wait_for_step()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            clock.may_tell.set()
    return is_through


async def test_a_call_that_has_begun_is_seen_through(gated: Gated) -> None:
    backend, _ = gated
    is_through = await cancelled_midway(gated, lambda: backend.insert([new("a")]))

    assert is_through
    assert {"a": S.PENDING} == await statuses(backend)


async def test_a_cancelled_claim_gives_back_what_it_took(gated: Gated) -> None:
    backend, _ = gated
    await backend.insert([new("a"), new("b")])
    is_through = await cancelled_midway(gated, lambda: backend.claim(attrs.evolve(ONE, limit=2)))
    heads = [record.head for record in await backend.find(Query())]

    assert is_through
    assert [(S.PENDING, 1, 0)] * 2 == [(head.status, head.lease, head.attempt) for head in heads]


async def test_a_cancelled_turn_keeps_what_it_settled_and_gives_back_what_it_took(gated: Gated) -> None:
    backend, _ = gated
    await backend.insert([new("a"), new("b")])
    (held,) = (await backend.claim(ONE)).records
    done = change(held.head, lifecycle.completed(held.head, 5), outcome=b"{}")
    is_through = await cancelled_midway(gated, lambda: backend.turn([done], ONE))

    assert is_through
    assert {"a": S.COMPLETED, "b": S.PENDING} == await statuses(backend)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_is_seen_through_too(gated: Gated) -> None:
    backend, clock = gated
    await backend.insert([new("a")])
    clock.is_asked.clear()
    clock.may_tell.clear()
    claim = asyncio.ensure_future(backend.claim(ONE))
    await clock.wait_for_step()
    for _ in range(3):
        claim.cancel()
        await asyncio.sleep(0.005)

    assert not claim.done()
    clock.may_tell.set()
    with pytest.raises(asyncio.CancelledError):
        await claim

    assert {"a": S.PENDING} == await statuses(backend)


# Closing


async def test_who_waits_at_closing_is_told(backend: Backend) -> None:
    async def wait() -> None:
        with pytest.raises(QueueClosed):
            await backend.wait("lane:default", 10**9, 60)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.01)
        await backend.aclose()


def threads_of(backend: Backend) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith(backend.url)]


async def test_closing_finishes_what_waits_and_leaves_no_thread(
    kind: Kind, path: Path, lock: Callable[[], FileLock]
) -> None:
    backend = kind.backend(path)
    await backend.open()
    others = lock()
    async with anyio.create_task_group() as group:
        group.start_soon(backend.insert, [new("a")])
        await anyio.sleep(0.02)
        group.start_soon(backend.aclose)
        group.start_soon(backend.aclose)
        await anyio.sleep(0.02)
        others.close()
    await backend.aclose()

    assert [] == [thread for thread in threading.enumerate() if thread.name.endswith(backend.url)]
    with pytest.raises(QueueClosed):
        await backend.open()
    again = kind.backend(path)
    await again.open()

    assert {"a": S.PENDING} == await statuses(again)
    await again.aclose()


async def test_closing_never_waits_longer_than_others_may_block(
    backend: Backend, lock: Callable[[], FileLock]
) -> None:
    others = lock()

    async def insert() -> None:
        with pytest.raises(StorageError):
            await backend.insert([new("a")])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(insert)
            await anyio.sleep(0.01)
            await backend.aclose()
    others.close()


def number_of_descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not tell."""
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0


async def test_a_handle_that_is_dropped_ends_its_thread(kind: Kind, path: Path) -> None:
    backend = kind.backend(path)
    await backend.open()
    thread = backend._open_writer()._thread
    descriptors = number_of_descriptors()
    del backend
    gc.collect()
    thread.join(5)

    assert not thread.is_alive()
    assert number_of_descriptors() < descriptors or not descriptors


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_a_handle_that_was_not_closed_keeps_no_process_alive(
    kind: Kind, path: Path, anyio_backend: str
) -> None:
    script = """
import anyio, sys
from jotty.core.queue import open_queue
queue = open_queue(sys.argv[1])
async def main():
    print((await queue.enqueue("goal")).status.value)
anyio.run(main, backend=sys.argv[2])
"""
    url = f"{kind.backend.scheme}:///{path}"

    assert "pending\n" == run_script(script, url, anyio_backend)
