"""C15 and C21 to C27 among processes: who holds a task, while others are killed, stopped or busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from jotty.core.queue import TaskStatus
from jotty.testing.processes.holder import WRITES

from .process_rules import RealRules, by_task, of_kind

if TYPE_CHECKING:
    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.processes import Harness, Process

__all__ = ["ProcessLeaseRules"]

SECOND: Final = 1_000_000
HOUR: Final = 3600
SLACK: Final = 2.0  # seconds, for a machine that has much else to do
# a lease that a living process must not lose, though such a machine does not let it run for a while
KEPT: Final = 2.0


class ProcessLeaseRules(RealRules):
    """Leases among processes."""

    def test_c15_processes_claim_disjointly(self, harness: Harness) -> None:
        """C15: a (task, lease) is given to exactly one caller; concurrent claims are disjoint."""
        harness.finish(harness.start("producer", tasks=150, batch=50))
        for limit in (1, 3, 3, 5):
            harness.start("worker", limit=limit, seconds=0.005)
        harness.drain()
        harness.end()
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert (150, 150, {"completed": 150}) == (
            verdict.figures.claims,
            verdict.figures.runs,
            verdict.figures.final,
        )

    def test_c21_leases_grow_by_one_though_their_holders_are_killed(self, harness: Harness) -> None:
        """C21: lease grows by exactly one a claim, across release, retry, reopen."""
        harness.finish(harness.start("producer", max_attempts=10))
        for _ in range(4):
            holder = harness.start("holder", lease_timeout=0.3)
            harness.until("ready", holder)
            harness.kill(holder)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert [1, 2, 3, 4] == [event.lease for event in of_kind(harness.events(), "claimed")]

    def test_c22_living_workers_never_hold_one_task_together(self, harness: Harness) -> None:
        """C22: two live, renewing workers never hold one task, however long it takes."""
        harness.finish(harness.start("producer", tasks=6))
        for kind in ("worker", "worker", "manager"):
            harness.start(kind, lease_timeout=KEPT, seconds=2.5 * KEPT)
        harness.drain()
        harness.end()
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert (6, 0) == (verdict.figures.runs, verdict.figures.redeliveries)

    def test_c23_every_write_of_a_thawed_worker_is_refused(self, harness: Harness) -> None:
        """C23: a worker stopped beyond its lease and thawed after takeover: every write raises LeaseLost."""
        harness.finish(harness.start("producer"))
        holder = harness.start("holder", lease_timeout=0.5)
        harness.until("ready", holder)
        harness.stop(holder)
        taker = harness.start("worker", tasks=1)
        harness.finish(taker)
        harness.go_on(holder)
        holder.send("go")
        harness.finish(holder)
        tried = {
            event.details["write"]: event.details["outcome"] for event in of_kind(harness.events(), "tried")
        }
        verdict = harness.verdict()
        (final,) = of_kind(harness.events(), "final")

        assert dict.fromkeys(["heartbeat", *WRITES], "lost") == tried
        assert {"by": taker.name, "lease": 2} == final.details["result"]
        assert verdict.ok, verdict

    @pytest.mark.parametrize("wall", [0, HOUR])
    def test_c24_a_killed_workers_task_is_taken_within_its_lease_and_a_second(
        self, harness: Harness, wall: int
    ) -> None:
        """C24, C45: expired leases are reclaimed within lease + 1 s, whatever the wall clocks show."""
        harness.finish(harness.start("producer"))
        self._have_a_holder_killed(harness, lease_timeout=1.0, wall=wall)
        takers = [harness.start(kind, wall=-wall) for kind in ("worker", "manager")]
        looking = min(event.time for event in harness.until("claiming", *takers))
        harness.drain()
        harness.end()
        verdict = harness.verdict()
        lost, taken = of_kind(harness.events(), "claimed")

        assert verdict.ok, verdict
        assert lost.since + SECOND <= taken.time
        assert taken.time <= max(lost.time + SECOND, looking) + (1 + SLACK) * SECOND

    def test_c24_without_an_attempt_left_the_task_is_failed(self, harness: Harness) -> None:
        """C24: to failed ("worker lost") when no attempts are left."""
        harness.finish(harness.start("producer", max_attempts=1))
        self._have_a_holder_killed(harness, lease_timeout=0.5)
        harness.start("manager")
        harness.drain()
        harness.end()
        (task,) = harness.ask(_all_tasks)

        assert (TaskStatus.FAILED, 1) == (task.status, task.lease)
        assert task.error["type"] == "WorkerLost"

    def test_c25_only_the_culprit_uses_up_its_attempts(self, harness: Harness) -> None:
        """C25: a task that kills its worker runs at most max_attempts times; its neighbours do not fail."""
        harness.finish(
            harness.start("producer", tasks=5, max_attempts=2),
            harness.start("producer", max_attempts=3, context={"kills": True}),
        )
        (culprit,) = {task.id for task in harness.ask(_all_tasks) if task.context}
        worker = self._new_crowded_worker(harness)
        for _ in range(12):
            if not harness.outlive(worker):
                break
            worker = self._new_crowded_worker(harness)
        verdict = harness.verdict()
        runs = {task: len(begun) for task, begun in by_task(harness.events(), "started").items()}
        culprit_now = next(task for task in harness.ask(_all_tasks) if task.id == culprit)

        assert verdict.ok, verdict
        assert {"completed": 5, "failed": 1} == verdict.figures.final
        assert (TaskStatus.FAILED, 3) == (culprit_now.status, runs.pop(culprit))
        assert max(runs.values()) <= 2

    def test_c27_a_worker_whose_loop_is_blocked_keeps_its_leases(self, harness: Harness) -> None:
        """C27: a worker whose event loop an actor blocks keeps its leases."""
        harness.finish(harness.start("producer", tasks=2))
        blocked = harness.start(
            "manager", lease_timeout=KEPT, blocks=1.2 * KEPT, seconds=0.0, max_concurrent=2
        )
        harness.until("started", blocked)
        harness.start("worker")
        harness.drain()
        harness.end()
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert (2, 0) == (verdict.figures.runs, verdict.figures.redeliveries)

    def test_c27_busy_workers_keep_their_leases(self, harness: Harness) -> None:
        """C27: under 8 busy workers < 1 % of leases expire while their holder lives."""
        workers = [harness.start("manager", lease_timeout=KEPT, seconds=0.05, records=2) for _ in range(8)]
        harness.start("producer", tasks=400, batch=20)
        harness.wait_for(lambda: 400 == len(of_kind(harness.events(), "enqueued")), "all was enqueued")
        harness.drain()
        harness.end(*workers)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert {"completed": 400} == verdict.figures.final
        assert verdict.figures.expiries * 100 < verdict.figures.claims

    def _have_a_holder_killed(self, harness: Harness, *, lease_timeout: float, wall: int = 0) -> None:
        holder = harness.start("holder", lease_timeout=lease_timeout, wall=wall)
        harness.until("ready", holder)
        harness.kill(holder)

    def _new_crowded_worker(self, harness: Harness) -> Process:
        return harness.start("manager", max_concurrent=6, lease_timeout=KEPT, seconds=0.2, drain=True)


async def _all_tasks(queue: TaskQueue) -> list[Task]:
    return [task async for task in queue.tasks()]
