"""What does a task cost from enqueue to completion, beside raw loops and huey?"""

from __future__ import annotations

from contextlib import AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring import Contender
from benchmarks.peers import LEVELS, Huey, MinimalSQLite, RawFiles, RawSQLite, has_huey, in_turn
from benchmarks.reporting import Answer, Group, Target, compare
from benchmarks.shapes import IN_FLIGHT, as_worker, by_many_callers, one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers import Peer
    from benchmarks.reporting import Table
    from benchmarks.setting import Setting
    from jotty.core.queue import Durability

__all__ = ["ask"]

RAW: Final = "raw sqlite3"
MINIMAL: Final = "raw sqlite3, minimal"
FILES: Final = "raw files"
HUEY: Final = "huey"
PEERS: Final = {"x raw": RAW, "x files": FILES, "x huey": HUEY}
SINGLE: Final = {"": one_by_one}
MANY: Final = {", as a worker": as_worker, f", {IN_FLIGHT} callers": by_many_callers}


async def ask(setting: Setting) -> Answer:
    """Measure everything in the same rounds: both durabilities and memory, 1 and 100 in flight."""
    async with AsyncExitStack() as stack:
        groups = [
            await _group(setting, stack, durability, in_flight)
            for durability in LEVELS
            for in_flight in (1, IN_FLIGHT)
        ]
        tables = await compare(groups, setting.effort.rounds, setting.say)
    return Answer(tables, _targets(tables))


async def _group(setting: Setting, stack: AsyncExitStack, durability: Durability, in_flight: int) -> Group:
    tasks = setting.effort.tasks if in_flight > 1 else setting.effort.single
    if durability == "power":
        tasks = max(setting.effort.single, in_flight)
    contenders = {
        name: Contender(partial(in_turn, stack.enter_context(closing(make())), in_flight), tasks)
        for name, make in _peers(setting, durability).items()
    }
    schemes = ["memory"] if durability == "none" else setting.installed(["sqlite", "file"])
    for scheme in schemes:
        for shape, work in (MANY if in_flight > 1 else SINGLE).items():
            queue = await stack.enter_async_context(setting.queue(scheme, durability))
            contenders[f"jotty {scheme}{shape}"] = Contender(partial(work, queue), tasks)
    return Group(f"Life cycle, {LEVELS[durability]}, {in_flight} in flight", contenders, PEERS)


def _peers(setting: Setting, durability: Durability) -> dict[str, Callable[[], Peer[Any]]]:
    is_memory = durability == "none"
    peers: dict[str, Callable[[], Peer[Any]]] = {}
    if not is_memory:
        peers[RAW] = lambda: RawSQLite(setting.path("raw"), durability)
        peers[MINIMAL] = lambda: MinimalSQLite(setting.path("minimal"), durability)
        peers[FILES] = lambda: RawFiles(setting.path("files"), durability)
    if has_huey():
        peers[HUEY] = lambda: Huey(None if is_memory else setting.path("huey"), durability)
    return peers


def _targets(tables: list[Table]) -> list[Target]:
    _, process, _, power, _, memory = tables
    targets = []
    for shape in MANY:
        sqlite, in_memory = f"jotty sqlite{shape}", f"jotty memory{shape}"
        targets += [
            Target(f"{sqlite}: speed beside {RAW}, 'process'", 2, process.ratio(sqlite, RAW)),
            Target(f"{sqlite}: speed beside {HUEY}, 'power'", 10, power.ratio(sqlite, HUEY)),
            Target(f"{in_memory}: speed beside {HUEY}", 4, memory.ratio(in_memory, HUEY)),
        ]
    return sorted(targets, key=lambda target: target.bound)
