"""Does a claim cost more where more is queued, finished, or scheduled for later?"""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.measuring import Contender
from benchmarks.peers import GOAL
from benchmarks.reporting import Answer, Group, Target, compare
from benchmarks.shapes import IN_FLIGHT, WORKER, turn
from jotty.core.queue import MICROSECONDS, Head, Record, TaskStatus
from jotty.core.queue.settlement import release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.reporting import Table
    from benchmarks.setting import Setting
    from jotty.core.queue import Task, TaskQueue

__all__ = ["ask"]

SCHEMES: Final = ("sqlite", "memory", "file")
DAY: Final = 86_400 * MICROSECONDS
LEASE: Final = 3600.0
PAGE: Final = 1000
MORE_ROUNDS: Final = 4  # a sample takes milliseconds only
BOUND: Final = 1.2
PAYLOAD: Final = f'{{"goal":"{GOAL}"}}'.encode()
OUTCOME: Final = b'{"result":"done"}'


async def ask(setting: Setting) -> Answer:
    """Fill several stores of each kind, then claim from them in turns."""
    tables, targets = [], []
    for scheme in setting.installed(SCHEMES):
        depth = setting.effort.depth if scheme == "sqlite" else setting.effort.depth_in_memory
        async with AsyncExitStack() as stack:
            stores = await _stores(setting, stack, scheme, depth)
            gc.freeze()  # or each collection would walk through millions of tasks
            stack.callback(gc.unfreeze)
            found = await compare(
                _groups(scheme, stores, depth), setting.effort.rounds * MORE_ROUNDS, setting.say
            )
        tables += found
        targets += [_target(table) for table in found]
        del stores
    return Answer(tables, targets)


async def _stores(setting: Setting, stack: AsyncExitStack, scheme: str, depth: int) -> dict[str, TaskQueue]:
    """Return queues by what is in them; beside what is queued, but for the first, the depth twice over."""
    levels = dict.fromkeys(max(queued, IN_FLIGHT) for queued in (depth // 1000, depth // 10, depth))
    stores = {}
    for queued, beside in [(min(levels), 0), *((queued, depth) for queued in levels)]:
        name = f"{queued:,} queued" if beside else f"{queued:,} queued, nothing beside"
        setting.say(f"filling a store of {scheme}: {name}")
        queue = await stack.enter_async_context(setting.queue(scheme))
        has_contents = scheme != "file"  # where two million of them are as many files
        await _fill(queue, _finished, beside, has_contents=has_contents)
        await _fill(queue, _scheduled, beside, has_contents=has_contents)
        await _fill(queue, _queued, queued)
        stores[name] = queue
    return stores


async def _fill(
    queue: TaskQueue, make: Callable[[int, int], Record], number: int, *, has_contents: bool = True
) -> None:
    await queue.stats()  # opens it
    now = queue.backend.now()
    for first in range(0, number, PAGE):
        records = [make(at, now) for at in range(first, min(first + PAGE, number))]
        if not has_contents:
            records = [Record(record.head) for record in records]
        await queue.backend.insert(records)


def _id(kind: int, number: int) -> str:
    return f"00000000-0000-7000-{kind:04x}-{number:012x}"


def _finished(number: int, now: int) -> Record:
    at = now - DAY + number
    head = Head(
        id=_id(1, number),
        priority=1 + number % 5,
        status=TaskStatus.COMPLETED,
        run_at=at,
        created_at=at,
        started_at=at,
        finished_at=at,
        lease=1,
        attempt=1,
        worker=WORKER,
        version=3,
    )
    return Record(head, PAYLOAD, OUTCOME)


def _scheduled(number: int, now: int) -> Record:
    return Record(Head(id=_id(2, number), priority=1 + number % 5, run_at=now + DAY + number), PAYLOAD)


def _queued(number: int, now: int) -> Record:
    return Record(Head(id=_id(3, number), priority=1 + number % 5, run_at=now - DAY + number), PAYLOAD)


@attrs.frozen
class _Claims:
    """Claims from one store; what a sample took is given back before the next."""

    queue: TaskQueue
    held: list[Task] = attrs.field(factory=list)

    async def one_by_one(self, tasks: int) -> None:
        for _ in range(tasks):
            (task,) = await self.queue.claim(worker=WORKER, lease_timeout=LEASE)
            self.held.append(task)

    async def at_once(self, tasks: int) -> None:
        self.held.extend((await turn(self.queue, (), tasks)).claimed)

    async def give_back(self, _: int) -> None:
        await turn(self.queue, [release(task) for task in self.held], 0)
        self.held.clear()


def _groups(scheme: str, stores: dict[str, TaskQueue], depth: int) -> list[Group]:
    claims = {name: _Claims(queue) for name, queue in stores.items()}
    beside = f"{depth:,} finished, {depth:,} scheduled"
    peers = {"x least": list(stores)[1]}
    return [
        Group(f"{shape}, {scheme}, beside {beside}", dict(contenders), peers, "time")
        for shape, contenders in _shapes(claims)
    ]


def _shapes(claims: dict[str, _Claims]) -> Iterator[tuple[str, Iterator[tuple[str, Contender]]]]:
    yield (
        "Claim 1",
        ((name, Contender(one.one_by_one, IN_FLIGHT, one.give_back)) for name, one in claims.items()),
    )
    yield (
        f"Claim {IN_FLIGHT} in one step",
        ((name, Contender(one.at_once, IN_FLIGHT, one.give_back)) for name, one in claims.items()),
    )


def _target(table: Table) -> Target:
    _, least, *_, most = table.rows
    shape, scheme, *_ = table.title.split(", ")
    text = f"{scheme}: {shape.lower()}, {most}: time beside {least}"
    return Target(text, BOUND, table.ratio(most, least), is_least=False)
