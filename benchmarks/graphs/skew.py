"""Does a branch wait for another one? A run should take as long as its longest path."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.graphs.contenders import ALONE, LANGGRAPH, TASKS, WATCHED, contender, trials
from benchmarks.graphs.shapes import skewed
from benchmarks.measuring import MICROSECONDS, Contender
from benchmarks.reporting import Answer, Group, Target, compare

if TYPE_CHECKING:
    from benchmarks.graphs.setting import Setting

__all__ = ["ask"]

PATH: Final = "the longest path alone"
WHO: Final = (TASKS, ALONE, WATCHED, LANGGRAPH, "hamilton")
BOUND: Final = 1.03


async def ask(setting: Setting) -> Answer:
    """Run a branch of many short pauses beside one long pause, which is a little shorter in all."""
    pauses, pause = setting.size.pauses, setting.size.pause
    shape = skewed(pauses, pause)
    found = await trials(shape, WHO)

    async def wait_along(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(pause)

    contenders = {PATH: Contender(wait_along, pauses)}
    contenders |= {name: contender(trial, pauses) for name, trial in found.items()}
    title = f"{pauses} pauses of {pause * 1000:g} ms, beside one of {shape.pauses['lone'] * 1000:g} ms"
    group = Group(title, contenders, {"x path": PATH}, "time")
    (table,) = await compare([group], setting.size.rounds, setting.say)
    on_paper = table.rows[WATCHED].median / (pause * MICROSECONDS)
    return Answer(
        [attrs.evolve(table, unit="µs a pause")],
        [
            Target(f"{WATCHED}: time beside {PATH}", BOUND, table.ratio(WATCHED, PATH), is_least=False),
            Target(f"{WATCHED}: time beside the sum of its pauses", BOUND, on_paper, is_least=False),
        ],
    )
