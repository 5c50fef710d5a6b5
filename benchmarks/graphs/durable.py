"""What does a durable step cost, in time and in bytes, beside a transaction that inserts one row?"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.graphs.on_jotty import GOAL, ROOM
from benchmarks.measuring import Contender, Figures
from benchmarks.reporting import Answer, Group, Table, Target, compare
from jotty import Actor, Conductor, WorkflowMode
from jotty.core.queue import open_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.graphs.setting import Setting
    from jotty.core.queue import TaskQueue

__all__ = ["ask"]

RAW: Final = "raw sqlite3, a transaction for each row"
OUTPUT: Final = "The quarter went well. " * 5
ENTRY: Final = json.dumps({"kind": "step", "node": "n1", "round": 0, "output": OUTPUT}).encode()
IN_ALL: Final = "all entries, less the outputs"
SLOWEST: Final = 3.5
MOST: Final = 200
PAGE: Final = 1000


async def ask(setting: Setting) -> Answer:
    """Work on queued runs: one that is long, and many at once."""
    size = setting.size
    async with AsyncExitStack() as stack:
        raw = stack.enter_context(closing(_RawJournal(setting.path("raw"))))
        one = await _opened(stack, setting, size.nodes, runs=1)
        many = await _opened(stack, setting, size.steps, runs=size.runs)
        contenders = {RAW: Contender(raw.insert, size.nodes)}
        contenders |= {runs.name: Contender(runs.work, runs.in_all, runs.enqueue) for runs in (one, many)}
        group = Group("Durable steps, sqlite (NORMAL)", contenders, {"x raw": RAW}, "time")
        (table,) = await compare([group], size.rounds, setting.say)
        told = [await runs.told() for runs in (one, many)]
    timed = [
        Target(f"{runs.name}: time beside {RAW}", SLOWEST, table.ratio(runs.name, RAW), is_least=False)
        for runs in (one, many)
    ]
    stored = [
        Target(f"{each.title}: {IN_ALL}", MOST, each.rows[IN_ALL].median, is_least=False, unit=" bytes")
        for each in told
    ]
    return Answer([attrs.evolve(table, unit="µs a step"), *told], [*timed, *stored])


class _RawJournal:
    """A table of entries, each written as one would by hand."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE journal (task INTEGER, number INTEGER, data BLOB, PRIMARY KEY (task, number))"
            " WITHOUT ROWID"
        )
        self._tasks = 0

    async def insert(self, rows: int) -> None:
        self._tasks += 1
        for number in range(rows):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT INTO journal VALUES (?, ?, ?)", (self._tasks, number, ENTRY))
            self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


@attrs.define
class _Runs:
    """Runs of one chain in one queue.

    Attributes:
        name: What this contender is called.
        workflow: Whose runs they are.
        queue: Where they are.
        steps: How many steps each has.
        runs: How many go on at once.
        ids: Those of the last sample.
    """

    name: str
    workflow: WorkflowMode
    queue: TaskQueue
    steps: int
    runs: int
    ids: list[str] = attrs.field(factory=list)

    @property
    def in_all(self) -> int:
        return self.steps * self.runs

    async def enqueue(self, _: int) -> None:
        room = self.steps + ROOM
        self.ids = [await self.workflow.enqueue_task(GOAL, max_iterations=room) for _ in range(self.runs)]

    async def work(self, _: int) -> None:
        done = await self.workflow.process_queue(max_tasks=self.runs, max_concurrent=self.runs)
        if done != self.runs:
            raise RuntimeError(f"{self.runs} runs were to come to their end, not {done}")

    async def told(self) -> Table:
        """Return what their journals hold, by kind of entry; and in all, less what the steps returned."""
        sizes: Counter[str] = Counter()
        for task_id in self.ids:
            result = await self.workflow.result(task_id)
            _check(result, self.steps)
            async for data in _journal(self.queue, task_id):
                sizes[_kind(data)] += len(data)
        rows = {f"entries {kind!r}": Figures((size / self.in_all,)) for kind, size in sorted(sizes.items())}
        rows[IN_ALL] = Figures((sizes.total() / self.in_all - len(json.dumps(OUTPUT)),))
        return Table(f"Journal, {self.name}", rows, unit="bytes a step")


async def _opened(stack: AsyncExitStack, setting: Setting, steps: int, *, runs: int) -> _Runs:
    path = setting.path("runs").as_posix()
    queue = await stack.enter_async_context(open_queue(f"sqlite:///{path}?durability=process"))
    workflow = WorkflowMode(Conductor(_chain(steps)), execution="async", queue=queue)
    name = f"{runs} runs of {steps} steps" if runs > 1 else f"1 run of {steps} steps"
    return _Runs(name, workflow, queue, steps, runs)


def _chain(steps: int) -> list[Any]:
    following = (Actor(name=f"n{at}", call=_follow, bind={"before": f"n{at - 1}"}) for at in range(1, steps))
    return [Actor(name="n0", call=_begin), *following]


async def _begin() -> str:
    return OUTPUT


async def _follow(before: str) -> str:
    return before


async def _journal(queue: TaskQueue, task_id: str) -> AsyncIterator[bytes]:
    after = 0
    while page := await queue.backend.read(task_id, after, PAGE):
        for _, data in page:
            yield data
        after, _ = page[-1]


def _kind(data: bytes) -> str:
    """Return the kind of an entry; of an event, its type too."""
    told = json.loads(data)
    return f"event {told['event']['type']}" if told["kind"] == "event" else told["kind"]


def _check(result: Mapping[str, Any], steps: int) -> None:
    if result["final_output"] != OUTPUT or len(result["actor_outputs"]) != steps:
        raise RuntimeError(f"a run of {steps} steps came to {result!r:.200}")
