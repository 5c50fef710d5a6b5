"""How much of the graph is measured, and where."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measuring import Say

__all__ = ["SIZES", "Setting", "Size"]


@attrs.frozen(kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: How often each contender has its turn.
        nodes: How many nodes a graph has, or turns a loop.
        width: How many nodes stand side by side in a layer.
        runs: How many durable runs go on at once.
        steps: How many steps each of these has.
        pauses: How many pauses the longer of two branches consists of.
        pause: How many seconds each of them takes.
    """

    rounds: int
    nodes: int
    width: int
    runs: int
    steps: int
    pauses: int
    pause: float


SIZES: Final = {
    "full": Size(rounds=15, nodes=1000, width=100, runs=100, steps=20, pauses=20, pause=0.025),
    "quick": Size(rounds=3, nodes=1000, width=100, runs=100, steps=20, pauses=20, pause=0.025),
    "smoke": Size(rounds=1, nodes=30, width=10, runs=3, steps=3, pauses=3, pause=0.001),
}


@attrs.frozen
class Setting:
    """Where a benchmark runs, and how much of it.

    Attributes:
        directory: For the stores; gone afterwards.
        size: How much is measured.
        say: Tells of the progress.
    """

    directory: Path
    size: Size
    say: Say
    _numbers: count[int] = attrs.field(factory=count, init=False)

    def path(self, name: str) -> Path:
        """Return a path where nothing is yet."""
        return self.directory / f"{next(self._numbers)}-{name}"
