"""Killed at each point: what was acknowledged is there, and what was not is whole or absent."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest

from jotty.core.queue import (
    Change,
    ClaimRequest,
    Head,
    Query,
    QueueBackend,
    Record,
    TaskStatus,
    lifecycle,
    points,
)
from jotty.core.queue.record import change
from jotty.errors import QueueClosed
from jotty.testing import VirtualClock
from jotty_backends.file import POINTS, FileBackend, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

S = TaskStatus
ONE = ClaimRequest(("default",), 1, "w", 30_000_000)
Image = dict[str, tuple[Record, list[tuple[int, bytes]]]]


class Killed(BaseException):
    """What a point raises in place of a kill."""


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Have the points tell a listener; a thread that it kills dies in silence."""
    told = threading.excepthook
    threading.excepthook = lambda args: None if args.exc_type is Killed else told(args)
    points.listen(listener)
    try:
        yield
    finally:
        points.listen(None)
        threading.excepthook = told


async def image(backend: QueueBackend) -> Image:
    """Return all that a store holds."""
    records = await backend.find(Query(payload=True))
    return {record.head.id: (record, await backend.read(record.head.id)) for record in records}


async def held(backend: QueueBackend) -> Head:
    (record,) = await backend.find(Query(statuses={S.IN_PROGRESS}))
    return record.head


async def insert(backend: QueueBackend) -> None:
    child = Head(id="child", status=S.BLOCKED, depends_on=("first",))
    await backend.insert([Record(Head(id="first", key="k"), b"{}"), Record(child, b"\xff")])


async def claim(backend: QueueBackend) -> None:
    await backend.claim(ONE)


async def append(backend: QueueBackend) -> None:
    head = await held(backend)
    await backend.append(head.id, head.lease, [b'{"kind":"x"}', b"\n"])


async def release(backend: QueueBackend) -> None:
    head = await held(backend)
    moved = lifecycle.released(head, backend.now())
    await backend.swap([change(head, moved, outcome=b'{"error":1}', entries=[b"1"])])


async def complete(backend: QueueBackend) -> None:
    head = await held(backend)
    moved = lifecycle.completed(head, backend.now())
    await backend.turn([change(head, moved, outcome=b'{"result":1}')], attrs.evolve(ONE, limit=0))


async def delete(backend: QueueBackend) -> None:
    (record,) = await backend.find(Query(statuses={S.COMPLETED}))
    await backend.delete([(record.head.id, record.head.version)])


async def cancel_and_compact(backend: QueueBackend) -> None:
    """A snapshot follows, since the log is longer than it may be."""
    (record,) = await backend.find(Query(statuses={S.BLOCKED}))
    moved = lifecycle.cancelled(record.head, backend.now())

    assert moved
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_SMALL", 0)
        await backend.swap([Change(record.head.version, Record(moved))])
        while has_chore(backend):  # noqa: ASYNC110 - it is another thread that is waited for
            await anyio.sleep(0.001)


def has_chore(backend: QueueBackend) -> bool:
    assert isinstance(backend, FileBackend)
    session = backend._writer._session if backend._writer else None
    return session is not None and session.has_chore()


async def insert_more(backend: QueueBackend) -> None:
    await backend.insert([Record(Head(id="more"), b"{}")])


STEPS = [insert, claim, append, release, claim, complete, delete, cancel_and_compact, insert_more]


class Kill:
    """Notes each point that is reached, and kills at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.reached: list[str] = []
        self.has_killed = False
        self._at = at

    def __call__(self, point: str) -> None:
        if self.has_killed:
            raise Killed
        if len(self.reached) == self._at:
            self.has_killed = True
            raise Killed
        self.reached.append(point)


async def run(path: Path, kill: Kill) -> list[Image]:
    """Take the steps up to the kill; return what the store held before each of them, and after the last."""
    backend = FileBackend(path, clock=VirtualClock(), durability="power")
    images: list[Image] = [{}]
    with listening(kill):
        try:
            await backend.open()
            for step in STEPS:
                await step(backend)
                if not kill.has_killed:
                    images.append(await image(backend))
        except QueueClosed:
            assert kill.has_killed
        await backend.aclose()
    return images


async def test_every_point_is_one_of_those_listed_and_is_reached(tmp_path: Path) -> None:
    kill = Kill()
    await run(tmp_path / "tasks", kill)
    at_damage = {"file.cut.before", "file.cut.after", "file.rmdir.before", "file.rmdir.after"}

    assert sorted(POINTS) == list(POINTS)
    assert set(POINTS) - at_damage == set(kill.reached)


async def test_a_kill_leaves_each_step_whole_or_absent_and_loses_nothing(tmp_path: Path) -> None:
    reference = Kill()
    images = await run(tmp_path / "reference", reference)
    outcomes: Counter[str] = Counter()
    for at in range(len(reference.reached)):
        path = tmp_path / f"at-{at}"
        done = len(await run(path, Kill(at))) - 1
        backend = FileBackend(path, clock=VirtualClock(), durability="power")
        await backend.open()
        found = await image(backend)
        await backend.insert([Record(Head(id="last"), b"{}")])
        again = await image(backend)
        await backend.aclose()

        assert found in images[done : done + 2], f"after {done} steps, killed at {reference.reached[at]}"
        assert len(found) + 1 == len(again)
        outcomes["absent" if found == images[done] else "whole"] += 1

    assert min(outcomes["absent"], outcomes["whole"]) > 10
