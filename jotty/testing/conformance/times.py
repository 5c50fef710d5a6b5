"""H. Durability, time, security: what one process can see of C44, C45 and C48."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from jotty.core.queue import NewTask, TaskStatus

from .rules import Rules, claim_one, collect, everything, head_of

if TYPE_CHECKING:
    from jotty.core.queue import TaskQueue
    from jotty.testing.clock import VirtualClock

__all__ = ["TimeRules"]

HOUR: Final = 3600.0
HOSTILE: Final = [
    "'; DROP TABLE tasks; --",
    '"',
    "%",
    "_",
    "*",
    "[a-z]",
    "../../../etc/passwd",
    "C:\\con",
    "a:b",
    "{}",
    "${HOME}",
    "\U0001f40d",
    "e\u0301",
    "\u00e9",
    "A",
    "a",
    "x" * 200,
]


class TimeRules(Rules):
    """C44, C45 and C48: levels, clocks and names."""

    async def test_c44_the_level_is_readable(self, queue: TaskQueue) -> None:
        """C44: the level is readable on the queue."""
        assert queue.durability in {"none", "process", "power"}
        assert queue.durability == queue.backend.durability

    async def test_c44_the_address_is_readable(self, queue: TaskQueue) -> None:
        """C44: so is the store's address."""
        assert queue.url == queue.backend.url
        assert queue.url in repr(queue)
        assert ":" in queue.url

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    async def test_c45_a_jump_of_the_wall_clock_steals_no_lease(
        self, queue: TaskQueue, clock: VirtualClock, jump: float
    ) -> None:
        """C45: the wall clock jumping by an hour either way steals no live lease."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=30)
        clock.set_wall(jump)
        await clock.advance(29)
        stolen = await queue.claim(worker="thief")
        await queue.heartbeat([held], lease_timeout=30)
        await clock.advance(29)
        stolen += await queue.claim(worker="thief")

        assert [] == stolen
        assert TaskStatus.COMPLETED is (await queue.complete(held)).status

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    async def test_c45_nor_lets_it_a_dead_one_live_on(
        self, queue: TaskQueue, clock: VirtualClock, jump: float
    ) -> None:
        """C45: nor lets any dead one outlive lease + 1 s."""
        await queue.enqueue("goal")
        held = await claim_one(queue, lease_timeout=30)
        clock.set_wall(jump)
        await clock.advance(31)

        assert held.id == (await claim_one(queue)).id

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    async def test_c45_nor_delays_it_a_task(self, queue: TaskQueue, clock: VirtualClock, jump: float) -> None:
        """C45: nor delays a task; a wall-clock time given as run_at is converted at enqueue."""
        at = datetime.fromtimestamp(clock.wall() / 1e6, UTC) + timedelta(seconds=60)
        await queue.enqueue_many([NewTask("at", run_at=at), NewTask("later", delay=60)])
        clock.set_wall(jump)
        await queue.enqueue("now")
        at_once = await queue.claim(worker="worker", limit=9, lease_timeout=HOUR)
        await clock.advance(59.9)
        early = await queue.claim(worker="worker", limit=9)
        await clock.advance(0.1)
        in_time = await queue.claim(worker="worker", limit=9)

        assert [["now"], [], ["at", "later"]] == [
            [task.goal for task in claimed] for claimed in (at_once, early, in_time)
        ]

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    async def test_c45_a_wall_clock_time_is_meant_as_the_wall_clock_shows_it(
        self, queue: TaskQueue, clock: VirtualClock, jump: float
    ) -> None:
        """C45: a wall-clock time given as run_at, or as an expiry, is converted by the wall clock of then."""
        clock.set_wall(jump)
        at = datetime.fromtimestamp(clock.wall() / 1e6, UTC) + timedelta(seconds=60)
        await queue.enqueue("parked")
        parked = await queue.park(await claim_one(queue), ["question"], until=at)
        task = await queue.enqueue("goal", run_at=at)

        assert clock.now() + 60_000_000 == task.head.run_at == (await head_of(queue, parked)).due

    async def test_c48_names_are_names_and_nothing_else(self, queue: TaskQueue) -> None:
        """C48: no name reaches SQL or a path unescaped; each is told from each other."""
        await queue.enqueue_many(NewTask(name, lane=name, key=name, tags=[name]) for name in HOSTILE)
        found = {
            name: [
                *await collect(queue.tasks(lane=name)),
                *await collect(queue.tasks(key=name)),
                *await collect(queue.tasks(tag=name)),
                *await queue.claim(worker=name, lanes=[name], limit=99),
            ]
            for name in HOSTILE
        }

        assert {name: [name] * 4 for name in HOSTILE} == {
            name: [task.goal for task in tasks] for name, tasks in found.items()
        }
        assert set(HOSTILE) == set((await queue.stats()).lanes)
        assert len(HOSTILE) == len(await everything(queue))

    async def test_c48_questions_are_names_too(self, queue: TaskQueue) -> None:
        """C48: so are the keys of questions."""
        await queue.enqueue("goal")
        parked = await queue.park(await claim_one(queue), HOSTILE)
        answered = await queue.answer(parked.id, HOSTILE[-1], HOSTILE)

        assert tuple(HOSTILE) == parked.awaiting
        assert TaskStatus.PENDING is answered.status
