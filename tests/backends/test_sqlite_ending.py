"""How handles of the SQLite backend end: forked, or broken."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from jotty.errors import StorageError
from jotty_backends.file_lock import FileLock
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from pathlib import Path

    from jotty_backends.sqlite.tables import Tables

pytestmark = pytest.mark.anyio


def locked(path: Path) -> FileLock:
    """Return the lock beside a store, held as another process would hold it."""
    lock = FileLock(f"{path}-lock", lambda: None)

    assert lock.try_acquire()
    return lock


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=30, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


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
