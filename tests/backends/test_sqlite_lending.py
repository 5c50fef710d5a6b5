"""A few brief calls are served on the event loop itself, to which the thread lends its connection."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.core.queue import Head, Record
from jotty.errors import StorageError
from jotty_backends.sqlite import SQLiteBackend, writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jotty.core.queue import Durability
    from jotty_backends.sqlite.tables import Tables

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test itself has to wait for a processor makes no store slow."""
    monkeypatch.setattr(writer, "_SLOW", 0.5)


def is_here(_: Tables) -> bool:
    """Whether the step is taken in the thread of the test, which is that of its event loop."""
    return threading.current_thread() is threading.main_thread()


def new(task_id: str) -> Record:
    return Record(Head(id=task_id), b"{}")


async def settled(backend: SQLiteBackend) -> None:
    """Return once the thread is idle."""
    await anyio.sleep(0.01)
    with backend._open_writer()._using:
        pass


async def served_here(backend: SQLiteBackend, calls: int, *, of: int = 1) -> list[bool]:
    """Make calls at the same time; tell which of them were served on the event loop."""
    await settled(backend)
    where = []

    async def call() -> None:
        where.append(await backend._write(is_here, of=of))

    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(call)
    return where


async def test_a_few_brief_calls_are_served_on_the_event_loop(backend: SQLiteBackend) -> None:
    assert [True] == await served_here(backend, 1)
    assert [True] * 4 == await served_here(backend, 4)


async def test_many_calls_and_great_ones_are_the_threads(backend: SQLiteBackend) -> None:
    assert [False] * 100 == await served_here(backend, 100)
    assert [False] == await served_here(backend, 1, of=100)


@pytest.mark.parametrize(("durability", "is_lent"), [("process", True), ("power", False)])
async def test_what_waits_for_the_disk_is_the_threads(
    path: Path, durability: Durability, *, is_lent: bool
) -> None:
    backend = SQLiteBackend(path, durability=durability)
    await backend.open()
    where = await served_here(backend, 1)
    await backend.aclose()

    assert [is_lent] == where


async def test_a_store_that_is_slow_is_left_to_the_thread_for_a_while(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SLOW", 0.02)
    monkeypatch.setattr(writer, "_REST", 2)
    await settled(backend)
    await backend._write(lambda _: time.sleep(0.3), of=1)
    soon = await served_here(backend, 1)
    await anyio.sleep(0.7)
    later = await served_here(backend, 1)

    assert [False] == soon
    assert [True] == later


async def test_the_thread_takes_its_turn_to_wait_for_checkpoints(backend: SQLiteBackend) -> None:
    where = [await backend._write(is_here, of=1) for _ in range(1000)]

    assert where.count(False) >= 4


async def test_a_call_of_another_thread_waits_for_the_connection(backend: SQLiteBackend) -> None:
    """The connection has one user at a time, though it may be another at each."""
    users: list[int] = []
    most = 0

    def use(_: Tables) -> None:
        nonlocal most
        users.append(1)
        most = max(most, len(users))
        time.sleep(0.0005)
        users.pop()

    async def lone() -> None:
        for _ in range(30):
            await backend._write(use, of=1)

    async def great() -> None:
        for _ in range(30):
            await backend._write(use, of=100)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(lone))
        group.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(great))
        group.start_soon(lone)

    assert 1 == most


@pytest.mark.parametrize("at", ["in the step", "after the step"])
def test_ctrl_c_during_a_call_on_the_event_loop_leaves_the_store_whole(path: Path, at: str) -> None:
    """The handle, of another loop by then, opens the store anew; the call has had its effect or none."""
    backend = SQLiteBackend(path)

    def interrupted(tables: Tables) -> None:
        if at == "after the step":
            tables.insert([new("b")])
        raise KeyboardInterrupt

    async def first() -> None:
        await backend.open()
        await backend.insert([new("a")])
        await settled(backend)
        await backend._write(interrupted, of=1)

    async def second() -> list[Record | None]:
        await backend.insert([new("c")])
        found = await backend.get(["a", "b", "c"])
        await backend.aclose()
        return found

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    found = [record and record.head.id for record in _eventually(lambda: asyncio.run(second()))]

    assert ["a", None, "c"] == found


def _eventually(call: Callable[[], list[Record | None]]) -> list[Record | None]:
    """Call again for as long as the interrupted thread has not ended."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return call()
        except StorageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
