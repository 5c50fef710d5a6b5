"""How far a running task has come is found at its journal's end, in few reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty import MemoryTaskQueue
from jotty.cli.advance import MOST, PAGE, PAGES, progress_of, running_of
from jotty.testing import BackendProxy, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

pytestmark = pytest.mark.anyio


class Counting(BackendProxy):
    """Counts the reads of journals."""

    reads = 0

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.reads += name == "read"
        return await call()


async def found_in(entries: Sequence[bool]) -> tuple[tuple[int, int] | None, int]:
    """Return what is found in a journal, of whose entries some tell of it, and in how many reads."""
    async with MemoryTaskQueue(clock=VirtualClock()) as queue:
        task = await queue.enqueue("goal")
        (held,) = await queue.claim(worker="w")
        told = [
            {"kind": "step", "of": [at, 10_000]} if tells else {"kind": "event", "event": {"text": '"of"'}}
            for at, tells in enumerate(entries)
        ]
        for at in range(0, len(told), 500):
            await queue.record(held, told[at : at + 500])
        backend = Counting(queue.backend)
        return await progress_of(backend, task.id), backend.reads


@given(st.lists(st.booleans(), max_size=300))
@settings(max_examples=60, deadline=None)
def test_the_last_that_was_told_is_found(entries: list[bool]) -> None:
    last = max((at for at, tells in enumerate(entries) if tells), default=None)

    found, _ = anyio.run(found_in, entries)

    assert (None if last is None else (last, 10_000)) == found


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 5000])
async def test_a_long_journal_takes_few_reads(size: int) -> None:
    found, reads = await found_in([*([False] * (size - 1)), True][:size])

    assert (None if not size else (size - 1, 10_000)) == found
    assert reads <= 2 * size.bit_length() + 2


async def test_what_was_told_too_long_ago_is_not_looked_for() -> None:
    entries = [True, *[False] * (PAGE * PAGES)]

    found, reads = await found_in(entries)

    assert None is found
    assert reads <= 2 * len(entries).bit_length() + 2 + PAGES


async def test_a_task_that_is_gone_has_no_progress() -> None:
    async with MemoryTaskQueue(clock=VirtualClock()) as queue:
        assert None is await progress_of(queue.backend, "nobody")


async def test_of_many_tasks_only_the_first_are_looked_into() -> None:
    async with MemoryTaskQueue(clock=VirtualClock()) as queue:
        heads = [(await queue.enqueue(str(at))).head for at in range(MOST + 5)]

        found = await running_of(queue.backend, heads)

    assert [head.id for head in heads[:MOST]] == [each.id for each in found]
