"""Real processes, killed by -9 at random: what was paid for and is in the journal is not paid for again.

The long form is `pytest -m chaos tests/durable`; JOTTY_CHAOS_KILLS and JOTTY_CHAOS_SEED change its measure.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.testing.processes import Harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jotty import TaskQueue
    from jotty.testing.processes import Process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

APP = """
from __future__ import annotations

import anyio
from jotty import ActorContext, Conductor, actor


def pay(path: str, what: str) -> str:
    with open(path, "a") as file:
        file.write(f"{what}\\n")
    return what


async def item(number: int, ctx: ActorContext, path: str) -> list[str]:
    first = await ctx.step("first", pay, path, f"{number}.first")
    await anyio.sleep(0.05)
    return [first, await ctx.step("second", pay, path, f"{number}.second")]


@actor
async def plan(path: str, items: int) -> list[int]:
    pay(path, "plan")
    return list(range(items))


@actor
async def each(plan: list[int], ctx: ActorContext) -> int:
    return sum(len(found) for found in await ctx.map(item, plan, limit=4))


@actor
async def beside(path: str, plan: list[int]) -> str:
    pay(path, "beside")
    return "beside"


@actor
async def report(path: str, each: int, beside: str) -> str:
    pay(path, "report")
    return f"{each} {beside}"


conductor = Conductor([plan, each, beside, report], max_parallel=8)
"""


@attrs.define
class Work:
    """A goal in a store, worked on by one process at a time."""

    harness: Harness
    directory: Path
    task_id: str = ""

    @property
    def paid(self) -> Path:
        return self.directory / "paid"

    def lines(self) -> Counter[str]:
        return Counter(self.paid.read_text().split()) if self.paid.exists() else Counter()

    def enqueue(self, items: int) -> None:
        (self.directory / "app.py").write_text(APP)

        async def put(queue: TaskQueue) -> str:
            context = {"path": str(self.paid), "items": items}
            endless = {"jotty": {"max_iterations": 1_000_000}}
            return (await queue.enqueue("g", context, max_attempts=1000, metadata=endless)).id

        self.task_id = self.harness.ask(put)

    def start(self) -> Process:
        command = str(Path(sys.executable).with_name("jotty"))
        app = str(self.directory / "app.py")
        options = ["-q", self.harness.url, "--lease-timeout", "1", "--drain"]
        return self.harness.run(f"worker-{len(self.harness.processes)}", [command, "worker", app, *options])

    def journaled(self) -> set[str]:
        """What is in the journal of what was paid for."""

        async def read(queue: TaskQueue) -> set[str]:
            found = set()
            async for entry in queue.events(self.task_id, follow=False):
                if entry.kind == "step" and "key" in entry.data:
                    found.add(entry.data["output"])
                elif entry.kind == "step" and entry.data["agent"] in {"plan", "beside", "report"}:
                    found.add(entry.data["agent"])
            return found

        return set(self.harness.ask(read))

    def result(self) -> Any:
        async def read(queue: TaskQueue) -> Any:
            return await queue.result(self.task_id, 0.0)

        return self.harness.ask(read)

    def kill_while_it_works(self, random: Random, kills: int) -> None:
        """Kill worker after worker, and insist after each that nothing was paid for again."""
        kept: dict[str, int] = {}
        for _ in range(kills):
            worker = self.start()
            before = self.lines().total()
            wanted = before + random.randint(1, 12)
            self.harness.wait_for(partial(self._has_paid, worker, wanted), "it works")
            time.sleep(random.random() * 0.02)
            if not worker.is_alive:
                break
            self.harness.kill(worker)
            lines = self.lines()
            self.check(kept, lines)
            kept = {what: lines[what] for what in self.journaled()}
        self.harness.finish(self.start(), timeout=120)
        self.check(kept, self.lines())

    def _has_paid(self, worker: Process, wanted: int) -> bool:
        return not worker.is_alive or self.lines().total() >= wanted

    def check(self, kept: dict[str, int], lines: Counter[str]) -> None:
        again = {what: (number, lines[what]) for what, number in kept.items() if lines[what] != number}
        assert again == {}, "it was in the journal, and was paid for again"


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    history = tmp_path / "history"
    history.mkdir()
    with Harness(f"sqlite:///{tmp_path / 'tasks.db'}", history) as harness:
        yield Work(harness, tmp_path)


def prove(work: Work, random: Random, items: int, kills: int) -> None:
    work.enqueue(items)
    work.kill_while_it_works(random, kills)
    lines = work.lines()

    assert sum(process.was_killed for process in work.harness.processes) >= kills // 2
    assert work.result()["final_output"] == f"{items * 2} beside"
    assert set(lines) == work.journaled()
    assert lines.total() - len(lines) <= kills * 8  # at most what was at work at a kill


def test_workers_that_are_killed_repeat_nothing_that_is_in_the_journal(work: Work) -> None:
    prove(work, Random(7), items=40, kills=5)


@pytest.mark.chaos
def test_many_workers_that_are_killed_repeat_nothing_that_is_in_the_journal(work: Work) -> None:
    seed = int(os.environ.get("JOTTY_CHAOS_SEED", SystemRandom().randrange(1_000_000)))
    kills = int(os.environ.get("JOTTY_CHAOS_KILLS", "100"))
    print(f"JOTTY_CHAOS_SEED={seed}")  # noqa: T201 - what it takes to repeat it
    prove(work, Random(seed), items=kills * 10, kills=kills)
