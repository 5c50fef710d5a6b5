"""Power lost, and an fsync refused, at every place: what is acknowledged stays."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.core.queue import ClaimRequest, Head, Query, Record, TaskStatus, lifecycle
from jotty.core.queue.record import change
from jotty.errors import StorageError
from jotty_backends.file import FileBackend, log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from jotty.core.queue import Durability

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not say what is synced"),
]

S = TaskStatus
ONE = ClaimRequest(("default",), 1, "w", 30_000_000)
Inode = int


class Disk:
    """What the files held when they were last synced, as the worst of disks would keep it.

    A file whose sync failed never comes to it any more, whatever later syncs say: so do systems that take a
    page for written though it is not.
    """

    def __init__(self) -> None:
        self.files: dict[Inode, bytes] = {}
        self.directories: dict[Inode, dict[str, Inode]] = {}
        self.synced: list[str] = []
        self.fails: Callable[[str], bool] = lambda _: False
        self._spoilt: set[Inode] = set()
        self._guard = threading.Lock()
        self._kept_open: list[int] = []  # or their numbers would be given to others

    def fsync(self, descriptor: int) -> None:
        """Take the place of the system's."""
        here, status = Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
        name = str(here.readlink())
        with self._guard:
            self._kept_open.append(os.dup(descriptor))
            self.synced.append(name)
            if self.fails(name):
                self._spoilt.add(status.st_ino)
                raise OSError(errno.EIO, "the disk is broken")
            if stat.S_ISDIR(status.st_mode):
                self.directories[status.st_ino] = {at.name: at.lstat().st_ino for at in here.iterdir()}
            elif status.st_ino not in self._spoilt:
                self.files[status.st_ino] = here.read_bytes()

    def restore(self, path: Path, target: Path) -> None:
        """Make a directory as it would be after the loss of power."""
        parent = self.directories.get(path.parent.stat().st_ino, {})

        assert path.stat().st_ino == parent.get(path.name)
        self._restore(path.stat().st_ino, target)

    def _restore(self, inode: Inode, target: Path) -> None:
        target.mkdir(mode=0o700)
        for name, child in self.directories.get(inode, {}).items():
            if child in self.directories:
                self._restore(child, target / name)
            elif name != "tasks":  # an empty directory, of which nothing is known
                (target / name).write_bytes(self.files.get(child, b""))

    def close(self) -> None:
        for descriptor in self._kept_open:
            os.close(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(os, "fsync", made.fsync)
    yield made
    made.close()


def new(task_id: str, payload: bytes = b"{}") -> Record:
    return Record(Head(id=task_id), payload)


async def opened(path: Path, durability: Durability = "power") -> FileBackend:
    backend = FileBackend(path, durability=durability)
    await backend.open()
    return backend


async def image(path: Path) -> dict[str, tuple[Record, int]]:
    """Return the tasks of a store, and how long their journals are."""
    backend = await opened(path)
    records = await backend.find(Query(payload=True))
    found = {one.head.id: (one, len(await backend.read(one.head.id))) for one in records}
    await backend.aclose()
    return found


async def write_snapshot(backend: FileBackend) -> None:
    """Have one written; it is another thread that is waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_SMALL", -(10**9))
        await backend.announce("who writes", b"{}", 1)
        while (session := backend._open_writer()._session) and session.has_chore():  # noqa: ASYNC110 - as above
            await anyio.sleep(0.001)


# A snapshot


async def test_a_snapshot_is_on_the_disk_before_what_it_replaces_is_gone(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "tasks"
    backend = await opened(path, "process")
    await backend.insert([new(f"task {at}") for at in range(9)])
    await write_snapshot(backend)
    await backend.aclose()
    expected = [f"task {at}" for at in range(9)]
    disk.restore(path, tmp_path / "as last synced")
    for file in filter(Path.is_file, path.rglob("*")):  # the names came to the disk, what they hold did not
        file.write_bytes(disk.files.get(file.stat().st_ino, b""))
    for after in (path, tmp_path / "as last synced"):
        restored = await opened(after)

        assert expected == [one.head.id for one in await restored.find(Query())]
        await restored.aclose()


async def test_a_large_snapshot_is_synced_in_pieces(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody waits long for the last of them, which has the lock."""
    monkeypatch.setattr("jotty_backends.file.snapshot._PIECE", 10_000)
    backend = await opened(tmp_path / "tasks", "process")
    await backend.insert([new(f"task {at}") for at in range(1000)])
    disk.synced.clear()
    await write_snapshot(backend)
    await backend.aclose()

    assert 4 < sum(name.endswith("snapshot.new") for name in disk.synced) < 50


# A sync that fails


class Scenario:
    """Calls of all kinds, and what was acknowledged of them."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.completed: set[str] = set()
        self.refusals = 0
        self.causes: set[type[object]] = set()

    async def run(self, backend: FileBackend, prefix: str) -> None:
        for step in (self._insert_two, self._complete, self._snapshot, self._insert_two):
            await self._is_done(step(backend, prefix))
            prefix += "+"

    async def _is_done(self, call: Awaitable[object]) -> bool:
        try:
            await call
        except StorageError as refusal:
            self.refusals += 1
            self.causes.add(type(refusal.__cause__))
            return False
        return True

    async def _try(self, call: Awaitable[object], task_id: str) -> None:
        if await self._is_done(call):
            self.acknowledged.add(task_id)

    async def _insert_two(self, backend: FileBackend, prefix: str) -> None:
        await backend.open()
        async with anyio.create_task_group() as group:
            for at in range(2):
                task_id = f"{prefix}{at}"
                group.start_soon(self._try, backend.insert([new(task_id)]), task_id)

    async def _complete(self, backend: FileBackend, prefix: str) -> None:
        del prefix
        for record in (await backend.claim(ONE)).records:
            await backend.append(record.head.id, record.head.lease, [b'{"kind":"x"}'])
            moved = lifecycle.completed(record.head, backend.now())
            await backend.swap([change(record.head, moved, outcome=b"{}")])
            self.completed.add(record.head.id)

    async def _snapshot(self, backend: FileBackend, prefix: str) -> None:
        del prefix
        await write_snapshot(backend)


async def run(path: Path, disk: Disk, at: int, *, is_another: bool) -> Scenario:
    """Run the scenario, of which one sync fails, and go on with the same handle, or with another."""
    scenario = Scenario()
    disk.synced.clear()
    disk.fails = lambda _: at == len(disk.synced) - 1
    backend = FileBackend(path, durability="power")
    await scenario.run(backend, "a")
    if is_another:
        await backend.aclose()
        backend = FileBackend(path, durability="power")
    await scenario.run(backend, "b")
    await backend.aclose()
    return scenario


@pytest.mark.parametrize("is_another", [False, True], ids=["same handle", "another handle"])
async def test_whatever_sync_fails_all_that_is_acknowledged_survives_the_loss_of_power(
    tmp_path: Path, disk: Disk, *, is_another: bool
) -> None:
    refusals = Counter[int]()
    for at in count():
        path = tmp_path / f"at-{at}"
        scenario = await run(path, disk, at, is_another=is_another)
        if at >= len(disk.synced):
            break
        failed = disk.synced[at]
        disk.restore(path, tmp_path / f"at-{at}-restored")
        found = await image(tmp_path / f"at-{at}-restored")

        assert scenario.acknowledged <= found.keys(), f"{failed} could not be synced"
        assert {b"{}"} == {record.payload for record, _ in found.values()}, failed
        for task_id in scenario.completed:
            record, entries = found[task_id]

            assert (S.COMPLETED, b"{}", 2) == (record.head.status, record.outcome, entries), failed
        assert scenario.causes <= {OSError}
        refusals[min(scenario.refusals, 2)] += 1

    assert refusals.total() > 40
    assert min(refusals[1], refusals[2]) > 0


async def test_a_claim_whose_sync_was_refused_is_given_back(tmp_path: Path, disk: Disk) -> None:
    """Nobody has been given the task; it must not wait for its lease, nor lose an attempt."""
    path = tmp_path / "tasks"
    backend = await opened(path)
    await backend.insert([Record(Head(id="task", max_attempts=1), b"{}")])
    refused = iter([True])
    disk.fails = lambda name: name.endswith("tasks.log") and next(refused, False)
    with pytest.raises(StorageError):
        await backend.claim(ClaimRequest(("default",), 1, "w", 30_000_000))
    claimed = await backend.claim(ClaimRequest(("default",), 1, "v", 30_000_000))
    await backend.aclose()

    (again,) = claimed.records
    assert (1, 2) == (again.head.attempt, again.head.lease)
