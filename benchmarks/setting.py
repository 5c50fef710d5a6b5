"""Where a benchmark runs, and how much of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs

from jotty.core.queue import load_backend, open_queue
from jotty.errors import BackendNotFound, MissingDependency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from benchmarks.measuring import Say
    from jotty.core.queue import Durability, TaskQueue

__all__ = ["EFFORTS", "Effort", "Setting"]


@attrs.frozen(kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often each contender has its turn.
        tasks: How many tasks a sample has where many are under way at once.
        single: How many it has where they go one by one, or wait for the disk.
        drained: How many a worker has to drain.
        depth: How many tasks are queued at most, beside as many finished and as many scheduled.
        depth_in_memory: The same for the stores that keep the heads of their tasks in memory.
        pings: How many starts are timed.
        idle: How many seconds an idle worker is watched.
    """

    rounds: int
    tasks: int
    single: int
    drained: int
    depth: int
    depth_in_memory: int
    pings: int
    idle: int


EFFORTS: Final = {
    "full": Effort(
        rounds=15,
        tasks=1000,
        single=300,
        drained=3000,
        depth=1_000_000,
        depth_in_memory=100_000,
        pings=300,
        idle=10,
    ),
    "quick": Effort(
        rounds=3, tasks=500, single=50, drained=1000, depth=100_000, depth_in_memory=10_000, pings=30, idle=2
    ),
    "smoke": Effort(
        rounds=1, tasks=100, single=10, drained=100, depth=1000, depth_in_memory=200, pings=3, idle=1
    ),
}


@attrs.frozen
class Setting:
    """Where a benchmark runs, and how much of it.

    Attributes:
        directory: For the stores; gone afterwards.
        effort: How much is measured.
        say: Tells of the progress.
    """

    directory: Path
    effort: Effort
    say: Say
    _numbers: count[int] = attrs.field(factory=count, init=False)

    def path(self, name: str) -> Path:
        """Return a path where nothing is yet."""
        return self.directory / f"{next(self._numbers)}-{name}"

    def url(self, scheme: str, durability: Durability = "process") -> str:
        """Return the URL of a store that is not there yet."""
        if scheme == "memory":
            return "memory:"
        return f"{scheme}:///{self.path(scheme).as_posix()}?durability={durability}"

    @asynccontextmanager
    async def queue(self, scheme: str, durability: Durability = "process") -> AsyncIterator[TaskQueue]:
        """Open a queue in a store of its own."""
        async with open_queue(self.url(scheme, durability)) as queue:
            yield queue

    def installed(self, schemes: Sequence[str]) -> list[str]:
        """Return those of the backends that there are."""
        return [scheme for scheme in schemes if self._has(scheme)]

    def _has(self, scheme: str) -> bool:
        try:
            load_backend(scheme)
        except (BackendNotFound, MissingDependency):
            self.say(f"left out: there is no backend {scheme!r} here")
            return False
        return True
