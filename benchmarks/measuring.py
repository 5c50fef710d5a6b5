"""Taking turns, and what came of it: medians, spread, ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Contender", "Figures", "Say", "Work", "take_turns"]

MICROSECONDS = 1_000_000
ORDER = 20  # seeds the order of the turns, so that two runs take the same

Work = Callable[[int], Awaitable[object]]
Say = Callable[[str], None]


@attrs.frozen
class Contender:
    """One way of doing the work.

    Attributes:
        work: Does so many tasks; what is measured.
        tasks: How many a sample has.
        prepare: Called with the same number before each sample, unmeasured.
    """

    work: Work
    tasks: int
    prepare: Work | None = None

    async def sample(self) -> float:
        """Do the work once, and return microseconds a task."""
        if self.prepare:
            await self.prepare(self.tasks)
        gc.collect()  # what others left behind is not this one's to clear away
        started = time.perf_counter()
        await self.work(self.tasks)
        return (time.perf_counter() - started) * MICROSECONDS / self.tasks


@attrs.frozen
class Figures:
    """The samples of one contender, in the order in which they were taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    def quantile(self, share: float) -> float:
        """Return the sample that this share of all does not exceed."""
        return sorted(self.samples)[min(int(share * len(self.samples)), len(self.samples) - 1)]

    def over(self, other: Figures) -> float:
        """Return how many times as long as the other's it took: the median of the ratios round by round."""
        pairs = zip(self.samples, other.samples, strict=True)
        return statistics.median(own / others for own, others in pairs)


async def take_turns(contenders: Sequence[Contender], rounds: int, say: Say) -> list[Figures]:
    """Have each contender do its work once a round, in an order that changes from round to round.

    So a machine that is noisy for a while is noisy for all, and nobody always follows the same neighbour.
    The first round only warms up.
    """
    random = Random(ORDER)
    samples: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warming up")
        for at in random.sample(range(len(contenders)), len(contenders)):
            taken = await contenders[at].sample()
            if number:
                samples[at].append(taken)
    return [Figures(tuple(taken)) for taken in samples]
