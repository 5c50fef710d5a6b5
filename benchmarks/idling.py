"""What does a worker cost that has nothing to do?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.measuring import Figures
from benchmarks.reporting import Answer, Table, Target
from benchmarks.workers import worker_process
from jotty.core.queue import open_queue

if TYPE_CHECKING:
    from benchmarks.setting import Setting

__all__ = ["ask"]

MOST: Final = 1.0
UNIT: Final = " % of a core"


async def ask(setting: Setting) -> Answer:
    """Watch one worker after the other, each in a process of its own, second by second."""
    seconds = setting.effort.idle
    rows = {}
    for scheme in setting.installed(["sqlite", "file"]):
        setting.say(f"{scheme}, {seconds} s")
        rows[f"jotty {scheme}"] = await _watch(setting.url(scheme), seconds)
    targets = [
        Target(f"{name}, CPU of an idle worker", MOST, _mean(figures), is_least=False, unit=UNIT)
        for name, figures in rows.items()
    ]
    return Answer([Table(f"Idle worker, {seconds} s", rows, unit=UNIT.strip())], targets)


async def _watch(url: str, seconds: int) -> Figures:
    async with open_queue(url) as queue:
        await queue.stats()  # makes the store
    async with worker_process(url, "--idle", str(seconds)) as lines:
        return Figures(tuple([float(await lines.next()) for _ in range(seconds)]))


def _mean(figures: Figures) -> float:
    return sum(figures.samples) / len(figures.samples)
