"""How calls and handles of the SQLite backend end: cancelled, closed, dropped, forked."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty.core.queue import (
    MICROSECONDS,
    Change,
    ClaimRequest,
    Head,
    Query,
    Record,
    SystemClock,
    TaskStatus,
    lifecycle,
)
from jotty.errors import QueueClosed, StorageError
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from jotty_backends.sqlite.tables import Tables

pytestmark = pytest.mark.anyio

S = TaskStatus
SECOND = MICROSECONDS
HOUR = 3600 * SECOND
ONE = ClaimRequest(("default",), 1, "w", 30 * SECOND)


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


def completing(record: Record, now: int) -> Change:
    return Change(record.head.version, Record(lifecycle.completed(record.head, now), None, b"{}"))


def locked(path: Path) -> FileLock:
    """Return the lock beside a store, held as another process would hold it."""
    lock = FileLock(f"{path}-lock", lambda: None)

    assert lock.try_acquire()
    return lock


class GatedClock(SystemClock):
    """A clock that can keep the writer's thread waiting in the middle of a transaction."""

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


async def statuses(backend: SQLiteBackend) -> dict[str, S]:
    return {record.head.id: record.head.status for record in await backend.find(Query())}


# Cancellation


async def test_a_call_that_has_not_begun_is_withdrawn(backend: SQLiteBackend, path: Path) -> None:
    others = locked(path)
    with anyio.move_on_after(0.02) as scope:
        await backend.insert([new("a")])
    others.close()
    await backend.insert([new("b")])

    assert scope.cancelled_caught
    assert {"b": S.PENDING} == await statuses(backend)


@pytest.fixture
async def gated(path: Path) -> AsyncIterator[tuple[SQLiteBackend, GatedClock]]:
    clock = GatedClock()
    made = SQLiteBackend(path, clock=clock)
    await made.open()
    yield made, clock
    await made.aclose()


Gated = tuple[SQLiteBackend, GatedClock]


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
    is_through = await cancelled_midway(gated, lambda: backend.turn([completing(held, 5)], ONE))

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


async def test_who_waits_at_closing_is_told(backend: SQLiteBackend) -> None:
    async def wait() -> None:
        with pytest.raises(QueueClosed):
            await backend.wait("lane:default", 10**9, 60)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.01)
        await backend.aclose()


async def test_closing_finishes_what_waits_and_leaves_no_thread(path: Path) -> None:
    backend = SQLiteBackend(path)
    await backend.open()
    others = locked(path)
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
    with closing(sqlite3.connect(path)) as connection:
        assert [("a",)] == connection.execute("SELECT id FROM tasks").fetchall()


async def test_closing_never_waits_longer_than_others_may_block(backend: SQLiteBackend, path: Path) -> None:
    others = locked(path)

    async def insert() -> None:
        with pytest.raises(StorageError):
            await backend.insert([new("a")])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(insert)
            await anyio.sleep(0.01)
            await backend.aclose()
    others.close()


async def test_a_handle_that_is_dropped_ends_its_thread(path: Path) -> None:
    backend = SQLiteBackend(path)
    await backend.open()
    thread = backend._open_writer()._thread
    del backend
    gc.collect()
    thread.join(5)

    assert not thread.is_alive()


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=30, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_a_handle_that_was_not_closed_keeps_no_process_alive(path: Path, anyio_backend: str) -> None:
    script = """
import anyio, sys
from jotty.core.queue import SQLiteTaskQueue
queue = SQLiteTaskQueue(sys.argv[1])
async def main():
    print((await queue.enqueue("goal")).status.value)
anyio.run(main, backend=sys.argv[2])
"""

    assert "pending\n" == run_script(script, str(path), anyio_backend)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_is_told_and_harms_nobody(path: Path, anyio_backend: str) -> None:
    script = """
import anyio, fcntl, os, sys, warnings
from jotty.core.queue import SQLiteTaskQueue
from jotty.errors import StorageError
warnings.simplefilter("ignore", DeprecationWarning)
queue = SQLiteTaskQueue(sys.argv[1])
async def enqueue():
    await queue.enqueue("goal")
async def refused():
    another = SQLiteTaskQueue(sys.argv[1])
    calls = queue.enqueue("goal"), queue.stats(), queue.claim(worker="w", wait=1), another.enqueue("goal")
    for call in calls:
        try:
            await call
        except StorageError as error:
            print("fork" in error.problem)
    await queue.aclose()
    await another.aclose()
async def go_on():
    await queue.enqueue("goal")
    print((await queue.stats()).total["pending"])
    await queue.aclose()
async def anew():
    async with SQLiteTaskQueue(sys.argv[1]) as another:
        await another.enqueue("goal")
        print((await another.stats()).total["pending"])
def forked(main):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        anyio.run(main, backend=sys.argv[2])
        sys.exit(0)
    os.waitpid(child, 0)
anyio.run(enqueue, backend=sys.argv[2])
forked(refused)
anyio.run(go_on, backend=sys.argv[2])
forked(anew)
"""
    told = run_script(script, str(path), anyio_backend).split()

    assert ["True", "True", "True", "True", "2", "3"] == told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_does_not_keep_its_parents_lock(path: Path) -> None:
    lock = locked(path)
    ours, childs = socket.socketpair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        childs.send(b"x")
        childs.recv(1)
        os._exit(0)
    ours.recv(1)
    os.close(lock._descriptor)  # as the parent's death would, without unlocking
    lock._descriptor = -1
    other = FileLock(f"{path}-lock", lambda: None)
    is_free = other.try_acquire()
    ours.send(b"x")
    os.waitpid(child, 0)
    ours.close()
    childs.close()
    other.close()

    assert is_free


async def test_a_handle_whose_thread_could_not_go_on_works_again(path: Path) -> None:
    backend = SQLiteBackend(path)
    await backend.open()
    writer = backend._writer
    assert writer is not None

    def break_down(tables: Tables) -> None:
        tables.close()

    with pytest.raises(StorageError):
        await writer.take(break_down)
    with suppress(StorageError):  # the thread may be about to end
        await backend.count()

    assert await backend.count() == {}
    await backend.aclose()


async def test_a_lock_that_comes_when_nobody_needs_it_is_let_go(path: Path) -> None:
    """The write that asked for it was cancelled just before: an idle process must not keep the others out."""
    backend = SQLiteBackend(path)
    await backend.open()
    other = FileLock(f"{path}-lock", lambda: None)
    assert other.try_acquire()
    with anyio.move_on_after(0.05):
        await backend.append("no such task", 1, [b"{}"])
    other.release()

    with anyio.fail_after(5):
        while not other.try_acquire():  # noqa: ASYNC110 - it is another thread that is waited for
            await anyio.sleep(0.01)
    other.close()
    await backend.aclose()
