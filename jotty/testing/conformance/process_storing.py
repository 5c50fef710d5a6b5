"""C3 to C11, C43 to C45 among processes: what is stored stays stored, whoever is killed."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.testing.processes.caller import ALL_CALLS
from jotty.testing.processes.chaos import Chaos

from .process_leases import KEPT, SECOND
from .process_rules import RealRules, by_task, of_kind, with_option
from .terms import leave_out

if TYPE_CHECKING:
    from random import Random

    from jotty.core.queue import TaskQueue
    from jotty.testing.processes import Harness

__all__ = ["ProcessStoringRules"]

HOUR = 3600


class ProcessStoringRules(RealRules):
    """What several processes store, and what is left of it when they are killed."""

    def test_c03_ids_are_not_used_again_after_a_purge_and_a_kill(self, harness: Harness) -> None:
        """C3: ids are unique and never reused, also after purge and restart."""
        calls = ["enqueue_many", "claim", "complete", "purge"]
        for _ in range(2):
            process = harness.start("caller", calls=calls, times=1000)
            harness.until("called", process, number=4 * len(calls))
            harness.kill(process)
        stored = sorted(of_kind(harness.events(), "enqueued"), key=lambda event: event.time)
        seqs = [event.details["seq"] for event in stored]

        assert 24 <= len({event.task for event in stored}) == len(stored)
        assert seqs == sorted(set(seqs))

    def test_c04_a_killed_call_is_whole_or_absent(self, harness: Harness, random: Random) -> None:
        """C4: every call is atomic: whole effect or none, also when its process is killed in the midst."""
        for _ in range(6):
            process = harness.start("caller", calls=ALL_CALLS, times=1000, lease_timeout=0.5)
            harness.until("called", process)
            time.sleep(random.uniform(0, 0.1))
            harness.kill(process)
        after = harness.start("caller", calls=ALL_CALLS, times=3)
        harness.finish(after)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert 3 * len(ALL_CALLS) == sum(
            event.process == after.name for event in of_kind(harness.events(), "called")
        )

    def test_c06_every_process_sees_a_task_once_enqueue_has_returned(self, harness: Harness) -> None:
        """C6: once enqueue returns, every process sees the task, also through a handle opened before."""

        async def look(queue: TaskQueue) -> int:
            await queue.stats()
            producers = [harness.start("producer", tasks=10, pause=0.01) for _ in range(2)]
            seen: set[str] = set()
            while len(seen) < 20:
                for event in of_kind(harness.events(), "enqueued"):
                    if event.task not in seen:
                        found = await queue.get(event.task)
                        assert found is not None, (
                            f"{event.process} has enqueued {event.task}, and it is not there"
                        )
                        seen.add(event.task)
                await anyio.sleep(0.001)
            harness.finish(*producers)
            return len(seen)

        assert 20 == harness.ask(look)

    def test_c06_what_was_enqueued_survives_the_kill_of_everyone(self, harness: Harness) -> None:
        """C6: it survives kill -9 of everyone."""
        producers = [harness.start("producer", tasks=100_000, batch=batch) for batch in (1, 1, 5)]
        harness.until("enqueued", *producers, number=20)
        for process in producers:
            process.popen.kill()
        for process in producers:
            harness.kill(process)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert 60 <= verdict.figures.tasks

    def test_c08_a_killed_enqueue_of_many_is_all_or_nothing(self, harness: Harness, random: Random) -> None:
        """C8: enqueueing many is all or nothing, in the order of the list."""
        for _ in range(4):
            process = harness.start("producer", tasks=100_000, batch=50, depends=0.5)
            harness.until("enqueued", process)
            time.sleep(random.uniform(0, 0.05))
            harness.kill(process)
        verdict = harness.verdict()

        assert verdict.ok, verdict

    def test_c09_racing_processes_create_one_task_for_a_key(self, harness: Harness) -> None:
        """C9: N racing processes create exactly one task for a key; all are given its id."""
        producers = [harness.start("producer", tasks=30, keys=10, waits=True) for _ in range(4)]
        harness.go(*producers)
        harness.finish(*producers)
        stored = of_kind(harness.events(), "enqueued")
        verdict = harness.verdict()

        assert 120 == len(stored)
        assert 10 == len({(event.details["key"], event.task) for event in stored})
        assert verdict.ok, verdict
        assert {"pending": 10} == verdict.figures.final

    def test_c11_racing_processes_do_not_exceed_the_size(self, harness: Harness) -> None:
        """C11: `max_size` counts the live tasks of the store, checked atomically, whoever enqueues."""
        url = with_option(harness.url, "max_size=10")
        producers = [harness.start("producer", tasks=20, waits=True, url=url) for _ in range(4)]
        harness.go(*producers)
        harness.finish(*producers)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert {"pending": 10} == verdict.figures.final
        assert 70 == len(of_kind(harness.events(), "refused"))

    @pytest.mark.parametrize("loop", ["asyncio", "trio"])
    def test_c43_after_a_fork_the_parent_is_unharmed(
        self, request: pytest.FixtureRequest, harness: Harness, loop: str
    ) -> None:
        """C43: after fork: works, or a clear error; the parent is unharmed."""
        if not hasattr(os, "fork"):
            leave_out(request, "the system cannot fork")
        if find_spec(loop) is None:
            leave_out(request, f"{loop} is not installed")
        process = harness.start("forker", loop=loop)
        harness.finish(process)
        told = {event.details["by"]: event.details["outcome"] for event in of_kind(harness.events(), "used")}
        (child,) = of_kind(harness.events(), "ended")
        final = harness.verdict().figures.final

        assert 0 == child.details["outcome"]
        assert ("completed", "completed") == (told["parent"], told["parent afterwards"])
        assert {"completed", "StorageError"} >= set(told.values())
        assert {"completed": list(told.values()).count("completed")} == final

    def test_c44_nothing_acknowledged_is_lost_at_a_kill(self, harness: Harness, random: Random) -> None:
        """C44: level "process": nothing acknowledged is lost at kill -9."""
        chaos = Chaos(harness=harness, random=random, tasks=40, kills=8, workers=4, patience=30)
        verdict = chaos.run()

        assert verdict.ok, verdict
        assert 8 <= verdict.figures.kills

    def test_c45_all_processes_read_one_time(self, harness: Harness) -> None:
        """C45: the store's clock is steady, and the same for all, whatever their wall clocks show."""
        processes = [harness.start("caller", calls=["stats", "now"], wall=wall) for wall in (0, HOUR, -HOUR)]
        harness.finish(*processes)
        ahead = [event.details["now"] - event.time for event in of_kind(harness.events(), "clock")]

        assert 3 == len(ahead)
        assert max(ahead) - min(ahead) < SECOND

    def test_c45_a_wall_clock_that_jumps_steals_no_lease_and_delays_no_task(self, harness: Harness) -> None:
        """C45: a client's wall clock that is an hour off steals no live lease and delays no task."""
        first = harness.start("worker", lease_timeout=KEPT, seconds=2.5 * KEPT)
        harness.start("producer", tasks=3)
        harness.until("started", first)
        harness.start("producer", tasks=20, delays=0.5, longest=0.5, wall=-HOUR)
        harness.start("producer", tasks=20, delays=0.5, longest=0.5, wall=HOUR)
        for wall in (-HOUR, HOUR):
            harness.start("manager", wall=wall, lease_timeout=KEPT)
            harness.start("worker", wall=wall, lease_timeout=KEPT)
        harness.wait_for(lambda: 43 == len(of_kind(harness.events(), "enqueued")), "all was enqueued")
        harness.drain()
        harness.end()
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert {"completed": 43} == verdict.figures.final
        assert 0 == verdict.figures.redeliveries
        assert 43 == len(by_task(harness.events(), "started"))
