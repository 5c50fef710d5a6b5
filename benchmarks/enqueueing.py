"""What does it cost to enqueue, waiting alone, waiting together, and in bulk?"""

from __future__ import annotations

from contextlib import AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring import Contender
from benchmarks.peers import LEVELS, Huey, MinimalSQLite, RawFiles, RawSQLite, has_huey
from benchmarks.reporting import Answer, Group, Target, compare
from benchmarks.shapes import (
    IN_FLIGHT,
    enqueued_by_many_callers,
    enqueued_in_bulk,
    enqueued_one_by_one,
)

if TYPE_CHECKING:
    from benchmarks.peers import Peer
    from benchmarks.reporting import Table
    from benchmarks.setting import Setting
    from jotty.core.queue import Durability

__all__ = ["ask"]

RAW: Final = "raw sqlite3, a transaction each"
FILES: Final = "raw files"
HUEY: Final = "huey"
PEERS: Final = {"x raw": RAW, "x files": FILES, "x huey": HUEY}
TOGETHER: Final = f"{IN_FLIGHT} waiting"


async def ask(setting: Setting) -> Answer:
    """Measure both durabilities and memory in the same rounds."""
    async with AsyncExitStack() as stack:
        groups = [
            Group(
                f"Enqueue, {LEVELS[durability]}",
                {**_peers(setting, stack, durability), **await _queues(setting, stack, durability)},
                PEERS,
            )
            for durability in LEVELS
        ]
        tables = await compare(groups, setting.effort.rounds, setting.say)
    return Answer(tables, _targets(tables))


def _peers(setting: Setting, stack: AsyncExitStack, durability: Durability) -> dict[str, Contender]:
    peers: dict[str, Peer[Any]] = {}
    is_memory = durability == "none"
    if not is_memory:
        peers[RAW] = RawSQLite(setting.path("raw"), durability)
        peers["raw sqlite3, minimal"] = MinimalSQLite(setting.path("minimal"), durability)
        peers[FILES] = RawFiles(setting.path("files"), durability)
    if has_huey():
        peers[HUEY] = Huey(None if is_memory else setting.path("huey"), durability)
    tasks = setting.effort.single if durability == "power" else setting.effort.tasks
    return {
        name: Contender(partial(_enqueue, stack.enter_context(closing(peer))), tasks)
        for name, peer in peers.items()
    }


async def _enqueue(peer: Peer[Any], tasks: int) -> None:
    for _ in range(tasks):
        peer.enqueue()


async def _queues(setting: Setting, stack: AsyncExitStack, durability: Durability) -> dict[str, Contender]:
    many = setting.effort.tasks
    shapes = {
        "1 waiting": (enqueued_one_by_one, setting.effort.single),
        TOGETHER: (enqueued_by_many_callers, many),
        f"{many} in bulk": (enqueued_in_bulk, many),
    }
    schemes = ["memory"] if durability == "none" else setting.installed(["sqlite", "file"])
    contenders = {}
    for scheme in schemes:
        for shape, (work, tasks) in shapes.items():
            queue = await stack.enter_async_context(setting.queue(scheme, durability))
            contenders[f"jotty {scheme}, {shape}"] = Contender(partial(work, queue), tasks)
    return contenders


def _targets(tables: list[Table]) -> list[Target]:
    sqlite = f"jotty sqlite, {TOGETHER}"
    return [
        Target(f"{sqlite}: speed beside {RAW}, {level!r}", 2, table.ratio(sqlite, RAW))
        for level, table in zip(("process", "power"), tables, strict=False)
    ]
